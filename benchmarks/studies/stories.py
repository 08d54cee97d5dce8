"""Writes a page with stories of several models for the same openings, to read and to compare.

    python -m benchmarks.studies.stories --out docs/stories.md nano micro

Each model is a bundle, or a checkpoint, which is exported to a temporary int8 bundle. Nobody chooses the stories: each
model writes one for each opening, with the default settings and the number of the opening as the seed.

The page has a place for notes on each model. A rerun keeps the text between its two markers.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.program import command_line, run
from benchmarks.studies.results import in_a_folder
from benchmarks.studies.sampling import name_of
from export.exporter import export_bundle
from export.settings import ExportSettings
from runtimes import load
from runtimes.bundle.location import bundle_path
from runtimes.engine.generator import Generator
from runtimes.types import Completion, SamplingParams
from slm.console.errors import SlmxError, UsageError
from slm.console.markdown import as_markdown
from slm.folder_kind import Kind, find_checkpoint, find_kind
from slm.storage.disk import write_file

BEGIN, END = "<!-- notes: a rerun keeps the text from here -->", "<!-- notes: to here -->"
NOTES = re.compile(f"{re.escape(BEGIN)}\n(.*?){re.escape(END)}", re.DOTALL)
NO_NOTES = "Nobody has read these stories yet.\n"
OPENINGS = (
    "Once upon a time, there was a little girl named Lily. She had a red ball that she loved very much.",
    "One day, Tom and his dog Max went to the beach. The sun was hot and the water was blue.",
    "Once there was a small gray mouse called Pip. Pip lived under the stairs and was afraid of the cat.",
    'Anna was sad because her best friend had moved away. "Do not cry," said her grandma. "I have something for you."',
    'Ben found a shiny key in the garden. "What does it open?" he asked his sister Mia.',
    "In a green forest, a young fox wanted to learn how to fly. All the birds laughed at him.",
    "Sam did not want to share his new train. His little brother began to cry.",
    "Once upon a time, a big bear woke up in the middle of winter. He was very hungry, and there was snow everywhere.",
    "It was Sara's birthday. Her dad gave her a box with small holes in the lid, and something inside the box moved.",
    '"Mom, can we go to the park?" asked Leo. "First you must clean your room," said his mom.',
    "A little boat lived at the harbor with her father, the big ship. Every night she dreamed of the wide sea.",
    "Max was very angry. Somebody had broken the tower that he had built all morning.",
    "Once upon a time, there was a frog who could not jump. He went to the wise old turtle and asked for help.",
    "Mia and her grandpa planted a tiny seed. Every day Mia gave it water, but nothing happened.",
    "Lucy was scared of the dark. One night, she heard a soft noise under her bed.",
    "The farmer had a lazy donkey named Bo. One morning, Bo had to carry a heavy bag of apples to the market.",
    'Tim saw a little bird that could not fly. "Are you hurt?" he asked. "Yes," said the bird. "Please help me."',
    "Long ago, there was a queen who never smiled. She promised a bag of gold to anyone who could make her laugh.",
    "Jack told his teacher that he had no homework because a dragon ate it. That was not true.",
    "On the moon lived a small robot named Zip. He had counted every star, and now he was looking for a friend.",
)


@dataclass(frozen=True)
class Model:
    """A model that writes, and the name that the page calls it."""

    name: str
    generator: Generator

    def describe(self) -> str:
        """Returns a line of Markdown that says which weights these are."""
        bundle = self.generator.bundle
        return (
            f"- **{self.name}**: {bundle.config.parameters:,} parameters, {self.generator.variant}, "
            f"weights {bundle.manifest.checkpoint.sha256[:12]}"
        )

    def write(self, opening: str, seed: int) -> str:
        """Returns what `slmx generate OPENING --seed SEED` writes after the opening, as Markdown."""
        story = self.generator.generate(opening, seed=seed)
        return quoted(story)


def quoted(story: Completion) -> str:
    """Returns the text after the opening as a block quote. It says so if the story did not end itself."""
    paragraphs = [as_markdown(line.strip()) for line in story.completion_text.splitlines() if line.strip()]
    if story.stats.finish_reason != "stop":
        paragraphs.append(f"*(not ended: {story.stats.stop})*")
    return "\n>\n".join(f"> {paragraph}" for paragraph in paragraphs or ["*(nothing)*"])


def open_model(name: str, folder: Path) -> Generator:
    """Opens a model.

    Args:
        name: A folder or archive of a bundle, the name of one that ships with slmx, or a checkpoint.
        folder: An existing folder for the bundle of a checkpoint.

    Raises:
        SlmxError: There is no model of that name, or it cannot be exported.
    """
    location = bundle_path(name)
    if find_kind(location) in (Kind.BUNDLE, Kind.PACKED, Kind.FILE):
        return load(location)
    settings = ExportSettings(None, folder / "bundle", find_checkpoint(Path(name)), ("int8",))
    exported, _ = export_bundle(settings, lambda line: typer.echo(f"{name}: {line}", err=True))
    return load(exported)


def kept_notes(out: Path) -> str | None:
    """Returns the notes of an earlier page; None if there is no page.

    Raises:
        SlmxError: The file is not such a page.
    """
    if not out.exists():
        return None
    found = NOTES.search(out.read_bytes().decode("utf-8", "replace"))
    if found is None:
        raise SlmxError(
            f"{out}: has no place for notes, so this command did not write it; name another file with --out"
        )
    return found[1]


def page(models: Sequence[Model], openings: Sequence[str], command: str, notes: str | None) -> str:
    """Writes the stories.

    Args:
        models: The models, in the order of the page.
        openings: The openings. The first has the number and seed 1.
        command: The command that makes the page.
        notes: The text between the markers; None for a page that has none yet.

    Returns:
        The page as Markdown.
    """
    lines = [
        "# Stories to read\n",
        f"Each model continued the same {len(openings)} openings, which were written for this page. There is one\n"
        "story of each model for each opening. No story was chosen or changed. The settings are the defaults\n"
        f"({name_of(SamplingParams())}). The seed is the number of the opening, so\n"
        "`slmx generate OPENING --seed NUMBER --bundle MODEL` writes the same story. This command made the page:\n",
        f"    {command}\n",
        *(model.describe() for model in models),
        f"\n{BEGIN}\n{NO_NOTES if notes is None else notes}{END}",
    ]
    for number, opening in enumerate(openings, 1):
        typer.echo(f"opening {number} of {len(openings)}", err=True)
        lines.append(f"\n## {number}\n\n**{opening}**")
        lines += [f"\n### {model.name}, {number}\n\n{model.write(opening, number)}" for model in models]
    return "\n".join(lines) + "\n"


def main(
    models: Annotated[list[str], typer.Argument(help="Bundles or checkpoints.")],
    out: Annotated[Path, typer.Option(callback=in_a_folder, help="The page, in Markdown. Its notes are kept.")],
) -> None:
    """Write a page with one story of each model for each opening."""
    notes = kept_notes(out)
    names = [Path(name).absolute().name for name in models]
    if len(set(names)) < len(names):
        raise UsageError(f"{' '.join(models)}: two models have one name; rename a folder, or leave one out")
    with tempfile.TemporaryDirectory() as folder:
        opened = []
        for name, model in zip(names, models, strict=True):
            place = Path(folder) / name
            place.mkdir()
            opened.append(Model(name, open_model(model, place)))
        text = page(opened, OPENINGS, command_line(), notes)
    write_file(out, text.encode())


if __name__ == "__main__":
    run(main)
