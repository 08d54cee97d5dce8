"""The built files of the page of a site."""

from __future__ import annotations

import brotli

from runtimes.web.installed import NOT_INSTALLED, find_page_folder, page_is_damaged
from slm.console.errors import SlmxError

WASM = "ort-wasm-simd-threaded.wasm"
PACKED_WASM = f"{WASM}.br"
SERVICE_WORKER = "sw.js"
LICENCES = "LICENSES.txt"
NAMES = (
    "app.js",
    "fallback.js",
    "icon.svg",
    "index.html",
    LICENCES,
    "ort-wasm-simd-threaded.js",
    PACKED_WASM,
    "style.css",
    SERVICE_WORKER,
    "worker.js",
)


def read_page() -> dict[str, bytes]:
    """Returns the built files of the page by name. onnxruntime is there twice: as it is, and packed by brotli.

    Raises:
        SlmxError: The files are not installed, or one of them is missing or damaged.
    """
    folder = find_page_folder()
    if folder is None:
        raise SlmxError(NOT_INSTALLED)
    try:
        page = {name: (folder / name).read_bytes() for name in NAMES}
        return page | {WASM: brotli.decompress(page[PACKED_WASM])}
    except (OSError, brotli.error):
        raise page_is_damaged(folder) from None
