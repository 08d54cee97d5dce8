"""Reads a Containerfile: its stages and their instructions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

# A RUN that only Debian's packages are installed with, and what follows it.
APT = re.compile(r"apt-get update && apt-get install -y --no-install-recommends ([\w.+ -]+?)(?: && (.*))?")


@dataclass(frozen=True)
class Stage:
    """A part of a Containerfile, from one FROM to the next.

    Attributes:
        name: The name after AS; empty if there is none.
        instructions: The instructions after FROM, such as ("RUN", "true").
    """

    name: str
    instructions: tuple[tuple[str, str], ...]

    def texts(self, word: str) -> list[str]:
        """Returns the texts of all instructions of a kind, such as "RUN"."""
        return [text for kind, text in self.instructions if kind == word]

    @property
    def packages(self) -> list[str]:
        """The packages of Debian that it installs."""
        found = [APT.fullmatch(text) for text in self.texts("RUN")]
        return [name for match in found if match for name in match[1].split()]

    @property
    def commands(self) -> list[str]:
        """The commands that it runs, without those that install packages of Debian."""
        found = [(text, APT.fullmatch(text)) for text in self.texts("RUN")]
        rest = [match[2] if match else text for text, match in found]
        return [text for text in rest if text]

    @property
    def environment(self) -> dict[str, str]:
        """The variables of its commands."""
        return dict(pair.split("=", 1) for text in self.texts("ENV") for pair in text.split())

    def array(self, word: str) -> list[str]:
        """Returns the words of the only ENTRYPOINT, CMD or HEALTHCHECK, which must be an array of JSON."""
        (text,) = self.texts(word)
        found: list[str] = json.loads(text[text.index("[") :])
        return found


def read_stages(text: str) -> list[Stage]:
    """Returns the stages of a Containerfile.

    Args:
        text: The content of the file.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r" *\\\n *", " ", "\n".join(lines)).splitlines()
    stages: list[Stage] = []
    for line in whole:
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stages.append(Stage(rest.partition(" AS ")[2], ()))
        else:
            last = stages.pop()
            stages.append(Stage(last.name, (*last.instructions, (word, rest.strip()))))
    return stages
