"""Write what a peer opens, in a process that may crash.

python -m benchmarks.studies.prepare_peer NAME CHECKPOINT BUNDLE FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.registry import find_peer


def main() -> None:
    """Prepare the peer that the arguments name; an exception's last line on stderr is the caller's note."""
    name, *folders = sys.argv[1:]
    checkpoint, bundle, folder = map(Path, folders)
    find_peer(name).prepare(checkpoint, bundle, folder)


if __name__ == "__main__":
    main()
