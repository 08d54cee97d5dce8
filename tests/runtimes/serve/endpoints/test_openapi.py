"""The description of the server is that of its answers."""

from __future__ import annotations

from types import ModuleType

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from runtimes.serve.middleware.settings import ServeSettings
from tests.runtimes.serve.apps import KEY, keyed, serving_whole
from tests.runtimes.serve.servers import Json, Served

TEXT = {"prompt": "Once"}
CHAT = {"messages": [{"role": "user", "content": "Once"}]}
ASKED: list[tuple[str, str, Json]] = [
    ("/v1/completions", "Completion", TEXT),
    ("/v1/completions", "Completion", {**TEXT, "logprobs": 2, "echo": True, "return_token_ids": True, "n": 2}),
    ("/v1/completions", "Completion", {**TEXT, "logprobs": 2, "echo": True, "max_tokens": 0}),
    ("/v1/chat/completions", "ChatCompletion", CHAT),
    ("/v1/chat/completions", "ChatCompletion", {**CHAT, "logprobs": True, "top_logprobs": 2, "return_token_ids": True}),
]


@pytest.fixture(scope="module")
def description(server: Served) -> Json:
    found: Json = server.http.get("/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def jsonschema() -> ModuleType:
    found: ModuleType = pytest.importorskip("jsonschema", reason="needs the package jsonschema")
    return found


def check(jsonschema: ModuleType, description: Json, name: str, value: object) -> None:
    """Compares a value with a schema of the description."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize(("path", "name", "fields"), ASKED)
def test_answers_and_events_have_their_schemas(
    jsonschema: ModuleType,
    server: Served,
    description: Json,
    path: str,
    name: str,
    fields: Json,
) -> None:
    check(jsonschema, description, f"{name}Request", fields)
    check(jsonschema, description, name, server.ask(path, **fields))
    events = server.events(path, **fields, stream_options={"include_usage": True})
    for event in events:
        check(jsonschema, description, f"{name}Event", event)
    assert len(events) > 1


def test_models_and_errors_have_their_schemas(jsonschema: ModuleType, server: Served, description: Json) -> None:
    check(jsonschema, description, "Models", server.http.get("/v1/models").json())
    check(jsonschema, description, "Model", server.http.get("/v1/models/nano").json())
    check(jsonschema, description, "Error", server.ask(status=400))


def test_every_schema_is_one_and_every_reference_leads_to_one(jsonschema: ModuleType, description: Json) -> None:
    schemas = description["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)

    def references(value: object) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if "$ref" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert {name.rpartition("/")[2] for name in references(description)} <= set(schemas)
    assert description["openapi"] == "3.1.0"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_stream_and_every_error_are_described(description: Json, path: str) -> None:
    responses = description["paths"][path]["post"]["responses"]
    assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"400", "401", "404", "408", "413", "415", "429", "500", "503"} <= set(responses)
    for status, response in responses.items():
        if status != "200":
            assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_the_bounds_and_the_models_are_part_of_the_description(server: Served, description: Json) -> None:
    fields = description["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["n"]["maximum"] == server.state.bounds.n
    assert fields["model"]["enum"] == ["nano", None]


@pytest.mark.parametrize(("settings", "expected"), [(None, [{"key": []}, {}]), (keyed(), [{"key": []}])])
def test_the_description_says_whether_a_key_is_needed(settings: ServeSettings | None, expected: list[Json]) -> None:
    with serving_whole(settings=settings) as server:
        found = server.http.get("/openapi.json", headers={"Authorization": f"Bearer {KEY}"}).json()
    assert found["security"] == expected
    assert found["paths"]["/healthz"]["get"]["security"] == []
