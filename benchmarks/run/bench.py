"""A whole run: models, groups of cases in turn, their quality, and the report of it all; resumable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch

from benchmarks.peers import PeerKind
from benchmarks.peers.registry import PEERS, find_peers
from benchmarks.quality.text_quality import TextQuality, from_manifest, judged, judged_on, judged_part
from benchmarks.report.compare import label
from benchmarks.report.leaderboard import setting_of
from benchmarks.report.record import FAILED, Case, Model, Report, Result, result_from_dict
from benchmarks.run import cases, measure
from benchmarks.run.environment import busy_now, environment, read_bandwidth
from benchmarks.run.output_check import Reference
from benchmarks.run.progress import Meter
from benchmarks.run.resume_log import Partial
from benchmarks.run.runners import TORCH_COMPILED, TORCH_SIDES, Job
from benchmarks.run.targets import FLOAT_BYTES, Subject, subject_names, subject_of_bundle, subject_of_preset
from runtimes.bundle.store import MANIFEST_FILE, Bundle
from runtimes.engine.session import default_threads
from runtimes.system.machine import memory_bytes, usable_cores
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.presets import GPTConfig, get_preset

PRESETS = ("nano", "micro", "small", "medium")
QUICK_PRESETS = ("nano",)
QUICK_PEERS = ("llama.cpp Q8_0",)
NO_PEERS = "none"
# Rounds of nano are short, and noise is what a quick run has most of.
ROUNDS, QUICK_ROUNDS = 5, 15
# Sides that store and compute in float32, and so write the float model's ids.
FLOAT_SIDES = (*TORCH_SIDES, "fp32", "portable", "torchscript", "pt2")
# Memory that a process takes, beside some copies of the weights.
WORKER_BYTES = 300 * 2**20
WORKER_COPIES = 2
# A story to begin with: prompts are its first ids, with itself again and again before them where there is a depth.
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog, Max. "
    "One day, Lily and Max found a big red ball under a tree. Lily was very happy and wanted to show it to her mom. "
    "Max ran after the ball and barked, and they played until the sun went down. Then a boy came to the tree. He was "
    "sad because he had lost his ball. Lily looked at the ball and thought for a moment. She gave it back to him, and "
    "the boy smiled. They became good friends and played together every day."
)


@dataclass(frozen=True)
class BenchSettings:
    """What to measure. None stands for a default: nano to medium, every side, one and all threads, every peer.

    `presets` and `bundles` add up. `quick` makes the defaults few. `out` keeps what was made and measured on the way.
    """

    out: Path
    bundles: tuple[Path, ...] = ()
    presets: tuple[str, ...] | None = None
    variants: tuple[str, ...] | None = None
    threads: str | None = None
    peers: tuple[str, ...] | None = None
    quick: bool = False
    text: Path | None = None
    rounds: int = ROUNDS
    new_tokens: int = cases.NEW_TOKENS
    command: str = "slmx bench"


class Bench:
    """A run in progress; `report` may be asked for at any time and holds what is known until then.

    Raises SlmxError for settings that make no sense and for unusable bundles, before anything is measured.
    """

    def __init__(self, settings: BenchSettings, meter: Meter) -> None:
        self._settings = settings
        self._meter = meter
        self._bundles = [Bundle.open(folder) for folder in settings.bundles]
        default = QUICK_PRESETS if settings.quick else PRESETS
        self._presets = settings.presets or (() if self._bundles else default)
        for preset in self._presets:
            get_preset(preset)
        self._sides = cases.chosen_sides(settings.variants, settings.quick)
        self._held = [self._sides_of(bundle) for bundle in self._bundles]
        self._threads = cases.chosen_threads(settings.threads, usable_cores())
        self._peers = chosen_peers(settings.peers, settings.quick)
        if settings.text is not None and not settings.text.is_file():
            raise SlmxError(f"{settings.text}: no such file; --text takes stories with <|endoftext|> between them")
        self._machine = environment(self._peers)
        self._partial = Partial(settings.out / "partial.jsonl", self._arguments(), meter.say)
        self._results: list[Result] = []
        self._models: dict[str, Model] = {}
        self._warnings: list[str] = []
        self._text: str | None = None if settings.text is None else judged_part(settings.text)
        self._bandwidth: dict[str, float] = {}

    def _sides_of(self, bundle: Bundle) -> tuple[str, ...]:
        """The chosen sides that a bundle holds; SlmxError for one asked for that it does not."""
        held = (*TORCH_SIDES, *bundle.manifest["variants"])
        missing = [side for side in self._sides if side not in held]
        if missing and self._settings.variants is not None:
            raise SlmxError(f"{bundle.folder}: no variant {missing[0]!r}; there are {', '.join(held)}")
        found = tuple(side for side in self._sides if side in held)
        if self._settings.variants is None and not set(found) - set(TORCH_SIDES):
            return (*found, str(bundle.manifest["default"]))  # none of the quick ones is in it
        return found

    def _arguments(self) -> dict[str, object]:
        """What results depend on: of another run's with other ones, nothing can be taken over."""
        settings = self._settings
        return {
            "bundles": [[str(bundle.folder), sha256_of(bundle.folder / MANIFEST_FILE)] for bundle in self._bundles],
            "presets": self._presets,
            "sides": self._sides,
            "threads": self._threads,
            "peers": [peer.name for peer in self._peers],
            "quick": settings.quick,
            "text": None if settings.text is None else sha256_of(settings.text),
            "rounds": settings.rounds,
            "new_tokens": settings.new_tokens,
            "machine": self._machine,
        }

    def run(self) -> None:
        """Measure everything; KeyboardInterrupt goes through, and what was measured until then is kept."""
        self._note(busy_now())
        for threads in self._threads:
            key = f"bandwidth {threads}"
            if self._partial.get(key) is None:
                self._partial.put(key, {"bytes_per_second": read_bandwidth(threads)})
            self._bandwidth[str(threads)] = (self._partial.get(key) or {})["bytes_per_second"]
        work = self._settings.out / "work"
        names = subject_names(self._bundles, self._presets)
        variants = [side for side in self._sides if side not in TORCH_SIDES]
        if self._peers:
            variants += ["fp32", "int8"]
        self._meter.say("preparing the models" + ("" if self._bundles else ", which takes a while the first time"))
        subjects = [
            *((subject_of_preset(name, variants, work, self._meter.say), self._sides) for name in self._presets),
            *(
                (subject_of_bundle(bundle, name, work), sides)
                for bundle, name, sides in zip(self._bundles, names, self._held, strict=True)
            ),
        ]
        qualities = []
        for subject, sides in subjects:
            quality = self._judge(subject, sides)
            qualities.append(quality)
            self._models[subject.name] = Model(
                parameters=subject.config.parameters,
                trained=subject.trained,
                training_seconds=subject.training_seconds,
                bits_per_byte=quality.bits_per_byte,
                perplexity=quality.perplexity,
                bleu=quality.bleu,
            )
            self._expect(subject, sides)
        for (subject, sides), quality in zip(subjects, qualities, strict=True):
            self._measure(subject, sides, quality)
        self._partial.finish()

    def report(self) -> Report:
        """All that was measured so far."""
        return Report(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self._settings.command,
            machine=self._machine,
            bandwidth=self._bandwidth,
            text=self._text,
            models=self._models,
            results=self._results,
            warnings=self._warnings,
        )

    def _note(self, warning: str | None) -> None:
        if warning is not None:
            self._warnings.append(warning)
            self._meter.say(f"warning: {warning}")

    def _judge(self, subject: Subject, sides: Sequence[str]) -> TextQuality:
        """Quality on the text or, without one, by the manifest; random weights have none."""
        if not subject.trained:
            return TextQuality()
        text = self._settings.text
        if text is None:
            self._text = self._text or judged_on(subject.bundle)
            return from_manifest(subject.bundle)
        key = f"quality {subject.name}"
        found = self._partial.get(key)
        if found is None:
            self._meter.say(f"{subject.name}: reading {text} with every side")
            found = asdict(judged(subject, sides, text))
            self._partial.put(key, found)
        return TextQuality(**found)

    def _measure(self, subject: Subject, sides: Sequence[str], quality: TextQuality) -> None:
        settings, config = self._settings, subject.config
        everyone = (*sides, *(peer.name for peer in self._peers))
        base = cases.base_cases(subject.name, config, everyone, self._threads, settings.new_tokens)
        best = cases.best_threads(self._group(subject, base, quality))
        if settings.quick:  # the same cases in every run, so that two can be compared whole
            best = dict.fromkeys(best, max(self._threads))
        for group in cases.variations(subject.name, config, best, settings.quick, settings.new_tokens):
            self._group(subject, group, quality)

    def _group(self, subject: Subject, group: Sequence[Case], quality: TextQuality) -> list[Result]:
        """Measure a group, or take it from the run that this one continues."""
        key = f"group {subject.name}, {setting_of(group[0])}"
        known = self._partial.get(key)
        if known is not None:
            results = [result_from_dict(result) for result in known["results"]]
            self._results += results
            self._warnings += known["warnings"]
            self._meter.advance(len(group) * (self._settings.rounds + 1) * weight(subject))
            return results
        history, prompt = story_ids(subject, group[0].depth, group[0].prompt_tokens)
        exact = frozenset((*FLOAT_SIDES, *(peer.name for peer in self._peers if peer.exact)))
        torch.set_num_threads(default_threads(subject.config))
        context, new_tokens = [*history, *prompt], group[0].new_tokens
        reference = Reference.of(subject.checkpoint.model, context, new_tokens, subject.trained, exact)
        entries = [self._entry(subject, case, quality, history, prompt) for case in group]
        self._meter.begin(key.removeprefix("group "))
        parts, results, warnings = in_parts(entries, subject.config, len(self._threads)), [], []
        if len(parts) > 1:
            warnings.append(
                f"{key.removeprefix('group ')}: memory is short, so sides were measured in {len(parts)} parts"
            )
            self._note(warnings[-1])
        for part in parts:
            running = measure.Group(part, reference, self._settings.rounds, lambda case: self._step(subject, case))
            try:
                running.run()
            finally:
                results += running.results
                self._results += running.results
            for warning in running.warnings:
                warnings.append(warning)
                self._note(warning)
        self._partial.put(key, {"results": [asdict(result) for result in results], "warnings": warnings})
        return results

    def _expect(self, subject: Subject, sides: Sequence[str]) -> None:
        """Tell the meter how much is ahead; every side is taken to be measured in all its cases."""
        settings = self._settings
        everyone = (*sides, *(peer.name for peer in self._peers))
        base = cases.base_cases(subject.name, subject.config, everyone, self._threads, settings.new_tokens)
        best = dict.fromkeys(sides, 1)
        varied = cases.variations(subject.name, subject.config, best, settings.quick, settings.new_tokens)
        count = len(base) + sum(map(len, varied))
        self._meter.expect(count * (settings.rounds + 1) * weight(subject))

    def _step(self, subject: Subject, case: Case) -> None:
        self._meter.advance(weight(subject), label(case))

    def _entry(
        self, subject: Subject, case: Case, quality: TextQuality, history: list[int], prompt: list[int]
    ) -> measure.Entry:
        """A case with its job and what is known of it, or why it is not measured."""
        peer = next((peer for peer in self._peers if peer.name == case.side), None)
        note = skipped(case, peer)
        if note is not None:
            return measure.Entry(case, None, note=note)
        if peer is None:
            path = subject.path(case.side)
            facts: dict[str, float | int | None] = {
                "disk_bytes": subject.disk_bytes(case.side),
                "weight_bytes": subject.weight_bytes(case.side),
                "bits_per_byte": (quality.side_bits or {}).get(case.side),
                "loss": (quality.loss or {}).get(case.side),
            }
        else:
            try:
                path = subject.peer_files(peer)
            except SlmxError as error:
                return measure.Entry(case, None, note=str(error), status=FAILED)
            size = sum(file.stat().st_size for file in peer.files(path))
            facts = {"disk_bytes": size, "weight_bytes": size}
        job = Job(
            side=case.side,
            peer=peer is not None,
            path=str(path.absolute()),
            shape=asdict(subject.config),
            threads=case.threads,
            batch=case.batch,
            history=history,
            prompt=prompt,
            new_tokens=case.new_tokens,
        )
        return measure.Entry(case, job, facts)


