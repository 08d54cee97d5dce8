"""What a command says about a path that it takes in place of a bundle or a checkpoint of the same name."""

from __future__ import annotations

from pathlib import Path

from slm.console.notice import log_line
from slm.folder_kind import MODELS, Kind, find_kind, hidden_checkpoint


def tell_hidden_checkpoints(*paths: Path | None) -> None:
    """Writes a line to stderr for each path that is taken in place of a checkpoint that ships under its name.

    Args:
        paths: The checkpoints, or folders with a tokenizer, that a command takes. None and a path that does
            not hide a usable folder are left out.
    """
    for path in paths:
        if path is not None and (hidden := hidden_checkpoint(path)) and find_kind(path) in (*MODELS, Kind.DATA_SET):
            log_line(taken_before(path, "checkpoint", hidden))


def taken_before(path: Path, what: str, hidden: Path) -> str:
    """Returns the line about a path that is taken before a name.

    Args:
        path: The path, which is also the name.
        what: What has the name: "bundle" or "checkpoint".
        hidden: Where that is.
    """
    used = "folder" if path.is_dir() else "file"
    return f"{path}: this {used} is taken, not the {what} of the same name, which is {hidden}"
