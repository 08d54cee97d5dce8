"""Log-probabilities of prompts and stories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from runtimes.engine.loss import log_softmax
from runtimes.engine.session import Session
from tests import bundles
from tests.runtimes.serve.endpoints.test_completions import GREEDY
from tests.runtimes.serve.servers import ENDLESS, Json, Served, serving

TEXTS = ["Once upon a time, there was a big dog.", "Zoë \N{SLIGHTLY SMILING FACE} saw", ""]
SCORE: dict[str, Any] = {"max_tokens": 0, "echo": True}


@pytest.fixture(scope="module")
def session(server: Served) -> Session:
    return bundles.session(server.generator.bundle.path)


def log_probabilities(session: Session, ids: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The log-probabilities [ids - 1, vocab] of the ids after the first."""
    session.reset()
    return log_softmax(session.score(ids))[:-1]


@pytest.mark.parametrize("text", TEXTS)
def test_a_scored_text_has_the_log_probabilities_of_a_session(server: Served, session: Session, text: str) -> None:
    ids = server.generator.encode(text)
    expected = log_probabilities(session, ids)
    for max_tokens in (0, 3):
        fields: Json = {"prompt": text, "echo": True, "max_tokens": max_tokens, "logprobs": 3, "temperature": 0}
        answer = server.ask(**fields)
        (choice,) = answer["choices"]
        logprobs, count = choice["logprobs"], len(ids) - 1
        tokens = [server.generator.tokenizer.token_bytes(token) for token in ids[1:]]
        assert choice["text"].startswith(text)
        assert logprobs["token_logprobs"][:count] == pytest.approx(expected[range(count), ids[1:]].tolist(), abs=1e-4)
        for token, shown, likely, row in zip(
            tokens, logprobs["tokens"], logprobs["top_logprobs"], expected, strict=False
        ):
            assert shown == readable(token)
            assert sorted(likely.values())[-3:] == pytest.approx(np.sort(row)[-3:].tolist(), abs=1e-4)
            assert len(likely) == (3 if shown in [*likely][:3] else 4), "the token itself is always there"
        assert len(logprobs["tokens"]) == count + answer["usage"]["completion_tokens"]
        assert len({len(values) for values in logprobs.values()}) == 1
        if max_tokens == 0:
            assert (choice["text"], choice["finish_reason"]) == (text, "length")
            assert answer["usage"]["completion_tokens"] == 0


def readable(token: bytes) -> str:
    try:
        return token.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)


def test_a_written_story_has_the_scores_of_its_text(server: Served) -> None:
    """The story is scored again as ids. In float both agree."""
    fields: Json = {"prompt": "Once upon a time", "seed": 3, "logprobs": 5, "return_token_ids": True, "max_tokens": 25}
    (story,) = server.ask(**fields)["choices"]
    ids = [*server.generator.tokenize("Once upon a time"), *story["token_ids"]]
    (scored,) = server.ask(prompt=ids, **SCORE, logprobs=5)["choices"]
    written = len(story["token_ids"])
    assert len(story["logprobs"]["tokens"]) == written > 5
    assert story["logprobs"]["tokens"] == scored["logprobs"]["tokens"][-written:]
    assert story["logprobs"]["token_logprobs"] == pytest.approx(
        scored["logprobs"]["token_logprobs"][-written:], abs=1e-4
    )
    for one, other in zip(
        story["logprobs"]["top_logprobs"], scored["logprobs"]["top_logprobs"][-written:], strict=True
    ):
        assert one == pytest.approx(other, abs=1e-4)


def test_echo_with_some_tokens_gives_the_scores_of_both(server: Served) -> None:
    prompt = "Once upon a time"
    (both,) = server.ask(prompt=prompt, **GREEDY, echo=True, logprobs=1)["choices"]
    (story,) = server.ask(prompt=prompt, **GREEDY, logprobs=1)["choices"]
    (score,) = server.ask(prompt=prompt, **SCORE, logprobs=1)["choices"]
    assert both["text"] == score["text"] + story["text"]
    for key in ("tokens", "token_logprobs"):
        assert both["logprobs"][key] == pytest.approx(score["logprobs"][key] + story["logprobs"][key])