def chosen_peers(names: Sequence[str] | None, quick: bool) -> list[PeerKind]:
    """The peers that `--peers` names, or a runtime's all; by default all, or for a quick run one if it is installed."""
    if names is not None:
        kinds = [kind for name in names if name != NO_PEERS for kind in find_peers(name)]
        return list(dict.fromkeys(kinds))
    return [PEERS[name] for name in QUICK_PEERS if not PEERS[name].missing] if quick else list(PEERS.values())


def skipped(case: Case, peer: PeerKind | None) -> str | None:
    """Why a case is not measured, None if it is."""
    if peer is not None and peer.missing:
        return f"{' and '.join(peer.missing)} not installed: {peer.install}"
    if case.side == TORCH_COMPILED and shutil.which(os.environ.get("CXX", "c++")) is None:
        return "torch.compile needs a C++ compiler: install one, such as g++"
    if case.batch > 1 and case.side in (*TORCH_SIDES, "portable"):
        return "takes one sequence at a time; fp32, int8, int4, fp16 and mobile take several"
    return None


def story_ids(subject: Subject, depth: int, prompt_tokens: int) -> tuple[list[int], list[int]]:
    """The ids that are in the context before, and those of the prompt: a story, again and again as far as it goes."""
    tokenizer = subject.checkpoint.tokenizer
    story = [tokenizer.end_of_text, *tokenizer.encode(STORY)]
    ids = [story[number % len(story)] for number in range(depth + prompt_tokens)]
    return ids[:depth], ids[depth:]


def weight(subject: Subject) -> float:
    """How long a round takes, relative to other models: a part that none can do without, and one for its weights."""
    return 1 + subject.config.parameters / 2e6


def in_parts(entries: Sequence[measure.Entry], config: GPTConfig, together: int) -> list[Sequence[measure.Entry]]:
    """Entries in parts whose processes fit in memory at the same time, the thread counts of a side together."""
    room = memory_bytes()
    each = WORKER_BYTES + WORKER_COPIES * FLOAT_BYTES * config.parameters
    most = len(entries) if room is None else max(1, room // each // together) * together
    return [entries[start : start + most] for start in range(0, len(entries), most)]
