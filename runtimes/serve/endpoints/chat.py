"""`POST /v1/chat/completions`: an answer to the messages of a chat."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from runtimes.engine.generator import Generator
from runtimes.requests.chat import ChatRequest, read_chat
from runtimes.requests.fields import Bounds
from runtimes.requests.stories import Begun, begin_stories
from runtimes.serve.answers.answer import Choice, answer_request
from runtimes.serve.answers.logprobs import chat_logprobs, scored
from runtimes.serve.answers.state import state_of
from runtimes.serve.answers.work import Work, in_thread_if, is_long, read_body
from runtimes.serve.scheduler.job import Update


async def chat_completions(request: Request) -> Response:
    """Answers a request of `/v1/chat/completions`."""
    state = state_of(request)
    asked = read_chat(await read_body(request), state.bounds)
    name, scheduler = state.find(asked.model)
    long = is_long(asked, [sum(len(message.text) for message in asked.messages)])
    begun = await in_thread_if(long, begin_chat, asked, scheduler.generator, state.bounds)
    work = Work(asked, name, scheduler, begun)
    return await answer_request(request, work, ChatForm(asked, work))


def begin_chat(asked: ChatRequest, generator: Generator, bounds: Bounds) -> Begun:
    """Begins the stories that continue a chat, with the template of the bundle.

    Raises:
        RequestError: As in `begin_stories`.
    """
    messages = [(message.role, message.text) for message in asked.messages]
    prompt = generator.bundle.manifest.chat.encode(messages, generator.tokenizer)
    return begin_stories(asked, [prompt], generator, bounds, "messages")


class ChatForm:
    """The shape of `/v1/chat/completions`. `Form` describes it."""

    prefix, name, event_name = "chatcmpl-", "chat.completion", "chat.completion.chunk"

    def __init__(self, asked: ChatRequest, work: Work) -> None:
        self._asked = asked
        self._work = work
        self._begun: set[int] = set()
        self.extra: Choice = {"prompt_token_ids": work.begun.prompt_ids[0]} if asked.return_token_ids else {}

    def choice(self, update: Update, end: Choice) -> Choice | None:
        """Returns a choice or a part of one, as `Form` says."""
        asked, index, text = self._asked, update.index, update.text
        shows = asked.config.logprobs
        is_first = index not in self._begun
        if not (text or end["finish_reason"] or (update.ids and (shows or asked.return_token_ids))):
            return None
        self._begun.add(index)
        content: Choice
        if asked.stream:
            role = {"role": "assistant"} if is_first else {}
            content = {"delta": role | ({"content": text} if text or is_first else {})}
        else:
            content = {"message": {"role": "assistant", "content": text, "refusal": None, "annotations": []}}
        tokens = scored(update.ids, update.logprobs, update.top_logprobs) if shows else None
        logprobs = None if tokens is None else chat_logprobs(self._work.texts, tokens)
        choice = {"index": index, **content, "logprobs": logprobs, **end}
        if asked.return_token_ids:
            choice["token_ids"] = update.ids
        return choice
