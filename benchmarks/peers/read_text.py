"""Reads a text with a peer. This runs in a separate process, because a runtime may crash.

python -m benchmarks.peers.read_text NAME FOLDER WINDOWS

WINDOWS is a .npz file with the ids `inputs` and the ids that follow them, `targets`, both int64 [windows, length]. The
last line of stdout is the total negative log-likelihood of the targets in nats.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.peers import Reader
from benchmarks.peers.registry import find_peer
from runtimes.engine.loss import log_softmax, negative_log_likelihood

THREADS = 1  # the result does not depend on it


def main() -> None:
    """Reads the text that the arguments name. The caller reports the last line of stderr if this fails."""
    name, folder, windows = sys.argv[1:]
    reader = cast(Reader, find_peer(name).open(Path(folder), THREADS))
    with np.load(windows) as text:
        inputs, targets = text["inputs"], text["targets"]
    nats = 0.0
    for ids, following in zip(inputs, targets, strict=True):
        nats += negative_log_likelihood(log_softmax(reader.read(ids.tolist())), following)
    print(nats)


if __name__ == "__main__":
    main()
