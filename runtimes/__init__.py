"""Writes stories from a bundle. It needs only onnxruntime, numpy and tiktoken.

>>> from runtimes import load
>>> print(load().generate("Once upon a time", max_tokens=60, seed=1).full_text)  # doctest: +SKIP

`types`, `words` and `beginnings` are at the root because several rooms or packages need them. Everything else is in a
room.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from runtimes.engine.generator import Generator

# onnxruntime 1.29 and later stores a device id in the home folder and reports usage unless this is set before it loads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load(
    bundle: str | Path | None = None,
    variant: str | None = None,
    threads: int | None = None,
    allow_special: bool = False,
    slots: int | None = None,
) -> Generator:
    """Opens a bundle to write stories with.

    Args:
        bundle: Its folder or archive, or a name that `slmx list` shows; nothing is downloaded. The default is the
            shipped nano, also where the current folder has a bundles/nano.
        variant: A name in its manifest; default: the one for its target.
        threads: Threads of onnxruntime, 1 to 256; default: by the size of the model. Without `variant` and `threads`,
            what `slmx doctor --pin` chose for this bundle is taken, if it did.
        allow_special: Whether special tokens in a prompt, such as `<|endoftext|>`, have their own ids. If not, they are
            plain text.
        slots: The most stories that are written at the same time; default: 64.

    Returns:
        A thread-safe Generator. It is a context manager; `close` frees the model.

    Raises:
        SlmxError: The path is not a bundle, a file is not the one that the manifest lists, or as in `Generator`.
    """
    from runtimes.bundle.location import DEFAULT_BUNDLE, SHIPPED_BUNDLES, bundle_path
    from runtimes.bundle.store import Bundle
    from runtimes.engine.generator import SLOTS, Generator

    opened = Bundle.open(SHIPPED_BUNDLES / DEFAULT_BUNDLE if bundle is None else bundle_path(bundle))
    return Generator(opened, variant, threads, allow_special, SLOTS if slots is None else slots)
