"""`POST /v1/chat/completions` against a real server, and the models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from export.exporter import export_bundle
from export.settings import ExportSettings
from runtimes.bundle.chat_template import CHATML
from slm.checkpoint import save_checkpoint
from slm.presets import GPTConfig
from slm.tokenizers.tokenizer import Tokenizer, train_tokenizer
from tests import bundles
from tests.conftest import generate_stories
from tests.runtimes.bundle.test_chat_template import CHAT_SETTINGS
from tests.runtimes.serve.servers import Json, Served, serving

CHAT = "/v1/chat/completions"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 20}


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


def test_a_story_model_continues_the_text_of_the_messages(server: Served) -> None:
    first = server.ask(CHAT, messages=[user("Once upon a time")], **GREEDY)
    (choice,) = first["choices"]
    expected = server.generator.generate("Once upon a time", temperature=0.0, max_tokens=20)
    assert choice["message"] == {
        **{"role": "assistant", "content": expected.completion_text},
        **{"refusal": None, "annotations": []},
    }
    assert (choice["finish_reason"], choice["logprobs"]) == (expected.stats.finish_reason, None)
    assert (first["object"], first["model"]) == ("chat.completion", "nano")
    assert first["id"].startswith("chatcmpl-")
    assert first["usage"]["prompt_tokens"] == expected.stats.prompt_tokens
    messages = [user("Once upon a time"), choice["message"], user("Lily ran.")]
    (second,) = server.ask(CHAT, messages=messages, **GREEDY)["choices"]
    text = f"Once upon a time{expected.completion_text} Lily ran."
    assert second["message"]["content"] == server.generator.generate(text, **GREEDY).completion_text


def test_parts_of_a_text_and_all_roles_are_read(server: Served) -> None:
    parts = [{"type": "text", "text": "One "}, {"type": "text", "text": "day"}]
    messages = [{"role": "system", "content": "Lily sat."}, {"role": "developer", "content": "Tom ran."}, user(parts)]
    (choice,) = server.ask(CHAT, messages=messages, **GREEDY)["choices"]
    assert (
        choice["message"]["content"]
        == server.generator.generate("Lily sat. Tom ran. One day", **GREEDY).completion_text
    )


def test_log_probabilities_have_the_shape_of_a_chat(server: Served) -> None:
    fields = {**GREEDY, "logprobs": True, "top_logprobs": 3}
    (choice,) = server.ask(CHAT, messages=[user("Once \N{SLIGHTLY SMILING FACE}")], **fields)["choices"]
    expected = server.generator.generate(
        "Once \N{SLIGHTLY SMILING FACE}", temperature=0.0, max_tokens=20, logprobs=True, top_logprobs=3
    )
    content = choice["logprobs"]["content"]
    assert [item["logprob"] for item in content] == pytest.approx(expected.logprobs)
    assert bytes(byte for item in content for byte in item["bytes"]).decode() == choice["message"]["content"]
    for item, likely in zip(content, expected.top_logprobs, strict=True):
        assert [other["logprob"] for other in item["top_logprobs"]] == pytest.approx([*likely.values()])
        shown = [server.generator.tokenizer.token_bytes(token) for token in likely]
        assert [bytes(other["bytes"]) for other in item["top_logprobs"]] == shown
    (choice,) = server.ask(CHAT, messages=[user("Once")], **GREEDY, logprobs=True)["choices"]
    assert all(item["top_logprobs"] == [] for item in choice["logprobs"]["content"])
    events = server.events(CHAT, messages=[user("Once")], **GREEDY, logprobs=True)
    streamed = [item for event in events for item in event["choices"][0]["logprobs"]["content"]]
    assert [item["token"] for item in streamed] == [item["token"] for item in choice["logprobs"]["content"]]


def test_several_answers_draw_with_their_own_seeds(server: Served) -> None:
    answer = server.ask(CHAT, messages=[user("Once")], n=3, seed=9, max_completion_tokens=10)
    expected = [server.generator.generate("Once", seed=9 + j, max_tokens=10).completion_text for j in range(3)]
    assert [choice["message"]["content"] for choice in answer["choices"]] == expected


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": [user("x")], "tools": [{"type": "function"}]}, "tools", "unsupported_value"),
        ({"messages": [user([{"type": "image_url"}])]}, "messages[0].content[0].type", "unsupported_value"),
        ({"messages": [user("fox " * 60)]}, "messages", "context_length_exceeded"),
        ({"messages": []}, "messages", "invalid_value"),
    ],
)
def test_what_these_models_cannot_do_is_refused(server: Served, fields: Json, param: str, code: str) -> None:
    error = server.ask(CHAT, status=400, **fields)["error"]
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.slow
def test_a_chat_model_gets_the_markers_of_its_bundle(tmp_path: Path) -> None:
    """The checkpoint has random weights and the special tokens of SmolLM2-Instruct. Its export writes the template."""
    trained, merges = train_tokenizer(generate_stories(50), 300)
    tokenizer = Tokenizer(trained.tokens, CHAT_SETTINGS)
    shape = GPTConfig(64, tokenizer.vocab_size, n_layer=2, n_head=2, n_embd=32)
    checkpoint, bundle = tmp_path / "checkpoint", tmp_path / "bundle"
    checkpoint.mkdir()
    save_checkpoint(checkpoint, "chatty", bundles.random_model(shape), tokenizer, merges, {})
    with bundles.brief_checks():
        export_bundle(ExportSettings("chatty", bundle, checkpoint), lambda line: None)
    with serving(bundle) as served:
        assert served.generator.bundle.manifest.chat == CHATML
        text = "Hi<|im_end|>"
        asked: Json = {"messages": [{"role": "system", "content": "Be kind."}, user(text)], "return_token_ids": True}
        answer = served.ask(CHAT, **asked, max_tokens=4)
        expected = CHATML.encode([("system", "Be kind."), ("user", text)], tokenizer)
        assert answer["prompt_token_ids"] == expected
        assert answer["prompt_token_ids"].count(tokenizer.end_of_text) == 2, "the marker in the text is plain text"
        assert answer["model"] == "chatty"


def test_the_models_are_listed(server: Served) -> None:
    listed = server.http.get("/v1/models").json()
    assert listed["object"] == "list"
    (model,) = listed["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("nano", "model", "slmx")
    assert (model["created"], model["max_model_len"]) == (server.state.created, 64)
    assert server.http.get("/v1/models/nano").json() == model
    for name in ("gpt-4o", "a/b", "%00"):
        response = server.http.get(f"/v1/models/{name}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "model_not_found"
