"""One question to an OpenAI-compatible endpoint, through the package openai, and what can go wrong."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.judge.rubric import SCHEMA
from slm.console.errors import SlmxError, needs
from slm.console.notice import Log
from slm.console.plain_text import as_plain_text
from slm.storage.json_reader import Fields, parse_json

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

TIMEOUT = 120.0  # seconds for one answer
RETRIES = 5  # after an error of the server, 429 or a timeout, with pauses that grow, or as long as the server asks for
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds; each pause is twice the one before
LONGEST_ASKED = 60.0  # seconds that the server may ask for
TOLD_FROM = 2.0  # seconds of a pause from which a line says so
CAN_PASS = (408, 409, 429)  # and 500 or more
BODIES = 2  # answers without the form of the protocol, after which the endpoint is given up
SHOWN = 200  # characters of a foreign message
GO_ON = "what is judged is kept: the same command goes on"
# How the scores are asked for. An endpoint that refuses a form gets the next one.
_SCHEMA = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "scores", "strict": True, "schema": SCHEMA}}
}
_USUAL = {"temperature": 0, "max_tokens": 300}
_THINKING = {"max_completion_tokens": 4000}  # models that think first refuse a temperature and `max_tokens`
FORMS: tuple[dict[str, Any], ...] = (_SCHEMA | _USUAL, _USUAL, _SCHEMA | _THINKING, _THINKING)


class StoryRefusedError(SlmxError):
    """The endpoint works, but may have something against this one story."""


@dataclass(frozen=True)
class Endpoint:
    """Where the judge is.

    Attributes:
        url: The address of the API, such as `https://api.openai.com/v1`.
        model: The name of the model there.
        key: The key; None if the variable is not set.
        key_env: The name of the environment variable with the key.
        timeout: Seconds for one whole answer.
        retries: How often a request is repeated that failed for a reason that can pass.
    """

    url: str
    model: str
    key: str | None
    key_env: str
    timeout: float = TIMEOUT
    retries: int = RETRIES


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        raw: The whole body of the response.
        content: What the model wrote.
        tokens: Tokens of the request and of the answer, as the endpoint counts them; 0 if it does not say.
    """

    raw: str
    content: str
    tokens: tuple[int, int]


