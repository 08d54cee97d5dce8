"""Writes the files that a peer opens. This runs in a separate process, because a converter may crash.

python -m benchmarks.peers.prepare NAME CHECKPOINT BUNDLE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.registry import find_peer


def main() -> None:
    """Prepares the peer that the arguments name. The caller reports the last line of stderr if this fails."""
    name, *folders = sys.argv[1:]
    checkpoint, bundle, folder = map(Path, folders)
    find_peer(name).prepare(checkpoint, bundle, folder)


if __name__ == "__main__":
    main()
