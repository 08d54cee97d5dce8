"""`POST /v1/completions`: stories that continue prompts, and the scores of texts."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from runtimes.requests.completion import CompletionRequest, read_completion
from runtimes.requests.stories import begin_stories
from runtimes.serve.answers.answer import Choice, answer_request
from runtimes.serve.answers.logprobs import CompletionLogprobs, Scored, scored
from runtimes.serve.answers.state import state_of
from runtimes.serve.answers.work import Work, in_thread_if, is_long, read_body
from runtimes.serve.scheduler.job import Update


async def completions(request: Request) -> Response:
    """Answers a request of `/v1/completions`."""
    state = state_of(request)
    asked = read_completion(await read_body(request), state.bounds)
    name, scheduler = state.find(asked.model)
    long = is_long(asked, [*map(len, asked.prompts)])
    begun = await in_thread_if(long, begin_stories, asked, asked.prompts, scheduler.generator, state.bounds)
    work = Work(asked, name, scheduler, begun, asked.echo and asked.config.logprobs, asked.score_only)
    return await answer_request(request, work, CompletionForm(asked, work))


class CompletionForm:
    """The shape of `/v1/completions`. `Form` describes it."""

    prefix, name, event_name = "cmpl-", "text_completion", "text_completion"

    def __init__(self, asked: CompletionRequest, work: Work) -> None:
        self.extra: Choice = {}
        self._asked = asked
        self._work = work
        self._tokenizer = work.scheduler.generator.tokenizer
        self._logprobs: dict[int, CompletionLogprobs] = {}  # of the choices that have begun

    def choice(self, update: Update, end: Choice) -> Choice | None:
        """Returns a choice or a part of one, as `Form` says."""
        asked, index, text = self._asked, update.index, update.text
        shows = asked.config.logprobs
        tokens = scored(update.ids, update.logprobs, update.top_logprobs) if shows else []
        is_first = index not in self._logprobs
        prompt = index // asked.n
        if is_first and asked.echo:
            text = self._text(prompt) + text
            tokens = self._prompt_tokens(prompt) + tokens if shows else []
        if not (text or tokens or end["finish_reason"] or (asked.return_token_ids and update.ids)):
            return None
        if is_first:
            self._logprobs[index] = CompletionLogprobs(self._work.texts, self._drops_space(prompt))
        logprobs = self._logprobs[index].add(tokens) if shows else None
        choice = {"index": index, "text": text, "logprobs": logprobs, **end}
        if asked.return_token_ids:
            choice["prompt_token_ids"] = self._work.begun.prompt_ids[prompt] if is_first else None
            choice["token_ids"] = update.ids
        return choice

    def _text(self, prompt: int) -> str:
        """Returns the text of a prompt."""
        given = self._asked.prompts[prompt]
        return given if isinstance(given, str) else self._tokenizer.decode(given)

    def _prompt_tokens(self, prompt: int) -> list[Scored]:
        """Returns the scored tokens of a prompt, with the start token only if the client gave it."""
        given = self._asked.prompts[prompt]
        begin = self._tokenizer.begin
        has_begin = not isinstance(given, str) and given[:1] == (begin,)
        return [Scored(begin, None, {})] * has_begin + self._work.scores[prompt]

    def _drops_space(self, prompt: int) -> bool:
        """Returns whether the text of a choice leaves out a space at its start, because the tokenizer put it there."""
        ids: Sequence[int] = () if self._asked.echo else self._work.begun.prompt_ids[prompt]
        return self._tokenizer.drops_space_after(ids)
