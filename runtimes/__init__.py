"""Bundle to text: onnxruntime, numpy and tiktoken, nothing else.

>>> from runtimes import load
>>> print(load().generate("Once upon a time", max_tokens=60, seed=1).text)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtimes.engine.generator import Generator

# From 1.29 on onnxruntime keeps a device id in the home folder and reports to its maker, unless told before it loads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Where an export goes, below the current folder, under the name of its preset.
BUNDLES = Path("bundles")
PACKAGED_BUNDLE = Path(__file__).parent / "bundles" / "nano"


def load(bundle: str | Path = PACKAGED_BUNDLE, variant: str | None = None, threads: int | None = None) -> Generator:
    """Open a bundle, by default the nano stories that ship with slmx, ready to generate.

    `variant` is a name in its manifest, by default the one for its target. Raises SlmxError for a file that is not the
    one that the manifest lists.
    """
    from runtimes.bundle.store import Bundle
    from runtimes.engine.generator import Generator

    return Generator(Bundle.open(Path(bundle)), variant, threads)
