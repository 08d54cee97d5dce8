"""Compares sampling settings by the distance of their stories to true stories.

    python -m benchmarks.studies.sampling --bundle nano --scorer micro --text tinystories-valid.txt --out FILE.json

A bundle continues the openings of held-out stories with each setting of a grid. Each figure of a continuation is
compared with the same figure of the true ending, over the same number of words. A continuation with fewer words is left
out.

    distance = mean over the figures of |mean over the stories of (figure - true figure)| / spread

The spread is the standard deviation of the true figure between the stories. All true stories end properly, so the
spread of that share is set to 0.5, the largest that a share can have. docs/sampling.md has the result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch.nn import functional as F

from benchmarks.evaluation.continuations import SENTENCE_END, Excerpt, Vocabulary, choose_excerpts, cut, describe
from benchmarks.program import run
from benchmarks.studies.batches import whole_batch
from benchmarks.studies.distance import Distance, Floats, distances
from benchmarks.studies.results import Out, write_results
from runtimes.bundle.location import bundle_path
from runtimes.bundle.store import Bundle
from runtimes.engine.generator import Generator
from runtimes.engine.session import float_threads
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.data.sources import read_stories
from slm.storage.file_names import WEIGHTS_FILE
from slm.storage.hashing import sha256_of

SCORED, ENDS = "scorer's bits per byte", "ends properly"
ENDS_SPREAD = 0.5
LEAST_SPREAD = 0.001  # for a figure that is the same in all true endings
ERRORS = 1.96  # the standard errors that ± shows
PENALTY = LogitsRules(repetition_penalty=1.1)
CUT = SamplingParams(top_k=40, top_p=0.95)  # the usual cut of the tail
OPEN = SamplingParams(top_k=0, top_p=1.0)
GRID = (
    replace(OPEN, temperature=0.0),
    *(replace(CUT, temperature=temperature) for temperature in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
    *(replace(CUT, temperature=temperature, rules=PENALTY) for temperature in (0.6, 0.8)),
    *(replace(OPEN, temperature=temperature) for temperature in (0.6, 0.8, 1.0)),
    *(replace(OPEN, temperature=temperature, top_p=0.9) for temperature in (0.8, 1.0)),
    replace(OPEN, temperature=1.0, top_p=0.95),
    *(replace(OPEN, temperature=temperature, min_p=0.05) for temperature in (0.7, 0.8, 1.0)),
    replace(OPEN, temperature=1.0, min_p=0.1),
    replace(OPEN, temperature=1.0, min_p=0.1, rules=PENALTY),
)


@dataclass(frozen=True)
class Text:
    """What follows an opening, and whether the story ends there by itself."""

    content: str
    ended: bool


def name_of(sampling: SamplingParams) -> str:
    """Returns the settings that are on, such as `temperature 0.9, top-k 40`."""
    if sampling.temperature == 0:
        return "greedy"
    parts = [f"temperature {sampling.temperature:g}"]
    parts += [f"top-k {sampling.top_k}"] if sampling.top_k else []
    parts += [f"top-p {sampling.top_p:g}"] if sampling.top_p < 1 else []
    parts += [f"min-p {sampling.min_p:g}"] if sampling.min_p else []
    penalty = sampling.rules.repetition_penalty
    return ", ".join([*parts, *([f"repetition penalty {penalty:g}"] if penalty != 1 else [])])


@torch.inference_mode()
def scored_bits(scorer: Checkpoint, opening: str, continuation: str) -> float:
    """Returns a scorer's bits per byte of a continuation after its opening, as far as the scorer's context reaches."""
    tokenizer, block = scorer.tokenizer, scorer.model.config.block_size
    read = [tokenizer.begin, *tokenizer.encode(opening)]
    targets = tokenizer.encode(continuation)[: block + 1 - len(read)]
    logits = scorer.model(torch.tensor([[*read, *targets[:-1]]]))[0, len(read) - 1 :]
    nats = float(F.cross_entropy(logits, torch.tensor(targets), reduction="sum"))
    return nats / math.log(2) / len(tokenizer.decode_bytes(targets))


class TextFigures:
    """Measures a text after the opening of each story.

    Args:
        scorer: The model for the bits per byte.
        excerpts: The stories.
        vocabulary: The known and the common words.
        words: The number of words of each text that are measured.

    Attributes:
        figures: The names of the figures.
    """

    def __init__(self, scorer: Checkpoint, excerpts: Sequence[Excerpt], vocabulary: Vocabulary, words: int) -> None:
        self.scorer, self.excerpts, self.vocabulary, self.words = scorer, excerpts, vocabulary, words
        self.figures = [*describe(excerpts[0].opening, excerpts[0].ending, vocabulary), SCORED, ENDS]

    def measure(self, texts: Iterable[Text]) -> Floats:
        """Measures a text for each story.

        Args:
            texts: The texts, in the order of the stories.

        Returns:
            The figures, float [stories, figures]. All but `ENDS` are NaN if a text has too few words.
        """
        rows = []
        for excerpt, text in zip(self.excerpts, texts, strict=True):
            measured = [math.nan] * (len(self.figures) - 1)
            continuation = cut(text.content, self.words)
            if continuation is not None:
                described = describe(excerpt.opening, continuation, self.vocabulary)
                measured = [*described.values(), scored_bits(self.scorer, excerpt.opening, continuation)]
            rows.append([*measured, float(text.ended and SENTENCE_END.search(text.content) is not None)])
        return np.array(rows)


def write(generator: Generator, excerpts: Sequence[Excerpt], sampling: SamplingParams) -> list[Text]:
    """Continues each opening until the story or the context ends."""
    written = whole_batch(generator, [excerpt.opening for excerpt in excerpts], GenerationConfig(), sampling)
    return [Text(story.completion_text, story.stats.finish_reason == "stop") for story in written]


def compare(generator: Generator, meter: TextFigures, seed: int) -> dict[str, Any]:
    """Measures all settings of the grid and the true endings.

    Args:
        generator: The model that writes.
        meter: Measures what it writes.
        seed: Story i draws with seed + i.

    Returns:
        The figures for the JSON file; the settings are sorted by their distance.

    Raises:
        SlmxError: All stories of a setting have too few words.
    """
    true = meter.measure(Text(excerpt.ending, ended=True) for excerpt in meter.excerpts)
    found: dict[str, Floats] = {}
    for sampling in GRID:
        name = name_of(sampling)
        found[name] = meter.measure(write(generator, meter.excerpts, replace(sampling, seed=seed)))
        typer.echo(f"{len(found)} of {len(GRID)}: {name}", err=True)
        if np.isnan(found[name][:, 0]).all():
            raise SlmxError(f"{name}: no story has {meter.words} words after its opening; give a smaller --words")
    columns = [column[~np.isnan(column)] for column in true.T]
    spread = np.array([max(column.std(), LEAST_SPREAD) if len(column) else 1.0 for column in columns])
    spread[meter.figures.index(ENDS)] = ENDS_SPREAD
    samplings = {name_of(sampling): asdict(replace(sampling, seed=seed)) for sampling in GRID}
    return {
        "true endings": _means(meter.figures, true),
        "spread": dict(zip(meter.figures, [round(float(value), 5) for value in spread], strict=True)),
        "by setting": {
            name: {
                "sampling": samplings[name],
                "distance": asdict(distance),
                "texts": int((~np.isnan(found[name][:, 0])).sum()),
                "figures": _means(meter.figures, found[name]),
            }
            for name, distance in distances(found, true, spread).items()
        },
    }


def _means(names: Sequence[str], figures: Floats) -> dict[str, float | None]:
    """Returns the mean of each figure without NaN, or None if there is no number."""
    present = [column[~np.isnan(column)] for column in figures.T]
    means = [round(float(column.mean()), 5) if len(column) else None for column in present]
    return dict(zip(names, means, strict=True))


def table(found: Mapping[str, Any]) -> str:
    """Returns the result of `compare` as Markdown."""
    true = found["true endings"]
    lines = [
        f"| setting | distance | above the first | stories | {' | '.join(true)} |",
        "|---|" + "---:|" * (len(true) + 3),
        f"| the true endings | | | | {_cells(true)} |",
        f"| their spread | | | | {_cells(found['spread'])} |",
    ]
    for name, row in found["by setting"].items():
        distance = Distance(**row["distance"])
        cells = [f"{distance.value:.2f} ±{ERRORS * distance.error:.2f}"]
        cells += [f"{distance.excess:.2f} ±{ERRORS * distance.excess_error:.2f}" if distance.excess else ""]
        lines.append(f"| {name} | {' | '.join(cells)} | {row['texts']} | {_cells(row['figures'])} |")
    return "\n".join(lines)


def note(found: Mapping[str, Any]) -> str:
    """Returns how to read the distances of `compare`."""
    chance = next(iter(found["by setting"].values()))["distance"]["chance"]
    return (
        f"± is {ERRORS} bootstrap standard errors; the distance of texts of the same distribution is not 0 but about "
        f"{chance:.2f}; the first is the smallest of several, so the differences to it are too large"
    )


def _cells(figures: Mapping[str, float | None]) -> str:
    return " | ".join("" if value is None else f"{value:.3f}" for value in figures.values())


def main(
    scorer: Annotated[Path, typer.Option(help="A checkpoint of another model, for the bits per byte.")],
    text: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Stories that no model was trained on.")],
    bundle: Annotated[Path, typer.Option(help="The bundle that writes: a folder, an archive, or nano.")] = Path("nano"),
    vocabulary: Annotated[
        list[Path] | None,
        typer.Option(help="A text of well spelt words; repeat for more. Default: the rest of --text."),
    ] = None,
    stories: Annotated[int, typer.Option(min=2, help="The most stories to continue.")] = 100,
    words: Annotated[int, typer.Option(min=8, help="Words of each continuation that are measured.")] = 80,
    seed: Annotated[int, typer.Option(min=0, help="Story i draws with seed + i.")] = 0,
    out: Out = None,
) -> None:
    """Write with each setting, and print a table. The setting that is nearest to the true endings is first."""
    generator, scoring = Generator(Bundle.open(bundle_path(bundle))), load_checkpoint(scorer)
    manifest, scorer_sha256 = generator.bundle.manifest, scoring.hashes[WEIGHTS_FILE]
    if manifest.checkpoint.sha256 == scorer_sha256:
        raise UsageError(f"{scorer}: the scorer has the weights of the model that writes; name another with --scorer")
    torch.set_num_threads(float_threads(scoring.model.config))
    context = min(scoring.model.config.block_size, manifest.shape.block_size)
    tokenizers = (scoring.tokenizer, generator.tokenizer)
    held_out = list(read_stories([text]))
    excerpts = choose_excerpts(
        held_out, stories, words, lambda story: all(len(one.encode(story)) < context for one in tokenizers)
    )
    used = {excerpt.opening + excerpt.ending for excerpt in excerpts}
    known = read_stories(vocabulary) if vocabulary else (story for story in held_out if story not in used)
    found = compare(generator, TextFigures(scoring, excerpts, Vocabulary.of(known), words), seed)
    typer.echo(f"{len(excerpts)} stories of {text.name}, {words} words of each; {note(found)}\n\n{table(found)}")
    settings = {
        "bundle": {"preset": manifest.preset, "variant": generator.variant, "sha256": manifest.checkpoint.sha256},
        "scorer": {"preset": scoring.preset, "sha256": scorer_sha256},
        "text": {"file": text.name, "sha256": sha256_of(text), "stories": len(excerpts)},
        "vocabulary": [path.name for path in vocabulary or [text]],
        "words": words,
        "seed": seed,
    }
    write_results(out, settings, found)


if __name__ == "__main__":
    run(main)