def read_body(raw: str) -> Reply:
    """Reads the body of a response.

    Raises:
        ValueError: It is not a chat completion.
    """
    body = Fields(parse_json(raw.encode("utf-8", "replace"), max_depth=32))
    choices = body.value("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("choices is not a list with an answer")
    message = Fields(choices[0], "choices[0]").object("message")
    content = message.value("content") if "content" in message else None
    if content is not None and not isinstance(content, str):
        raise ValueError("choices[0].message.content is not a text")
    return Reply(raw, content or "", (_count(body, "prompt_tokens"), _count(body, "completion_tokens")))


def _count(body: Fields, name: str) -> int:
    """Returns a number of tokens; 0 if the endpoint gives none, or no whole number."""
    try:
        return body.object("usage").integer(name)
    except ValueError:
        return 0


class Judge:
    """Asks an endpoint, as a context manager.

    Args:
        endpoint: Where it is.
        log: Called with a line about each long pause.

    Raises:
        SlmxError: The package openai is not installed.
    """

    def __init__(self, endpoint: Endpoint, log: Log) -> None:
        with needs("evaluate"):
            import openai
        self._openai, self._endpoint, self._log = openai, endpoint, log
        self._client = self._connect()
        self._form: int | None = None

    def _connect(self) -> OpenAI:
        endpoint = self._endpoint
        return self._openai.OpenAI(
            base_url=endpoint.url, api_key=endpoint.key or "none", timeout=endpoint.timeout, max_retries=0
        )

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._client.close()

    def ask(self, messages: list[dict[str, str]]) -> Reply:
        """Sends a conversation, and repeats it while the endpoint fails in a way that can pass.

        Raises:
            StoryRefusedError: The endpoint refuses this request, or fails at it again and again.
            SlmxError: The endpoint does not answer, refuses the key or the model, or does not speak the protocol.
        """
        why = ""
        for _ in range(BODIES):
            raw = self._send(messages)
            try:
                return read_body(raw)
            except ValueError as error:
                why = f"{error}; it begins with {raw[:60]!a}"
        raise self._failure(f"its answer is not a chat completion: {why}; check --judge-url, which often ends with /v1")

    def _send(self, messages: list[dict[str, str]]) -> str:
        refused: list[str] = []
        for number in range(len(FORMS)) if self._form is None else (self._form,):
            try:
                raw = self._send_patiently(messages, FORMS[number])
            except self._openai.APIStatusError as error:
                if not _refuses_form(error):
                    raise self._refusal(error) from None
                refused.append(_said(error))
            except self._openai.APITimeoutError:
                times = self._endpoint.retries + 1
                raise self._failure(f"no answer within {self._endpoint.timeout:g} seconds, {times} times") from None
            except self._openai.APIConnectionError as error:
                reason = as_plain_text(str(error.__cause__ or error))[:SHOWN]
                raise self._failure(f"cannot be reached ({reason}); start the server or check --judge-url") from None
            else:
                self._form = number
                return raw
        told = "; or: ".join(dict.fromkeys(refused))
        raise StoryRefusedError(str(self._failure(f"refuses every form of the request: {told}")))

    def _send_patiently(self, messages: list[dict[str, str]], form: dict[str, Any]) -> str:
        """Sends a conversation in one form, and repeats it after a pause while it fails in a way that can pass."""
        for attempt in itertools.count():
            try:
                return self._send_once(messages, form)
            except self._openai.APIConnectionError:  # a timeout is one too
                if attempt == self._endpoint.retries:
                    raise
                why, pause = "does not answer", None
            except self._openai.APIStatusError as error:
                if attempt == self._endpoint.retries or not _can_pass(error):
                    raise
                why, pause = f"answers with status {error.status_code}", asked_pause(error.response.headers)
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) if pause is None else pause
            if pause >= TOLD_FROM:
                repeats = f"{attempt + 1} of {self._endpoint.retries}"
                self._log(f"{self._endpoint.url} {why}: waiting {pause:.0f} seconds, then again ({repeats})")
            time.sleep(pause)
        raise AssertionError

    def _send_once(self, messages: list[dict[str, str]], form: dict[str, Any]) -> str:
        """Sends a conversation in one form.

        The timeout of the client is that of each read. A timer ends an answer that comes byte by byte: it closes the
        client, so that the next read fails.

        Raises:
            openai.APITimeoutError: The whole answer took too long.
        """
        late = threading.Event()

        def end() -> None:
            late.set()
            self._client.close()

        timer = threading.Timer(self._endpoint.timeout, end)
        timer.daemon = True
        timer.start()
        try:
            create = self._client.chat.completions.with_raw_response.create
            return str(create(model=self._endpoint.model, messages=messages, **form).text)  # type: ignore[arg-type]
        except self._openai.APIConnectionError as error:
            if late.is_set():
                raise self._openai.APITimeoutError(error.request) from None
            raise
        finally:
            timer.cancel()
            timer.join()
            if late.is_set():
                self._client = self._connect()

    def _refusal(self, error: APIStatusError) -> SlmxError:
        """Says what a status means and what helps."""
        endpoint, said = self._endpoint, _said(error)
        if error.status_code in (401, 403):
            held = (
                f"the key in {endpoint.key_env}" if endpoint.key else f"a request without a key; set {endpoint.key_env}"
            )
            return self._failure(f"refuses {held}: {said}")
        if error.status_code == 404:
            names = self._names()
            there = f"it has {names}" if names else "check --judge-url, which often ends with /v1"
            return self._failure(f"has no model {endpoint.model}, or no such address: {said}; {there}")
        if error.status_code == 429:
            return self._failure(f"takes no more requests now: {said}; wait, or check what the account allows")
        times = f", {endpoint.retries + 1} times" if _can_pass(error) else ""
        return StoryRefusedError(str(self._failure(f"status {error.status_code}{times}: {said}")))

    def _names(self) -> str:
        """Returns the first models that the endpoint lists; empty if it lists none."""
        try:
            listed = self._client.models.list().data
            return ", ".join(as_plain_text(str(model.id))[:60] for model in listed[:5])
        except Exception:  # a broken list is not what the user asked about
            return ""

    def _failure(self, what: str) -> SlmxError:
        return SlmxError(f"{self._endpoint.url}: {what}; {GO_ON}")


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds for which a server asks to wait; None if it asks for none, or for too many."""
    asked = headers.get("retry-after", "")
    seconds = -1.0
    with suppress(ValueError):
        seconds = float(asked)
    with suppress(ValueError, TypeError):
        seconds = parsedate_to_datetime(asked).timestamp() - time.time()
    return seconds if 0 < seconds <= LONGEST_ASKED else None


def _can_pass(error: APIStatusError) -> bool:
    """Returns whether a request is repeated after this status."""
    return error.status_code in CAN_PASS or (error.status_code >= 500 and not _refuses_form(error))


def _refuses_form(error: APIStatusError) -> bool:
    """Returns whether an endpoint does not know a field. The server of llama-cpp-python answers 500 then."""
    return error.status_code in (400, 422) or (error.status_code == 500 and "response_format" in error.response.text)


def _said(error: APIStatusError) -> str:
    """Returns the message of an endpoint on one line."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    text = " ".join(str(message or error.message).split())
    return as_plain_text(text)[:SHOWN] or f"status {error.status_code}"
