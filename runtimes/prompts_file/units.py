"""The stories of the lines, and their rows in the file of stories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runtimes.engine.generator import Generator
from runtimes.engine.logprobs import LEAST_LOGPROB
from runtimes.engine.scoring import TextScore
from runtimes.engine.story import Story
from runtimes.prompts_file.lines import BOUNDS, PromptLine, first_seed
from runtimes.prompts_file.writer import Row
from runtimes.requests.completion import CompletionRequest
from runtimes.requests.errors import RequestError
from runtimes.requests.stories import begin_stories

DIGITS = 5  # of a log-probability


@dataclass(frozen=True)
class Unit:
    """What becomes one row.

    Attributes:
        line: The line.
        index: The place in its line.
        prompt_ids: The ids of its prompt, as the model reads them.
        story: The story; None if the line failed or asks only for a score.
        score: The score of the prompt; None if it is not asked for. The stories of a prompt have the same.
    """

    line: PromptLine
    index: int = 0
    prompt_ids: Sequence[int] = ()
    story: Story | None = None
    score: TextScore | None = None

    @property
    def ready(self) -> bool:
        """Whether the row can be made."""
        written = self.story is None or self.story.finish_reason is not None
        return written and (self.score is None or self.score.done)


def begin_units(line: PromptLine, generator: Generator, seed: int, n: int) -> list[Unit]:
    """Begins the stories of a line.

    Args:
        line: The line.
        generator: The model.
        seed: The seed of the run.
        n: The stories of a prompt by the command line.

    Returns:
        The rows to be; a single one if the line fails.
    """
    request = line.request
    if request is None:
        return [Unit(line)]
    if request.sampling.seed is None:
        first = first_seed(seed, line.number, n, len(request.prompts) * request.n)
        request = replace(request, sampling=replace(request.sampling, seed=first))
    try:
        begun = begin_stories(request, request.prompts, generator, BOUNDS)
    except RequestError as error:
        return [Unit(replace(line, request=None, error=str(error)))]
    scores: list[TextScore | None] = [None] * len(begun.prompt_ids)
    if request.echo and request.config.logprobs:
        scores = [TextScore(ids, request.config.top_logprobs) for ids in begun.prompt_ids]
    return [
        Unit(
            line,
            index,
            begun.prompt_ids[index // request.n],
            None if request.score_only else story,
            scores[index // request.n],
        )
        for index, story in enumerate(begun.stories)
    ]


def as_row(unit: Unit, generator: Generator) -> Row:
    """Returns the row of a unit that is ready."""
    line, request = unit.line, unit.line.request
    row: dict[str, object] = {"id": line.id, "line": line.number, "index": unit.index}
    if request is None:
        return _row(unit, row | {"error": line.error})
    given = request.prompts[unit.index // request.n]
    prompt = given if isinstance(given, str) else generator.detokenize(given)
    row["prompt"] = prompt
    for part in (unit.story, unit.score):
        if part is not None and part.error is not None:
            return _row(unit, row | {"error": str(part.error) or type(part.error).__name__})
    return _row(unit, row | _written(unit, request, prompt) | _scored(unit.score))


def _written(unit: Unit, request: CompletionRequest, prompt: str) -> dict[str, object]:
    """Returns what a story adds to its row."""
    beginning = prompt if request.echo else ""
    if unit.story is None:
        return {"text": beginning, "finish_reason": "length", "usage": _usage(len(unit.prompt_ids), 0)}
    story = unit.story.completion()
    stats = story.stats
    found: dict[str, object] = {
        "text": beginning + story.completion_text,
        "finish_reason": stats.finish_reason,
        "usage": _usage(stats.prompt_tokens, stats.tokens),
        "seed": stats.seed,
    }
    if request.return_token_ids:
        found["prompt_ids"] = unit.prompt_ids
    if request.return_token_ids or request.config.logprobs:
        found["ids"] = story.ids
    if request.config.logprobs:
        found["logprobs"] = [_rounded(value) for value in story.logprobs]
    if request.config.top_logprobs:
        found["top_logprobs"] = [_likely(likely) for likely in story.top_logprobs]
    return found


def _scored(score: TextScore | None) -> dict[str, object]:
    """Returns what the score of a prompt adds to a row. The first id has no log-probability."""
    if score is None:
        return {}
    found: dict[str, object] = {
        "prompt_ids": score.ids,
        "prompt_logprobs": [None, *(_rounded(value) for value in score.logprobs)],
    }
    if score.top_logprobs:
        found["prompt_top_logprobs"] = [None, *(_likely(likely) for likely in score.top_logprobs)]
    return found


def _usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _likely(likely: dict[int, float]) -> dict[str, float]:
    return {str(token): _rounded(value) for token, value in likely.items()}


def _rounded(logprob: float) -> float:
    return round(max(logprob, LEAST_LOGPROB), DIGITS)


def _row(unit: Unit, values: dict[str, object]) -> Row:
    content = json.dumps(values, ensure_ascii=False).encode("utf-8") + b"\n"
    return Row(unit.line.number, unit.index, content, "error" in values)
