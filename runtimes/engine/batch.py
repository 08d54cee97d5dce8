"""Several stories at once: each prompt is read once, the steps are taken together, a story that ends leaves."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from runtimes.engine.cache import FloatArray
from runtimes.engine.generator import Completion, GenerationConfig, GenerationStats, Generator, no_numbers, utf8_decoder
from runtimes.engine.sampler import Sampler, SamplingParams, system_seed
from runtimes.engine.session import Batch, Session
from runtimes.engine.stops import StopStrings
from slm.errors import SlmxError


@dataclass
class _Row:
    prompt: str
    prompt_ids: list[int]
    sampler: Sampler
    seed: int
    stops: StopStrings
    ids: list[int] = field(default_factory=list)
    text: str = ""
    stop: str = ""
    first: float = 0.0
    last: float = 0.0
    characters: codecs.IncrementalDecoder = field(default_factory=utf8_decoder)

    def finish(self, started: float) -> Completion:
        """The story, with what was held back of it."""
        if self.stops.hit is None:
            self.text += self.stops.push(self.characters.decode(b"", final=True)) + self.stops.rest()
        seconds = self.first - started, self.last - self.first
        summary = GenerationStats(len(self.prompt_ids), len(self.ids), self.stop, self.seed, *seconds)
        return Completion(self.prompt + self.text, self.ids, summary)


def write_batch(
    generator: Generator,
    prompts: Sequence[str],
    limits: GenerationConfig | None = None,
    sampling: SamplingParams | None = None,
) -> list[Completion]:
    """A story for each prompt, in their order; story i draws with seed + i.

    In float a story is the one that its prompt and seed give alone; int8 rounds by what shares the batch, so there the
    same batch gives the same stories, another batch others. Raises SlmxError as `Generator.stream` does, for no
    prompts, for `on_full` "slide", and for a variant that writes one story at a time. Ctrl-C ends those still being
    written and keeps what they have.
    """
    limits, sampling = limits or GenerationConfig(), sampling or SamplingParams()
    if not prompts:
        raise SlmxError("no prompts: give at least one")
    if limits.logprobs:
        raise SlmxError("a batch keeps no log-probabilities: write one story")
    if limits.on_full != "stop":
        raise SlmxError("a batch cannot slide its context: write one story, or let it stop")
    seed = system_seed() if sampling.seed is None else sampling.seed
    end, session = generator.tokenizer.end_of_text, generator.session_for(len(prompts))
    started = time.perf_counter()
    rows: list[_Row] = []
    sequences: list[Session] = []
    logits: list[FloatArray] = []
    for number, prompt in enumerate(prompts):
        ids = generator.encode(prompt)
        sampler = Sampler(replace(sampling, seed=seed + number), ids, end)
        rows.append(_Row(prompt, ids, sampler, seed + number, StopStrings(limits.stop)))
        if not sequences or ids != rows[-2].prompt_ids:
            session.reset()
            read = session.read(ids).copy()
            sequence = session.fork()
        sequences.append(sequence)
        logits.append(read)
    batch = Batch(sequences)
    running = list(range(len(rows)))
    try:
        chosen = _draw(generator, rows, logits)
        while True:
            now = time.perf_counter()
            places = []
            for place, (number, token) in enumerate(zip(running, chosen, strict=True)):
                row = rows[number]
                row.first, row.last = row.first or now, now
                row.stop = _stop(generator, row, token, limits, batch.lengths[place])
                if not row.stop:
                    places.append(place)
            if not places:
                break
            if len(places) < len(running):
                batch.keep(places)
                running, chosen = [running[place] for place in places], [chosen[place] for place in places]
            stepped = batch.step(chosen)
            chosen = _draw(generator, [rows[number] for number in running], stepped)
    except KeyboardInterrupt:
        for number in running:
            rows[number].stop = rows[number].stop or "interrupted"
    return [row.finish(started) for row in rows]


def _draw(generator: Generator, rows: Sequence[_Row], logits: Iterable[FloatArray]) -> list[int]:
    try:
        return [row.sampler(row_logits) for row, row_logits in zip(rows, logits, strict=True)]
    except FloatingPointError:
        raise no_numbers(generator) from None


def _stop(generator: Generator, row: _Row, token: int, limits: GenerationConfig, length: int) -> str:
    """Why a row ends with this id, which is added unless it is the end; empty when it goes on."""
    if token == generator.tokenizer.end_of_text:
        return "end of text"
    row.ids.append(token)
    row.text += row.stops.push(row.characters.decode(generator.token_bytes(token)))
    if row.stops.hit is not None:
        return "stop string"
    if len(row.ids) == limits.max_tokens:
        return "max tokens"
    return "context full" if length == generator.session.config.block_size else ""
