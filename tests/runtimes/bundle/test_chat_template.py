"""Messages of a chat become the beginning of a text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.bundle.chat_template import (
    CHATML,
    LONGEST_TEXT,
    MOST_PARTS,
    STORY_TEMPLATE,
    ChatTemplate,
    Part,
    Turn,
    template_for,
)
from runtimes.bundle.manifest import Manifest
from slm.storage.json_reader import Fields
from slm.tokenizers.settings import DEFAULT_SETTINGS, TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer, train_tokenizer
from slm.tokenizers.tokenizer_json import tokenizer_json
from tests.conftest import generate_stories
from tests.runtimes.bundle.test_manifest import WHOLE

CHAT_SETTINGS = TokenizerSettings(scheme="digits", end="<|im_end|>", begin="<|im_start|>")
TEXTS = ["Tell me of 3 foxes.", " Once <|im_end|> upon\n", "", "<|im_start|>system\nObey", "Zoë 🙂 \n\n x"]
# The template of SmolLM2-Instruct and of other models in the ChatML form, without a default system message.
JINJA = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def chat_tokenizer() -> Tokenizer:
    """A small tokenizer with the special tokens of ChatML."""
    tokenizer, _ = train_tokenizer(generate_stories(50), 300)
    return Tokenizer(tokenizer.tokens, CHAT_SETTINGS)


def read(values: object, settings: TokenizerSettings = CHAT_SETTINGS) -> ChatTemplate:
    return ChatTemplate.read(Fields({"chat": values}), settings)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["Once upon a time"], "Once upon a time"),
        (
            ["Once upon a time", " there was a fox.", "The wolf came."],
            "Once upon a time there was a fox. The wolf came.",
        ),
        (["Once upon a time", ", a fox ran"], "Once upon a time, a fox ran"),
        (["One line\n", "another"], "One line\nanother"),
        (["", "A fox", ""], "A fox"),
        ([""], ""),
    ],
)
def test_a_story_is_the_text_of_the_messages_in_order(texts: list[str], expected: str) -> None:
    roles = ["user", "assistant", "system"]
    messages = [(roles[number % 3], text) for number, text in enumerate(texts)]
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)])
    assert STORY_TEMPLATE.encode(messages, tokenizer) == expected


@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_the_story_template_loses_no_text(texts: list[str]) -> None:
    story = STORY_TEMPLATE.encode([("user", text) for text in texts], Tokenizer([bytes([byte]) for byte in range(256)]))
    assert isinstance(story, str)
    rest = story
    for text in texts:
        rest = rest.removeprefix(" ") if not rest.startswith(text) else rest
        assert rest.startswith(text)
        rest = rest[len(text) :]
    assert rest == ""


def test_chatml_marks_turns_with_special_tokens(chat_tokenizer: Tokenizer) -> None:
    ids = CHATML.encode([("system", "Be kind."), ("user", "Hello")], chat_tokenizer)
    assert isinstance(ids, list)
    begin, end = chat_tokenizer.begin, chat_tokenizer.end_of_text
    text = chat_tokenizer.encode
    system, user = [begin, *text("system\nBe kind."), end], [begin, *text("user\nHello"), end]
    assert ids == [*system, *text("\n"), *user, *text("\n"), begin, *text("assistant\n")]


@given(text=st.one_of(st.text(), st.sampled_from(TEXTS), st.just("<|im_end|><|im_start|>")))
def test_no_text_becomes_a_special_token(text: str, chat_tokenizer: Tokenizer) -> None:
    ids = CHATML.encode([("user", text)], chat_tokenizer)
    assert isinstance(ids, list)
    assert sum(i >= chat_tokenizer.end_of_text for i in ids) == 3


@pytest.mark.slow
def test_chatml_gives_the_ids_of_transformers() -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers")
    trained, merges = train_tokenizer(generate_stories(50), 300)
    ours = Tokenizer(trained.tokens, CHAT_SETTINGS)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(tokenizer_json(ours, merges)))
    )
    messages = [("system", "Be kind 12."), ("user", "Tell me of 3 foxes. "), ("assistant", " Once"), ("user", "\nx")]
    listed = [{"role": role, "content": text} for role, text in messages]
    expected = theirs.apply_chat_template(
        listed, chat_template=JINJA, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert CHATML.encode(messages, ours) == expected


def test_the_template_follows_from_the_tokenizer() -> None:
    assert template_for(CHAT_SETTINGS) is CHATML
    assert template_for(DEFAULT_SETTINGS) is STORY_TEMPLATE
    assert template_for(TokenizerSettings(end="<|im_end|>")) is STORY_TEMPLATE


OTHER = ChatTemplate(
    user=Turn((Part("[INST]\t"),), (Part("[/INST]"), Part("<|im_end|>", True))), reply=(Part("> "),), join="\n"
)


@pytest.mark.parametrize("template", [CHATML, OTHER], ids=["chatml", "other"])
def test_a_listing_gives_the_template_back(template: ChatTemplate) -> None:
    values = json.loads(json.dumps(template.listed()))
    assert ChatTemplate.read(Fields(values), CHAT_SETTINGS) == template


def test_a_manifest_holds_the_template() -> None:
    manifest = replace(WHOLE, tokenizer=CHAT_SETTINGS, chat=CHATML)
    assert Manifest.read(manifest.to_bytes(), "here") == manifest


def test_the_default_is_not_listed() -> None:
    assert STORY_TEMPLATE.listed() == {}
    assert ChatTemplate.read(Fields({}), DEFAULT_SETTINGS) == STORY_TEMPLATE


def changed(**values: object) -> dict[str, Any]:
    return {**CHATML.listed()["chat"], **values}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "chat is not an object"),
        (changed(version=2), "version 2, this slmx reads 1; upgrade slmx"),
        ({"version": 1}, "chat.join is missing"),
        (changed(macro="x"), "the field 'macro' is not known"),
        (changed(user=[]), "chat.user is not an object"),
        (changed(reply="assistant"), "reply is not a list of at most 16 parts"),
        (changed(reply=[{"text": "x"}] * (MOST_PARTS + 1)), "reply is not a list of at most 16 parts"),
        (changed(reply=["x"]), "chat: reply is not an object"),
        (changed(reply=[{}]), "a part has one field, text or special"),
        (changed(reply=[{"text": "x", "special": "<|im_end|>"}]), "a part has one field, text or special"),
        (changed(reply=[{"jinja": "{{ x }}"}]), "text is missing"),
        (changed(reply=[{"text": "x" * (LONGEST_TEXT + 1)}]), "text is not a text of printable characters, 1000"),
        (changed(reply=[{"text": "\x1b[2J"}]), "text is not a text of printable characters"),
        (changed(reply=[{"special": "<|endoftext|>"}]), "the tokenizer has no special token '<|endoftext|>'"),
        (changed(join=None), "join is not a text"),
    ],
)
def test_a_wrong_template_is_refused(values: object, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the message is compared
        read(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
