"""Bodies of requests that are no requests."""

from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="needs the extra [serve]")

from tests.runtimes.serve.servers import Served

JSON = {"Content-Type": "application/json"}
SEED = f"a whole number from 0 to {2**63 - 1}"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON that can be read: Expecting value"),
        (b"{", "the body is not JSON that can be read: "),
        (b'{"prompt": "x", "seed": NaN}', "NaN is no number"),
        (b'{"prompt": "x", "seed": 1e999}', "seed must be a whole number"),
        (b'{"prompt": "x", "temperature": Infinity}', "Infinity is no number"),
        (b'{"prompt": "x", "temperature": 1e999}', "temperature must be a number from 0 to 100"),
        (
            b'{"prompt": "x", "seed": 1' + b"0" * 5000 + b"}",
            f"seed must be {SEED}, not a number of more than 300 digits",
        ),
        (
            b'{"prompt": "x", "seed": -1' + b"0" * 2000 + b"}",
            f"seed must be {SEED}, not a number of more than 300 digits",
        ),
        (b'{"prompt": "x", "seed": 1, "seed": 2}', "the key 'seed' is there twice"),
        (b'{"prompt": "\xff"}', "the body is not JSON that can be read: 'utf-8' codec can't decode"),
        (b'{"prompt": "\\ud800"}', "half of a surrogate pair"),
        (b'{"prompt": "\\u0000"}', "NUL character"),
        (b"[" * 100_000, "more than 16 levels of brackets"),
        (b'["prompt"]', "the request must be a JSON object, not a list of 1"),
        (b"null", "the request must be a JSON object, not null"),
        (b'"x"', "the request must be a JSON object, not 'x'"),
        (b'{"\\ud800": 1}', "unknown field '\\ud800'"),
        (b" " * 100_000 + b"}", "the body is not JSON that can be read: "),
    ],
)
def test_a_body_that_is_no_request_is_refused(server: Served, path: str, body: bytes, message: str) -> None:
    if "chat" in path:
        body = body.replace(b'"prompt": "x"', b'"messages": [{"role": "user", "content": "x"}]')
        body = body.replace(b'"prompt": "\\u', b'"messages": [{"role": "user", "content": "x"}], "user": "\\u')
    response = server.http.post(path, content=body, headers=JSON)
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] != "the request"
    assert "set_int_max_str_digits" not in error["message"]


def test_a_compressed_body_is_refused_by_name(server: Served) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    response = server.http.post("/v1/completions", content=b"\x1f\x8b", headers=headers)
    assert response.status_code == 415
    assert "Content-Encoding" in response.json()["error"]["message"]
    headers["Content-Encoding"] = "identity"
    body = b'{"prompt": "x", "max_tokens": 1}'
    assert server.http.post("/v1/completions", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_must_say_that_it_is_json(server: Served, kind: str | None) -> None:
    """A page of another site can send other kinds without the browser's asking first."""
    headers = {"Content-Type": kind} if kind else {}
    response = server.http.post("/v1/completions", content=b'{"prompt": "x"}', headers=headers)
    assert response.status_code == 415
    assert response.json()["error"]["code"] == "unsupported_media_type"
    assert "Content-Type: application/json" in response.json()["error"]["message"]


def test_the_kind_of_the_body_may_have_a_charset_and_a_byte_order_mark(server: Served) -> None:
    body = b'\xef\xbb\xbf{"prompt": "x", "max_tokens": 1}'
    kind = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert server.http.post("/v1/completions", content=body, headers=kind).status_code == 200


def test_a_large_body_is_read_outside_the_event_loop(server: Served) -> None:
    ids = server.generator.tokenize("Once upon a time")
    answer = server.ask(prompt=ids, metadata={"x": "y" * 200_000}, temperature=0, max_tokens=3)
    assert answer["choices"][0]["text"] == server.ask(prompt=ids, temperature=0, max_tokens=3)["choices"][0]["text"]