@pytest.mark.parametrize("fields", [{"max_tokens": 0}, {"max_tokens": 40, "seed": 1}])
def test_text_offset_is_where_a_token_begins(server: Served, fields: Json) -> None:
    prompt = "Zoë \N{SLIGHTLY SMILING FACE} saw a dog"
    (choice,) = server.ask(prompt=prompt, echo=True, logprobs=0, **fields)["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["text_offset"][0] == 0
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if not token.startswith("bytes:"):
            assert choice["text"][offset:].startswith(token)
    assert any(token.startswith("bytes:") for token in logprobs["tokens"]), "the face is several tokens"


def test_a_start_token_that_the_client_gave_is_a_token_without_a_score(server: Served) -> None:
    begin, ids = server.generator.tokenizer.begin, server.generator.tokenize("Once upon")
    (plain,) = server.ask(prompt=ids, **SCORE, logprobs=1)["choices"]
    (given,) = server.ask(prompt=[begin, *ids], **SCORE, logprobs=1)["choices"]
    assert given["logprobs"]["tokens"] == ["<|endoftext|>", *plain["logprobs"]["tokens"]]
    assert given["logprobs"]["token_logprobs"] == [None, *plain["logprobs"]["token_logprobs"]]
    assert given["logprobs"]["top_logprobs"][0] is None


def test_several_texts_are_scored_in_one_request(server: Served) -> None:
    alone = [server.ask(prompt=text, **SCORE, logprobs=2)["choices"][0]["logprobs"] for text in TEXTS]
    together = [choice["logprobs"] for choice in server.ask(prompt=TEXTS, **SCORE, logprobs=2)["choices"]]
    assert [one["tokens"] for one in together] == [one["tokens"] for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one["token_logprobs"] == pytest.approx(other["token_logprobs"], abs=1e-4)


def test_scores_of_a_stream_are_those_of_one_piece(server: Served) -> None:
    for fields in ({**SCORE, "prompt": TEXTS}, {"prompt": TEXTS[0], "echo": True, "max_tokens": 20, "seed": 1}):
        whole = server.ask(**fields, logprobs=2)["choices"]
        events = server.events(**fields, logprobs=2)
        for index, expected in enumerate(whole):
            parts = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
            assert "".join(part["text"] for part in parts) == expected["text"]
            for key in ("tokens", "text_offset"):
                assert [item for part in parts for item in part["logprobs"][key]] == expected["logprobs"][key]
            found = [item for part in parts for item in part["logprobs"]["token_logprobs"]]
            assert found == pytest.approx(expected["logprobs"]["token_logprobs"], abs=1e-4)
            assert parts[-1]["finish_reason"] == expected["finish_reason"]


def test_a_request_whose_scores_have_no_room_leaves_no_work_behind(tiny_checkpoint: Path) -> None:
    """Of 6 stories and scores that are asked for, the server has room for 4, so it takes none."""
    with serving(bundles.tiny_bundle(tiny_checkpoint), slots=2, queue=4) as served:
        endless = {**ENDLESS, "prompt": "Once", "n": 2, "stream": True}
        with served.http.stream("POST", "/v1/completions", json=endless) as running:
            lines = running.iter_lines()  # httpx closes the stream when nothing refers to its lines
            next(lines)
            asked = {"prompt": TEXTS, "echo": True, "max_tokens": 9, "logprobs": 1}
            refused = served.http.post("/v1/completions", json=asked)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
            figures = served.scheduler.figures()
            assert (figures.running, figures.waiting, figures.cancelled) == (2, 0, 0)


def test_no_scores_are_given_unless_asked_for(server: Served) -> None:
    assert server.ask(prompt="Once", **SCORE)["choices"][0]["logprobs"] is None
    assert server.ask(prompt="Once", max_tokens=2)["choices"][0]["logprobs"] is None


@pytest.mark.slow
def test_the_space_that_a_tokenizer_puts_before_a_text_is_no_part_of_it() -> None:
    """With SentencePiece the first token of a text begins with a space that the text does not have."""
    from tests.runtimes.engine.test_begin import bundle_of

    prompt = "Once upon a time"
    with serving(bundle_of("sentencepiece always")) as served:
        asked: list[Json] = [{"prompt": prompt, "echo": True, "seed": seed} for seed in range(20)]
        asked.append({"prompt": "", "seed": 1})
        for fields in asked:
            (choice,) = served.ask(**fields, logprobs=0, max_tokens=12)["choices"]
            first, *rest = zip(choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"], strict=True)
            assert first[1] == 0
            assert choice["text"].startswith(first[0].removeprefix(" ")) or first[0].startswith("bytes:")
            for token, offset in rest:
                if not token.startswith("bytes:"):
                    assert choice["text"][offset:].startswith(token)
        begin, ids = served.generator.tokenizer.begin, served.generator.tokenize(prompt)
        (choice,) = served.ask(prompt=ids, echo=True, max_tokens=0)["choices"]
        assert choice["text"] == prompt
        (given,) = served.ask(prompt=[begin, *ids], echo=True, max_tokens=0, logprobs=0)["choices"]
        assert given["logprobs"]["tokens"][0] == "<s>"
        assert given["logprobs"]["text_offset"][:2] == [0, 0]
