"""The folders in which the writers of slmx are killed and disturbed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from slm.console.notice import Log
from tests.reliability.forks import Forks, forks
from tests.reliability.writers import BRIEF, NANO, NEIGHBOURS, NEW, NONE, OLD, Broken, Hashes, Writer, hashes

PROMPTS = "".join(f"Once there was a {thing}.\n" for thing in ("dog", "cat", "tree", "boat", "hat", "star"))


@dataclass(frozen=True)
class Stage:
    """A writer with its folder before it ran and after.

    Attributes:
        writer: The writer.
        template: The folder with inputs, old output and neighbours. Each trial gets a copy.
        old: The hashes of the template.
        after: A copy in which the command ran to its end.
        calls: The calls of the command that change the folder.
    """

    writer: Writer
    template: Path
    old: Hashes
    after: Path
    calls: list[str]

    @classmethod
    def make(cls, writer: Writer, home: Path, run: Forks, inputs: Path) -> Stage:
        """Makes the folders of a writer below `home`. IN/ in its commands before stands for `inputs`."""
        template, after = home / writer.name / "template", home / writer.name / "after"
        template.mkdir(parents=True)
        for name, text in NEIGHBOURS.items():
            (template / name).parent.mkdir(exist_ok=True)
            (template / name).write_text(text)
        for argv in writer.before:
            words = tuple(word.replace("IN/", f"{inputs}/") for word in argv)
            if words[0] == "copy":
                copy = shutil.copytree if Path(words[1]).is_dir() else shutil.copy
                copy(words[1], template / words[2])
                continue
            ended = run.run(writer.job(template, words))
            if ended.code:
                raise RuntimeError(f"{writer.name}: {' '.join(words)}: {ended.stderr}")
        shutil.copytree(template, after)
        ended = run.run(writer.job(after))
        if ended.code:
            raise RuntimeError(f"{writer.name}: {ended.stderr}")
        return cls(writer, template, hashes(template), after, ended.calls)

    def copy(self) -> Path:
        """A copy of the template to run in."""
        folder = self.template.parent / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.template, folder))

    def problem(self, folder: Path, allowed: tuple[str, ...] = (OLD, NEW, NONE)) -> str:
        """What is wrong with a folder in which the command ended early; "" if nothing is."""
        now = hashes(folder)
        for name in NEIGHBOURS:
            if now.get(name) != self.old[name]:
                return f"{name}, which is not slmx's, was changed"
        try:
            state = self.writer.state(folder, self.old, self.after)
        except Broken as error:
            return str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "" if state in allowed else f"the output is {state}"

    def leftovers(self, folder: Path) -> str:
        """The names that a finished run leaves too much or too few; "" if there are none."""
        expected, found = set(hashes(self.after)), set(hashes(folder))
        return ", ".join(
            [f"{name} is left over" for name in sorted(found - expected)]
            + [f"{name} is missing" for name in sorted(expected - found)]
        )


@contextmanager
def stage_of(writer: Writer, log: Log) -> Iterator[tuple[Forks, Stage]]:
    """Yields the process that runs commands, and the stage of a writer.

    Args:
        writer: The writer.
        log: Called with a line about it.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slmx-reliability-")))
        if writer.name == "pull":
            from tests.hubs import files_of
            from tests.runtimes.hub.hub_server import running_hub

            hub = stack.enter_context(running_hub())
            hub.add("someone/tales", files_of(NANO))
            env = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "cache")}
            writer = replace(writer, env={**writer.env, **env})
        run = stack.enter_context(forks(home, writer.modules))
        inputs = home / "inputs"
        inputs.mkdir()
        (inputs / "prompts.txt").write_text(PROMPTS)
        if BRIEF in writer.modules:
            from tests.reliability.brief import make_inputs

            make_inputs(inputs, run)
        stage = Stage.make(writer, home / "writers", run, inputs)
        log(f"{writer.name}: {len(stage.calls)} calls that change its folder")
        yield run, stage
