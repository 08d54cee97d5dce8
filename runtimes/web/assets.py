"""The built files of the page: in a clone those in `runtimes/web/app`, elsewhere those of the package slmx-web."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import brotli

from slm.errors import SlmxError

PACKAGE = "slmx_web"
BUILT = Path(__file__).parent / "app" / PACKAGE
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
    folder = _page_folder()
    try:
        page = {name: (folder / name).read_bytes() for name in NAMES}
        return page | {WASM: brotli.decompress(page[PACKED_WASM])}
    except (OSError, brotli.error):
        raise SlmxError(
            f"{folder}: the files of the web page are not whole; install them again: {_install_line()}"
        ) from None


def _page_folder() -> Path:
    if (BUILT / NAMES[0]).is_file():
        return BUILT
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SlmxError(f"the files of the web page are not installed: {_install_line()}")
    return Path(spec.submodule_search_locations[0])


def _install_line() -> str:
    return "in a clone of slmx, run pip install ./runtimes/web/app"
