"""Begins the stories of a request with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runtimes.requests.errors import RequestError
from runtimes.requests.fields import Bounds
from runtimes.requests.story_request import StoryRequest
from slm.console.errors import SlmxError

if TYPE_CHECKING:
    from runtimes.engine.generator import Generator
    from runtimes.engine.story import Story

Prompt = str | Sequence[int]


@dataclass(frozen=True)
class Begun:
    """The prompts of a request as a model reads them, and its stories.

    Attributes:
        prompt_ids: The ids of each prompt, with the token that begins every story.
        seed: The seed of the first story.
        stories: The stories of the first prompt, then those of the second, and so on. None has started.
    """

    prompt_ids: list[list[int]]
    seed: int
    stories: list[Story]


def begin_stories(
    request: StoryRequest, prompts: Sequence[Prompt], generator: Generator, bounds: Bounds, name: str = "prompt"
) -> Begun:
    """Begins the stories of a request. Story j of prompt i draws with seed + i * n + j.

    Args:
        request: How to write them.
        prompts: The prompts.
        generator: The model.
        bounds: What a request may ask for.
        name: The field that holds the prompts, for messages.

    Raises:
        RequestError: The vocabulary lacks an id, or a prompt is longer than the context or the bound.
    """
    from runtimes.engine.prompt import PromptTooLongError
    from runtimes.engine.sampler import system_seed

    _check_ids(request, prompts, generator.tokenizer.vocab_size, name)
    seed = system_seed() if request.sampling.seed is None else request.sampling.seed
    prompt_ids, stories = [], []
    for number, prompt in enumerate(prompts):
        where = _place(name, number, prompts)
        for copy in range(request.n):
            sampling = replace(request.sampling, seed=seed + number * request.n + copy)
            try:
                stories.append(generator.story(prompt, request.config, sampling))
            except PromptTooLongError as error:
                raise _too_long(where, error.what, ', or set on_full to "slide"') from None
        ids = stories[-1].prompt_ids
        if bounds.prompt_tokens is not None and len(ids) > bounds.prompt_tokens:
            length = (
                f"the prompt is {len(ids):,} tokens long with its start token, the most is {bounds.prompt_tokens:,}"
            )
            raise _too_long(where, length)
        prompt_ids.append(ids)
    return Begun(prompt_ids, seed, stories)


def _place(name: str, number: int, prompts: Sequence[Prompt]) -> str:
    return name if len(prompts) == 1 else f"{name}[{number}]"


def _too_long(name: str, length: str, advice: str = "") -> RequestError:
    return RequestError(f"{name}: {length}; shorten it{advice}", name, "context_length_exceeded")


def _check_ids(request: StoryRequest, prompts: Sequence[Prompt], vocab_size: int, name: str) -> None:
    from slm.tokenizers.tokenizer import check_id

    named = {"stop_token_ids": request.config.stop_token_ids, "logit_bias": request.sampling.rules.logit_bias}
    for number, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            named[_place(name, number, prompts)] = prompt
    for where, ids in named.items():
        try:
            check_id(max(ids, default=0), vocab_size, where)
        except SlmxError as error:
            raise RequestError(str(error), where) from None
