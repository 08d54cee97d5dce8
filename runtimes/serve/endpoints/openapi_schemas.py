"""JSON schemas of the answers. openapi.py puts them into one document."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
REASONS = ["stop", "length", None]
DETAILS = [
    *("end of text", "stop string", "stop token", "max tokens", "context full"),
    *("rules that forbid every token", "interrupted", None),
]


def listed(items: Schema) -> Schema:
    """Returns the schema of a list."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """Returns a schema that also accepts null."""
    return {"anyOf": [schema, {"type": "null"}]}


def an_object(properties: dict[str, Schema], *optional: str) -> Schema:
    """Returns the schema of an object. Its properties are required, except the optional ones."""
    return {"type": "object", "properties": properties, "required": [key for key in properties if key not in optional]}


def ref(name: str) -> Schema:
    """Returns a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


TOKEN_IDS = nullable(listed(COUNT))
ENDING: dict[str, Schema] = {
    "finish_reason": {"enum": REASONS, "description": "Null until the end."},
    "finish_detail": {"enum": DETAILS, "description": "The exact reason. interrupted: the server stopped meanwhile."},
    "stop_reason": {"type": ["string", "null"], "description": "The stop string that was written."},
}
HEAD: dict[str, Schema] = {
    "id": TEXT,
    "created": COUNT,
    "model": TEXT,
    "system_fingerprint": TEXT | {"description": "Identifies the model: slmx- and a part of its manifest's SHA-256."},
    "seed": COUNT | {"description": "The seed of the first story; the same seed gives the same stories."},
}
SCORED = {"token": TEXT, "logprob": NUMBER, "bytes": listed(COUNT)}


def _answer(name: str, choice: Schema, is_event: bool = False) -> Schema:
    usage = nullable(ref("Usage")) if is_event else ref("Usage")
    ids = {"prompt_token_ids": TOKEN_IDS} if name.startswith("chat") else {}
    properties = {**HEAD, "object": {"const": name}, "choices": listed(choice), "usage": usage, **ids}
    return an_object(properties, "prompt_token_ids", *(["usage"] if is_event else []))


def _completion_choice() -> Schema:
    ids = {"prompt_token_ids": TOKEN_IDS, "token_ids": TOKEN_IDS}
    logprobs = nullable(ref("CompletionLogprobs"))
    return an_object({"index": COUNT, "text": TEXT, "logprobs": logprobs, **ENDING, **ids}, *ids)


def _chat_choice(**content: Schema) -> Schema:
    logprobs = nullable(ref("ChatLogprobs"))
    return an_object({"index": COUNT, **content, "logprobs": logprobs, **ENDING, "token_ids": TOKEN_IDS}, "token_ids")


MESSAGE = an_object(
    {
        "role": {"const": "assistant"},
        "content": TEXT,
        "refusal": {"type": "null"},
        "annotations": {"type": "array", "maxItems": 0},
    }
)
MODEL = an_object(
    {
        **{"id": TEXT, "object": {"const": "model"}, "created": COUNT, "owned_by": TEXT, "variant": TEXT},
        **{"max_model_len": COUNT | {"description": "Tokens of the context."}, "parameters": COUNT},
        "system_fingerprint": TEXT,
    }
)
SCHEMAS: dict[str, Schema] = {
    "Error": an_object(
        {
            "error": an_object(
                {
                    "message": TEXT,
                    "type": TEXT,
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                }
            )
        }
    ),
    "Usage": an_object(
        {
            "prompt_tokens": COUNT,
            "completion_tokens": COUNT,
            "total_tokens": COUNT,
            "prompt_tokens_details": an_object({"cached_tokens": COUNT}),
        }
    ),
    "CompletionLogprobs": an_object(
        {
            "tokens": listed(TEXT),
            "token_logprobs": listed({"type": ["number", "null"]}),
            "top_logprobs": listed(nullable({"type": "object", "additionalProperties": NUMBER})),
            "text_offset": listed(COUNT),
        }
    ),
    "ChatLogprobs": an_object(
        {
            "content": listed(an_object({**SCORED, "top_logprobs": listed(an_object(SCORED))})),
            "refusal": {"type": "null"},
        }
    ),
    "Completion": _answer("text_completion", _completion_choice()),
    "CompletionEvent": _answer("text_completion", _completion_choice(), is_event=True),
    "ChatCompletion": _answer("chat.completion", _chat_choice(message=MESSAGE)),
    "ChatCompletionEvent": _answer(
        "chat.completion.chunk",
        _chat_choice(delta=an_object({"role": {"const": "assistant"}, "content": TEXT}, "role", "content")),
        is_event=True,
    ),
    "Health": an_object({"status": {"enum": ["ok", "stopping", "failed"]}, "models": listed(TEXT)}, "models"),
    "Model": MODEL,
    "Models": an_object({"object": {"const": "list"}, "data": listed(ref("Model"))}),
}
