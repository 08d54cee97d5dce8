"""Runs the suites on the models that are evaluated, and keeps what is done."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.evaluation import OF_ENDINGS
from benchmarks.evaluation.continuations import Vocabulary
from benchmarks.evaluation.controls import CONTROLS
from benchmarks.evaluation.loss import measure_difference, measure_loss, ways_of, work
from benchmarks.evaluation.novelty import TrainingText, measure_novelty
from benchmarks.evaluation.pairs import KINDS, compare_pairs, make_pairs, measure_pairs
from benchmarks.evaluation.reading import Advance
from benchmarks.evaluation.stories import WORDS, Ending, measure_stories, openings, true_endings, write_endings
from benchmarks.evaluation.subject import Subject, open_subject
from benchmarks.evaluation.text import StoryText
from runtimes.bundle.location import bundle_path
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.types import SamplingParams
from slm.console.counted import count_stories
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import log_line
from slm.folder_kind import Kind, find_kind
from slm.storage.disk import write_file
from slm.storage.hashing import sha256_of_bytes
from slm.storage.json_reader import Fields, read_json
from slm.storage.read_errors import unreadable

WITH_TEXT = ("loss", *OF_ENDINGS)
TRUE = "true stories"
AGAINST = " against "  # between the two names of a difference
EVERY = "all"
RESULT, MARKDOWN, PAGE = "evaluation.json", "evaluation.md", "evaluation.html"
HASH = "sha256"
MAX_RESULT_BYTES = 2**28
ENGLISH = "english"
# Called with the name of a part and the number of its steps; returns what to call after each of them.
Begin = Callable[[str, int], Advance]


@dataclass(frozen=True)
class Settings:
    """What is evaluated, and how.

    Attributes:
        model: A checkpoint, a run or a bundle.
        variants: The variants of a bundle; empty for its default, `all` for all that onnxruntime runs.
        against: Another model, or another variant of `model`, that each is compared with.
        text: Held-out stories.
        training: The stories that the model was trained on, for the suites that ask what is new.
        suites: The suites to run.
        count: The number of beginnings of stories.
        words: The number of words of each ending that are measured.
        max_tokens: The most ids that the suite `loss` predicts; None for all of the text.
        seed: The seed of the first story.
        language: The language of the text. Figures that know English are left out for others.
        controls: Whether bad endings are measured too, to show which figures notice them.
    """

    model: str
    variants: tuple[str, ...] = ()
    against: str | None = None
    text: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    suites: tuple[str, ...] = ("loss",)
    count: int = 100
    words: int = WORDS
    max_tokens: int | None = None
    seed: int = 1
    language: str = ENGLISH
    controls: bool = False

    def __post_init__(self) -> None:
        for name, sources in (("text", self.text), ("training", self.training)):
            if len(set(sources)) < len(sources):
                raise UsageError(f"--{name} has the same value twice; copies would count as more stories")
        lacking = [suite for suite in self.suites if suite in WITH_TEXT and not self.text]
        if lacking:
            raise UsageError(f"the suite {lacking[0]} needs --text FILE, stories that the model was not trained on")
        if "novelty" in self.suites and not self.training:
            raise UsageError("the suite novelty needs --training FILE, the stories that the model was trained on")
        if "pairs" in self.suites and self.language != ENGLISH:
            raise UsageError("the suite pairs knows English only; leave it out with --suite")


@dataclass
class Evaluation:
    """What was found.

    Attributes:
        settings: The settings, with the hashes of the models and the texts.
        results: Figures by model and suite. `true stories` has the figures of the true endings.
        differences: Figures of the loss of each model against that of `against`, by both names.
        pair_differences: The same for the accuracy in the pairs.
        endings: The endings of each model, and the true ones, for the same beginnings.
    """

    settings: dict[str, Any]
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    differences: dict[str, Any] = field(default_factory=dict)
    pair_differences: dict[str, Any] = field(default_factory=dict)
    endings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def variants_of(model: str, variants: Iterable[str]) -> list[str | None]:
    """Returns the variants to evaluate, each once; None is the default, or a checkpoint."""
    wanted = list(dict.fromkeys(variants))
    if EVERY not in wanted:
        return [*wanted] or [None]
    return [*Bundle.open(bundle_path(model)).variants]


def left_out(settings: Settings) -> str | None:
    """Returns a line about the variants of a bundle that `all` leaves out; None if there are none."""
    if EVERY not in settings.variants:
        return None
    bundle = Bundle.open(bundle_path(settings.model))
    others = [name for name in bundle.manifest.variants if name not in bundle.variants]
    if not others:
        return None
    return f"left out: {', '.join(others)}, which onnxruntime does not run; slmx verify --quality --trust reads them"


def evaluate(settings: Settings, out: Path | None, begin: Begin) -> Evaluation:
    """Runs the suites.

    Args:
        settings: What is evaluated.
        out: A folder for the result. What it has of a run with the same settings is not measured again. None keeps
            nothing.
        begin: Tells about progress.

    Raises:
        SlmxError: A model or a text cannot be read, or `out` has a result of other settings.
    """
    subjects = [open_subject(settings.model, variant) for variant in variants_of(settings.model, settings.variants)]
    other = _other(settings, [subject.name for subject in subjects])
    everyone = subjects if other is None else [*subjects, other]
    text = StoryText.read(settings.text) if settings.text else None
    training = StoryText.read(settings.training, "--training") if settings.training else None
    shared = 0
    if text is not None and training is not None:
        whole, training = training, training.without(text, settings.training)
        shared = len(whole.stories) - len(training.stories)
    identity = asdict(settings) | {
        "hashes": {subject.name: subject.sha256 for subject in everyone},
        "text hash": None if text is None else text.sha256,
        "training hash": None if training is None else training.sha256,
        "opponent": None if other is None else other.name,
    }
    run = _Run(settings, load_result(out, identity), out, begin)
    if shared:
        log_line(f"left out of --training: {count_stories(shared)} that --text has too")
    for subject in subjects:
        run.measure(subject, text)
    if other is not None:
        for subject in subjects:
            if len(subjects) == 1 or subject.sha256 != other.sha256:
                run.compare(subject, other, text)
    if text is not None and any(suite in OF_ENDINGS for suite in settings.suites):
        run.write(everyone, text, (training or text).stories)
    return run.found


def _other(settings: Settings, names: Sequence[str]) -> Subject | None:
    """Opens the model that others are compared with. Its name is none of `names` if it is another model."""
    if settings.against is None:
        return None
    if settings.against in VARIANTS and not Path(settings.against).exists():
        return open_subject(settings.model, settings.against)
    other = open_subject(settings.against, None)
    if settings.against != settings.model and other.name in names:
        return replace(other, name=f"{other.name} ({settings.against})")
    return other


class _Run:
    def __init__(self, settings: Settings, found: Evaluation, out: Path | None, begin: Begin) -> None:
        self.settings, self.found, self._out, self._begin = settings, found, out, begin

    def _keep(self, results: dict[str, Any], name: str, measure: Callable[[], object]) -> None:
        """Measures something that was not measured yet, and saves it."""
        if name not in results:
            results[name] = without_nan(measure())
            save(self._out, self.found)

    def measure(self, subject: Subject, text: StoryText | None) -> None:
        """Runs the suites that read."""
        results = self.found.results.setdefault(subject.name, {"bytes": subject.file_bytes})
        if "loss" in self.settings.suites and text is not None and "loss" not in results:
            most = self.settings.max_tokens
            advance = self._begin(f"loss of {subject.name}", work(subject, text, most, ways_of(subject)))
            self._keep(results, "loss", lambda: measure_loss(subject, text, most, advance))
        if "pairs" in self.settings.suites:
            self._pairs(subject)

    def _pairs(self, subject: Subject) -> dict[str, Any]:
        results = self.found.results.setdefault(subject.name, {"bytes": subject.file_bytes})
        if "pairs" not in results:
            count = sum(len(make_pairs(kind)) for kind in KINDS)
            advance = self._begin(f"pairs of {subject.name}", count)
            self._keep(results, "pairs", lambda: measure_pairs(subject, advance))
        pairs: dict[str, Any] = results["pairs"]
        return pairs

    def compare(self, subject: Subject, other: Subject, text: StoryText | None) -> None:
        """Compares a model with another one."""
        name, suites = subject.name + AGAINST + other.name, self.settings.suites
        if text is not None and "loss" in suites and name not in self.found.differences:
            most = self.settings.max_tokens
            advance = self._begin(name, work(subject, text, most, ways_of(subject, other)))
            self._keep(self.found.differences, name, lambda: measure_difference(subject, other, text, most, advance))
        if "pairs" in suites:
            ours, theirs = self._pairs(subject), self._pairs(other)
            self._keep(self.found.pair_differences, name, lambda: compare_pairs(ours, theirs))

    def write(self, subjects: list[Subject], text: StoryText, known: Sequence[str]) -> None:
        """Runs the suites that write. The words of the stories `known` count as spelt well."""
        settings = self.settings
        excerpts = openings(text.stories, settings.count, subjects, settings.words)
        true = true_endings(excerpts)
        written = self.found.endings
        self._keep(written, TRUE, lambda: [asdict(ending) for ending in true])
        for subject in subjects:
            if subject.name not in written:
                advance = self._begin(f"stories of {subject.name}", len(excerpts))
                rows = write_endings(subject, excerpts, SamplingParams(), settings.seed, advance)
                self._keep(written, subject.name, partial(list, map(asdict, rows)))
        for name, control in CONTROLS.items() if settings.controls else ():
            self._keep(written, name, partial(list, map(asdict, control.write(excerpts, known))))
        endings = {name: [Ending(**row) for row in rows] for name, rows in written.items()}
        english, words = settings.language == ENGLISH, settings.words
        if "stories" in settings.suites:
            vocabulary = Vocabulary.of(known)
            for name, ours in endings.items():
                results = self.found.results.setdefault(name, {})
                measure = partial(measure_stories, ours, true, vocabulary, subjects[0], english, words)
                self._keep(results, "stories", measure)
        if "novelty" in settings.suites:
            open_ = [name for name in endings if "novelty" not in self.found.results.get(name, {})]
            if not open_:
                return
            advance = self._begin("copies of the training text", len(open_))
            training = TrainingText(known)
            for name in open_:
                texts = [ending.text for ending in endings[name]]
                results = self.found.results.setdefault(name, {})
                self._keep(results, "novelty", partial(measure_novelty, texts, training))
                advance(1)


def save(out: Path | None, found: Evaluation) -> None:
    """Writes an evaluation into its folder, if there is one, with the hash of all that it holds."""
    if out is not None:
        body = asdict(found)
        content = json.dumps(body | {HASH: _hash(body)}, indent=1, ensure_ascii=False, allow_nan=False)
        write_file(out / RESULT, content.encode() + b"\n")


def _hash(body: dict[str, Any]) -> str:
    return sha256_of_bytes(json.dumps(body).encode())


def load_result(out: Path | None, settings: dict[str, Any]) -> Evaluation:
    """Returns what a folder has of a run with the same settings, or an empty result.

    Args:
        out: The folder; None for none.
        settings: The settings, with the hashes of the models and the texts.

    Raises:
        SlmxError: It has a result of other settings or of another version, or a damaged one.
    """
    settings = json.loads(json.dumps(settings))
    if out is None:
        return Evaluation(settings)
    if (kind := find_kind(out)) not in (Kind.MISSING, Kind.EMPTY, Kind.FOLDER):
        raise SlmxError(f"{out}: {kind.value}, which holds nothing else; give another --out")
    if not (path := out / RESULT).exists():
        strange = next((out / name for name in (MARKDOWN, PAGE) if (out / name).exists()), None)
        if strange is not None:
            raise SlmxError(f"{strange}: it would be replaced, and there is no {RESULT} beside it; give another --out")
        return Evaluation(settings)
    found = read_result(path, "give another --out")
    before = found.settings
    changed = [name for name, value in settings.items() if before.get(name) != value and name != "suites"]
    if changed:
        raise SlmxError(f"{path}: made with another {', '.join(changed)}; give another --out")
    return replace(found, settings=settings)


def read_result(path: Path, advice: str) -> Evaluation:
    """Reads the JSON file of a result.

    Args:
        path: The file.
        advice: What to do about an error.

    Raises:
        SlmxError: It cannot be read, is of another version, or is damaged.
    """
    try:
        found = read_json(path, MAX_RESULT_BYTES)
        _check_types(Fields(found))
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise SlmxError(f"{path}: not a result of slmx evaluate, or of another version of it; {advice}") from None
    assert isinstance(found, dict)
    if found.pop(HASH) != _hash(found):
        raise SlmxError(f"{path}: damaged, or changed after it was written; {advice}")
    return Evaluation(**found)


def _check_types(found: Fields) -> None:
    """Raises ValueError if the content of a file is no result. The figures inside are known by their hash."""
    if set(found) != {HASH, *(each.name for each in fields(Evaluation))}:
        raise ValueError("it has other parts")
    for name in ("settings", "differences", "pair_differences"):
        found.object(name)
    results, endings = found.object("results"), found.object("endings")
    for model in results:
        results.object(model)
    for model in endings:
        for ending in endings.objects(model):
            if set(ending) != {each.name for each in fields(Ending)}:
                raise ValueError("an ending has other parts")


def without_nan(value: object) -> object:
    """Replaces NaN and infinity, which JSON has not, by None."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
