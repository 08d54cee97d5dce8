"""A whole run of slmx bench: targets, their quality, groups of cases, and the report. A stopped run can continue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import torch

from benchmarks.quality.text_quality import TextQuality, from_manifest, part_read, quality_on, text_of_manifest
from benchmarks.report.compare import label
from benchmarks.report.fields import printable
from benchmarks.report.leaderboard import setting_of
from benchmarks.report.record import FAILED, TORCH_RUNNERS, Case, Model, Report, Result
from benchmarks.report.warnings import STOPPED
from benchmarks.run import cases, measure
from benchmarks.run.environment import busy_now, environment, read_bandwidth
from benchmarks.run.output_check import ExpectedOutput
from benchmarks.run.peer_quality import readers
from benchmarks.run.progress import Meter
from benchmarks.run.resume_log import ResumeLog
from benchmarks.run.runners import Job
from benchmarks.run.settings import BenchSettings
from benchmarks.run.targets import FLOAT_BYTES, Target, target_names, target_of_bundle, target_of_preset
from export.settings import require_text_file
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import float_threads
from runtimes.system.machine import usable_cores
from slm.console.errors import SlmxError
from slm.data.sources import read_stories
from slm.memory import memory_bytes
from slm.presets import GPTConfig, get_preset
from slm.storage.hashing import sha256_of
from slm.storage.locks import lock_folder

PRESETS = ("nano", "micro", "small", "medium")
# What a run keeps in its folder beside the report.
RESUME_LOG = "resume_log.jsonl"
WORK_FOLDER = "work"
QUICK_PRESETS = ("nano",)
# Runners that store weights and compute in float32. They write the same ids as the float model.
FLOAT_RUNNERS = (*TORCH_RUNNERS, *(name for name, variant in VARIANTS.items() if variant.gate.parity is not None))
# Memory that a process needs, in addition to some copies of the weights.
WORKER_BYTES = 300 * 2**20
WORKER_COPIES = 2
# The text of prompts and contexts, repeated as often as needed.
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her dog, Max. "
    "One day, Lily and Max found a big red ball under a tree. Lily was very happy and wanted to show it to her mom. "
    "Max ran after the ball and barked, and they played until the sun went down. Then a boy came to the tree. He was "
    "sad because he had lost his ball. Lily looked at the ball and thought for a moment. She gave it back to him, and "
    "the boy smiled. They became good friends and played together every day."
)


@dataclass(frozen=True)
class _Bandwidth:
    """A line of the resume log: a measured bandwidth."""

    bytes_per_second: float


@dataclass(frozen=True)
class _Read:
    """A line of the resume log: the quality of a target on the text, and why that of a peer is unknown."""

    quality: TextQuality
    warnings: list[str]


@dataclass(frozen=True)
class _Finished:
    """A line of the resume log: a finished group."""

    results: list[Result]
    warnings: list[str]


class Bench:
    """A run. `report` may be called at any time and returns the results so far. Not thread-safe.

    Args:
        settings: What to measure.
        meter: Shows the progress.

    Raises:
        SlmxError: A setting or a bundle cannot be used. Nothing was measured.
    """

    def __init__(self, settings: BenchSettings, meter: Meter) -> None:
        self._settings = settings
        self._meter = meter
        self._warnings: list[str] = []
        self._complete = False
        # Each bundle and each preset is measured once, however often it is named.
        self._bundles = [Bundle.open(path) for path in {path.resolve(): path for path in settings.bundles}.values()]
        for bundle in self._bundles:
            bundle.check_listed_files()
        default = QUICK_PRESETS if settings.quick else PRESETS
        self._presets = tuple(dict.fromkeys(settings.presets or (() if self._bundles else default)))
        for preset in self._presets:
            get_preset(preset)
        self._runners = cases.chosen_runners(settings.variants, settings.quick)
        self._held = [self._runners_of(bundle) for bundle in self._bundles]
        self._threads = cases.chosen_threads(settings.threads, usable_cores())
        self._peers = cases.chosen_peers(settings.peers, settings.quick)
        if settings.text is not None:
            require_text_file(settings.text)
            next(read_stories([settings.text]))  # an empty or damaged text is an error before the models are exported
        self._machine = environment(self._peers)
        self._resume_log = ResumeLog(settings.out / RESUME_LOG, self._arguments(), meter.log)
        self._results: list[Result] = []
        self._models: dict[str, Model] = {}
        self._texts: dict[str, str] = {}
        self._bandwidth: dict[str, float] = {}

    def _runners_of(self, bundle: Bundle) -> tuple[str, ...]:
        """Returns the chosen runners that a bundle has and that may be read.

        Raises:
            SlmxError: The user named a variant that the bundle does not have, or no runner is left.
        """
        held = (*TORCH_RUNNERS, *bundle.manifest.variants)
        missing = [runner for runner in self._runners if runner not in held]
        if missing and self._settings.variants is not None:
            raise SlmxError(f"{bundle.path}: no variant {missing[0]!r}; there are {', '.join(held)}")
        found = tuple(runner for runner in self._runners if runner in held)
        if self._settings.variants is None and not set(found) - set(TORCH_RUNNERS):
            found = (*found, bundle.manifest.default)  # the bundle has none of the quick variants
        if self._settings.trust:
            return found
        unsafe = [runner for runner in found if runner in VARIANTS and VARIANTS[runner].is_torch]
        found = tuple(runner for runner in found if runner not in unsafe)
        names, reason = " and ".join(unsafe), "reading such a file can run code in it; --trust measures it"
        if not found:
            raise SlmxError(f"{bundle.path}: nothing to measure without {names}, and {reason}")
        if unsafe:
            self._warn(f"{printable(str(bundle.path))}: {names} left out, because {reason}")
        return found

    def _arguments(self) -> dict[str, object]:
        """Returns everything that the results depend on. Results of a run with other arguments are not reused."""
        settings = self._settings
        return {
            "bundles": [[str(bundle.path), bundle.manifest_sha256] for bundle in self._bundles],
            "presets": self._presets,
            "runners": self._runners,
            "threads": self._threads,
            "peers": [peer.name for peer in self._peers],
            "quick": settings.quick,
            "trust": settings.trust,
            "text": None if settings.text is None else sha256_of(settings.text),
            "rounds": settings.rounds,
            "new_tokens": settings.new_tokens,
            "machine": self._machine,
        }

    def run(self) -> None:
        """Measures everything.

        Raises:
            SlmxError: Another process writes to the folder, a target cannot be made, or the text cannot be used.
            KeyboardInterrupt: The user pressed Ctrl-C. The measurements until then are kept.
        """
        with lock_folder(self._settings.out):
            self._resume_log.open()
            self._run()
        self._complete = True

    def finish(self) -> None:
        """Deletes the measurements after the report is written. The next run measures everything again."""
        self._resume_log.finish()

    def _run(self) -> None:
        busy = busy_now()
        if busy is not None:
            self._warn(busy)
        for threads in self._threads:
            key = f"bandwidth {threads}"
            found = self._resume_log.get(key, _Bandwidth)
            if found is None:
                found = _Bandwidth(read_bandwidth(threads))
                self._resume_log.put(key, found)
            self._bandwidth[str(threads)] = found.bytes_per_second
        settings = self._settings
        work = settings.out / WORK_FOLDER
        names = target_names(self._bundles, self._presets)
        variants = [runner for runner in self._runners if runner not in TORCH_RUNNERS]
        if self._peers:
            variants += ["fp32", "int8"]
        self._meter.log("preparing the models" + ("" if self._bundles else "; the first time this takes some minutes"))
        targets = [
            *((target_of_preset(name, variants, work, self._meter.log), self._runners) for name in self._presets),
            *(
                (target_of_bundle(bundle, name, work, settings.trust), runners)
                for bundle, name, runners in zip(self._bundles, names, self._held, strict=True)
            ),
        ]
        qualities = []
        for target, runners in targets:
            quality = self._quality_of(target, runners)
            qualities.append(quality)
            self._models[target.name] = Model(
                parameters=target.config.parameters,
                trained=target.trained,
                training_seconds=target.training_seconds,
                bits_per_byte=quality.bits_per_byte,
                perplexity=quality.perplexity,
                bleu=quality.bleu,
                context_tokens=target.config.block_size,
            )
            self._expect(target, runners)
        for (target, runners), quality in zip(targets, qualities, strict=True):
            self._measure(target, runners, quality)

    def report(self) -> Report:
        """Returns the measurements so far."""
        return Report(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command=self._settings.command,
            machine=self._machine,
            bandwidth=self._bandwidth,
            text=_text_words(self._texts),
            models=self._models,
            results=self._results,
            warnings=[*self._warnings, *(() if self._complete else (STOPPED,))],
        )

    def _warn(self, warning: str) -> None:
        self._warnings.append(warning)
        self._meter.log(f"warning: {warning}")

    def _quality_of(self, target: Target, runners: Sequence[str]) -> TextQuality:
        """Returns the quality on the text, or the quality in the manifest without a text. Random weights have none."""
        if not target.trained:
            return TextQuality()
        text = self._settings.text
        if text is None:
            self._texts[target.name] = text_of_manifest(target.bundle)
            return from_manifest(target.bundle)
        self._texts[target.name] = part_read(text)
        key = f"quality {target.name}"
        found = self._resume_log.get(key, _Read)
        if found is None:
            self._meter.log(f"{target.name}: reading {text} with every runner")
            unknown: list[str] = []
            found = _Read(quality_on(target, runners, text, readers(target, self._peers, unknown.append)), unknown)
            self._resume_log.put(key, found)
        for warning in found.warnings:
            self._warn(warning)
        return found.quality

    def _measure(self, target: Target, runners: Sequence[str], quality: TextQuality) -> None:
        settings, config = self._settings, target.config
        everyone = (*runners, *(peer.name for peer in self._peers))
        base = cases.base_cases(target.name, config, everyone, self._threads, settings.new_tokens)
        found = self._group(target, base, quality)
        fit = [result.case.runner for result in found if result.decode is not None]
        for group in cases.variations(target.name, config, fit, self._threads, settings.quick, settings.new_tokens):
            self._group(target, group, quality)

    def _group(self, target: Target, group: Sequence[Case], quality: TextQuality) -> list[Result]:
        """Measures a group, or takes its results from the stopped run that this one continues."""
        key = f"group {target.name}, {setting_of(group[0])}"
        known = self._resume_log.get(key, _Finished)
        if known is not None:
            self._results += known.results
            self._warnings += known.warnings
            self._meter.advance(len(group) * (self._settings.rounds + 1) * weight(target))
            return known.results
        history, prompt = story_ids(target, group[0].depth, group[0].prompt_tokens)
        exact = frozenset((*FLOAT_RUNNERS, *(peer.name for peer in self._peers if peer.exact)))
        torch.set_num_threads(float_threads(target.config))
        context, new_tokens = [*history, *prompt], group[0].new_tokens
        expected = ExpectedOutput.of(target.checkpoint.model, context, new_tokens, target.trained, exact)
        entries = [self._entry(target, case, quality, history, prompt) for case in group]
        self._meter.begin(key.removeprefix("group "))
        parts = in_parts(entries, target.config, len(self._threads))
        done = _Finished([], [])
        if len(parts) > 1:
            done.warnings.append(
                f"{key.removeprefix('group ')}: memory is short, so the runners were measured in {len(parts)} parts"
            )
            self._warn(done.warnings[-1])
        for part in parts:
            running = measure.Group(part, expected, self._settings.rounds, lambda case: self._step(target, case))
            try:
                running.run()
            finally:
                done.results.extend(running.results)
                self._results += running.results
            for warning in running.warnings:
                done.warnings.append(warning)
                self._warn(warning)
        self._resume_log.put(key, done)
        return done.results

    def _expect(self, target: Target, runners: Sequence[str]) -> None:
        """Tells the meter how much work there is if every runner can be measured in all its cases."""
        settings = self._settings
        everyone = (*runners, *(peer.name for peer in self._peers))
        base = cases.base_cases(target.name, target.config, everyone, self._threads, settings.new_tokens)
        varied = cases.variations(
            target.name, target.config, everyone, self._threads, settings.quick, settings.new_tokens
        )
        count = len(base) + sum(map(len, varied))
        self._meter.expect(count * (settings.rounds + 1) * weight(target))

    def _step(self, target: Target, case: Case) -> None:
        self._meter.advance(weight(target), label(case))

    def _entry(
        self, target: Target, case: Case, quality: TextQuality, history: list[int], prompt: list[int]
    ) -> measure.Entry:
        """Returns a case with its job and its known facts, or with the reason why it is not measured."""
        peer = next((peer for peer in self._peers if peer.name == case.runner), None)
        note = cases.skipped(case, peer, target.config)
        if note is not None:
            return measure.Entry(case, None, note=note)
        if peer is None:
            path = target.path(case.runner)
            facts: dict[str, float | int | None] = {
                "disk_bytes": target.disk_bytes(case.runner),
                "weight_bytes": target.weight_bytes(case.runner),
            }
        else:
            try:
                path = target.peer_files(peer)
            except SlmxError as error:
                return measure.Entry(case, None, note=str(error), status=FAILED)
            size = peer.weight_bytes(path)
            facts = {"disk_bytes": size, "weight_bytes": size}
        facts |= {
            "bits_per_byte": quality.runner_bits_per_byte.get(case.runner),
            "bpb_increase": quality.runner_bpb_increase.get(case.runner),
        }
        job = Job(
            runner=case.runner,
            peer=peer is not None,
            path=str(path.absolute()),
            trusted=target.trusted,
            shape=target.config.to_dict(),
            threads=case.threads,
            batch=case.batch,
            history=history,
            prompt=prompt,
            new_tokens=case.new_tokens,
            packed=peer is None and case.runner in VARIANTS and target.bundle.is_archive,
        )
        return measure.Entry(case, job, facts)


def _text_words(texts: Mapping[str, str]) -> str | None:
    """Returns the texts that quality was measured on, by target: one for all, or one for each; None without a text."""
    if len(set(texts.values())) > 1:
        return "; ".join(f"{name}: {text}" for name, text in texts.items())
    return next(iter(texts.values()), None)


def story_ids(target: Target, depth: int, prompt_tokens: int) -> tuple[list[int], list[int]]:
    """Returns the ids of the context before the prompt, and of the prompt: a story, repeated as often as needed."""
    tokenizer = target.checkpoint.tokenizer
    story = [tokenizer.begin, *tokenizer.encode(STORY)]
    ids = [story[number % len(story)] for number in range(depth + prompt_tokens)]
    return ids[:depth], ids[depth:]


def weight(target: Target) -> float:
    """Returns the time of a round relative to other models: a constant part, and a part for the weights."""
    return 1 + target.config.parameters / 2e6


def in_parts(entries: Sequence[measure.Entry], config: GPTConfig, together: int) -> list[Sequence[measure.Entry]]:
    """Splits entries into parts whose processes fit in memory at the same time.

    Each sequence of `together` entries stays in one part. They are the same runner on different numbers of threads.
    """
    room = memory_bytes()
    each = WORKER_BYTES + WORKER_COPIES * FLOAT_BYTES * config.parameters
    most = len(entries) if room is None else max(1, room // each // together) * together
    return [entries[start : start + most] for start in range(0, len(entries), most)]
