"""LangChain's own tests of chat models, and its class for completions, against a real server."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_openai", reason="needs the extra [suites]")
pytest.importorskip("langchain_tests", reason="needs the extra [suites]")

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI, OpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.suites.conftest import KEY

pytestmark = [pytest.mark.suites, pytest.mark.slow]

PROMPT = "Once upon a time"


class TestChatModel(ChatModelIntegrationTests):
    """The properties say what the models lack. LangChain skips the tests of these."""

    @pytest.fixture(autouse=True)
    def of_server(self, server: str) -> None:
        self.address = f"{server}/v1"

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        found: type[BaseChatModel] = ChatOpenAI
        return found

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "nano", "base_url": self.address, "api_key": KEY, "max_tokens": 30, "stream_usage": True}

    @property
    def has_tool_calling(self) -> bool:
        """The server refuses tools: models of stories call none."""
        return False

    @property
    def has_structured_output(self) -> bool:
        """The server refuses a `response_format` other than text: nothing makes the model write JSON."""
        return False

    @property
    def supports_model_override(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "nano"


@pytest.fixture
def completions(server: str) -> OpenAI:
    return OpenAI(model="nano", base_url=f"{server}/v1", api_key=KEY, max_tokens=12, temperature=0, max_retries=0)


def test_completions_in_one_piece_and_in_a_stream(completions: OpenAI) -> None:
    whole = completions.invoke(PROMPT)
    assert len(whole) > 10
    parts = list(completions.stream(PROMPT))
    assert "".join(parts) == whole
    assert completions.batch([PROMPT, "One day"])[0] == whole


async def test_completions_from_an_event_loop(completions: OpenAI) -> None:
    whole = await completions.ainvoke(PROMPT)
    assert "".join([part async for part in completions.astream(PROMPT)]) == whole
    assert await completions.abatch([PROMPT] * 4) == [whole] * 4


def test_the_tokens_of_completions_are_counted(completions: OpenAI) -> None:
    found = completions.generate([PROMPT, "One day"], stop=["."])
    assert len(found.generations) == 2
    assert found.llm_output is not None
    usage = found.llm_output["token_usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert not any("." in generation[0].text for generation in found.generations)
