"""The name of a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass

from slm.storage.json_reader import is_plain_name

NAME = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@([\w./-]+))?", re.ASCII)
# Parts between slashes, of which none begins with a dot (git-check-ref-format).
REVISION = re.compile(r"\w[\w.-]*(?:/[\w-][\w.-]*)*", re.ASCII)
NEWEST = "main"
HUB = "hub:"  # before a name that could also be a path


@dataclass(frozen=True)
class HubName:
    """The name of a repository on the hub.

    Attributes:
        repository: OWNER/NAME.
        revision: A branch, a tag or the hash of a commit; None is the newest commit of the branch `main`.
    """

    repository: str
    revision: str | None

    @classmethod
    def find(cls, text: str) -> HubName | None:
        """Reads OWNER/NAME or OWNER/NAME@REVISION; None if a text is neither."""
        match = NAME.fullmatch(text)
        if match is None or not all(is_plain_name(part) for part in match[1].split("/")):
            return None
        return cls(match[1], match[2]) if match[2] is None or is_revision(match[2]) else None

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"

    @property
    def asked(self) -> str:
        """The revision, or the branch that stands for None."""
        return self.revision or NEWEST


def is_revision(text: str) -> bool:
    """Returns whether git can have a branch or tag of this name, in Latin letters, digits, `_`, `-`, `.` and `/`."""
    return REVISION.fullmatch(text) is not None and ".." not in text and not text.endswith((".", ".lock"))
