from __future__ import annotations

import hmac
from collections.abc import Iterator

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.middleware.access import Hosts, Keys, hosts_for, read_keys, read_origins
from runtimes.serve.middleware.settings import ServeSettings
from slm.console.errors import UsageError
from tests.runtimes.serve.apps import KEY, LOCAL, Whole, code_of, keyed, serving_whole
from tests.runtimes.serve.sockets import error_of, status_of

API = ("/v1/models", "/v1/models/nano", "/v1/nothing", "/v1", "/metrics", "/openapi.json")
ORIGIN = "https://stories.example"


@pytest.fixture(scope="module")
def server() -> Iterator[Whole]:
    """A server without a key."""
    with serving_whole() as server:
        yield server


@pytest.fixture(scope="module")
def locked() -> Iterator[Whole]:
    """A server with a key."""
    with serving_whole(settings=keyed(origins=(ORIGIN,))) as server:
        yield server


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# The key


@pytest.mark.parametrize("path", API)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "DELETE"])
def test_every_path_of_the_api_needs_the_key(locked: Whole, path: str, method: str) -> None:
    for headers in ({}, bearer("wrong"), bearer(KEY[:-1]), bearer(f"{KEY}x"), {"Authorization": f"Basic {KEY}"}):
        response = locked.http.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert code_of(response) == (401, "invalid_api_key")
            assert KEY not in response.text
    assert locked.http.request(method, path, headers=bearer(KEY)).status_code != 401


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/anything", "/"])
def test_whatever_is_sent_needs_the_key(locked: Whole, path: str) -> None:
    assert code_of(locked.http.post(path, json={})) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    "path", ["/v1%2fmodels", "//v1/models", "/V1/models", "/v1/../v1/models", "/metrics/", "/%6detrics"]
)
def test_other_spellings_of_a_path_show_nothing_without_the_key(locked: Whole, path: str) -> None:
    answered = locked.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status_of(answered) in (401, 404)


def test_the_state_of_the_server_is_public_and_the_rest_is_404(locked: Whole) -> None:
    assert locked.http.get("/healthz").json() == {"status": "ok"}
    assert code_of(locked.http.get("/")) == (404, "unknown_url")
    assert code_of(locked.http.get("/secret.txt")) == (404, "unknown_url")


def test_the_name_of_the_scheme_may_have_any_case(locked: Whole) -> None:
    assert locked.http.get("/v1/models", headers={"Authorization": f"bearer  {KEY}"}).status_code == 200


def test_keys_are_compared_in_constant_time_and_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return given == known

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = Keys(["first-key", "second-key"])
    assert keys.check(b"Bearer first-key")
    assert keys.check(b"Bearer second-key")
    assert keys.check(b"Bearer \xff\x00") is None
    assert keys.check(b"first-key") is None
    assert len(compared) == 8
    assert {len(part) for pair in compared for part in pair} == {32}, "lengths would tell the length of a key"


def test_several_keys_are_several_clients() -> None:
    keys = read_keys("KEYS", "first-key, second-key")
    assert keys.check(b"Bearer first-key") != keys.check(b"Bearer second-key")
    assert not read_keys("KEYS", None)


@pytest.mark.parametrize("value", ["", "short", "with space", "first-key,", "ключ-ключ", "line\nbreak-key", "k" * 513])
def test_keys_that_no_header_can_hold_are_refused(value: str) -> None:
    with pytest.raises(UsageError, match="the key in KEYS must have"):
        read_keys("KEYS", value)


# The Host header


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.8.8.8:80", "[::1]:8000", "localhost."])
def test_names_of_this_machine_are_served(server: Whole, host: str) -> None:
    assert server.http.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "user@localhost"),
        *(
            "10.0.0.1",
            "169.254.169.254",
            "[::2]",
            "0.0.0.0",
            "2130706433",
            "localhost/",
            "",
            "[::1",
            "a b",
            "localhost:x",
        ),
    ],
)
def test_a_page_that_rebinds_its_name_to_this_machine_gets_403(server: Whole, host: str) -> None:
    for path in ("/v1/models", "/healthz", "/", "/metrics"):
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert error_of(server.send(request.encode())) == (403, "wrong_host")


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: localhost\r\n"])
def test_a_request_has_one_header_host(server: Whole, hosts: str) -> None:
    answered = server.send(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
    assert error_of(answered) == (400, "invalid_host")


def test_the_names_of_a_server() -> None:
    local = hosts_for("localhost", "127.0.0.1", "pi", ["Stories.Example"])
    assert all(map(local.allow, ("localhost", "127.0.0.1:9", "stories.example")))
    assert not any(map(local.allow, ("pi", "192.168.1.5", "example")))
    everywhere = hosts_for("0.0.0.0", "0.0.0.0", "Pi", [])
    assert all(map(everywhere.allow, ("pi", "pi.local:8000", "192.168.1.5:8000", "[fe80::1]:1", "localhost")))
    assert not any(map(everywhere.allow, ("evil.example", "pi.evil.example")))
    named = hosts_for("stories.lan", "192.168.1.5", "pi", [])
    assert named.allow("stories.lan:80")
    assert Hosts(frozenset()).allow("[::1]")


@pytest.mark.parametrize("name", ["https://a.example", "a.example:80", "a/b", "", "*"])
def test_other_hosts_must_be_names(name: str) -> None:
    with pytest.raises(UsageError, match="--allow-host"):
        hosts_for("localhost", "127.0.0.1", "pi", [name])


# Pages of other origins


def test_no_other_page_may_ask_by_default(server: Whole) -> None:
    for origin in (ORIGIN, "null", server.url):
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        for response in (
            server.http.options("/v1/completions", headers=preflight),
            server.http.get("/v1/models", headers={"Origin": origin}),
        ):
            assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_listed_origin_may_ask(locked: Whole) -> None:
    wanted = "authorization, content-type, x-stainless-os"
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    preflight = locked.http.options("/v1/completions", headers=headers)
    assert preflight.status_code == 200, "a preflight has no key"
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == wanted
    for given in (bearer(KEY), bearer("wrong")):
        response = locked.http.get("/v1/models", headers={"Origin": ORIGIN, **given})
        assert response.headers["access-control-allow-origin"] == ORIGIN, "a page can read errors too"
        assert "origin" in response.headers["vary"].lower()
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("origin", ["https://evil.example", f"{ORIGIN}.evil.example", f"{ORIGIN}:444", "null", "*"])
def test_an_origin_that_is_not_listed_is_never_reflected(locked: Whole, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in locked.http.options("/v1/completions", headers=headers).headers
    response = locked.http.get("/v1/models", headers={"Origin": origin, **bearer(KEY)})
    assert "access-control-allow-origin" not in response.headers


def test_a_refused_preflight_has_the_shape_of_errors(locked: Whole) -> None:
    ask = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert code_of(locked.http.options("/v1/completions", headers=ask)) == (400, "cors_refused")
    ask = {"Origin": ORIGIN, "Access-Control-Request-Method": "DELETE"}
    refused = locked.http.options("/v1/completions", headers=ask)
    assert code_of(refused) == (400, "cors_refused")
    assert "(method)" in refused.json()["error"]["message"]


def test_a_preflight_to_another_name_is_refused(locked: Whole) -> None:
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Host": "evil.com"}
    response = locked.http.options("/v1/completions", headers=headers)
    assert code_of(response) == (403, "wrong_host")
    assert "access-control-allow-origin" not in response.headers


def test_a_page_cannot_post_what_needs_no_preflight(server: Whole) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        response = server.http.post("/v1/completions", content=b'{"prompt":"a"}', headers={"Content-Type": kind})
        assert response.status_code == 415


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "stories.example", f"{ORIGIN}/", f"{ORIGIN}/page", "HTTPS://A.example", "ftp://a", "https://"],
)
def test_origins_must_be_exact(origin: str) -> None:
    with pytest.raises(UsageError, match="--cors"):
        read_origins([origin])


def test_exact_origins_are_taken() -> None:
    found = (ORIGIN, "http://localhost:3000", "http://[::1]:3000")
    assert read_origins(found) == found


# What every answer has


def test_every_answer_has_an_id_and_headers_that_protect_it(server: Whole) -> None:
    ids = set()
    for response in (
        server.http.get("/v1/models"),
        server.http.get("/nothing"),
        server.http.delete("/v1/models"),
        server.http.get("/v1/models", headers={"Host": "evil.example"}),
        server.ask(prompt=5),
        server.ask(),
    ):
        ids.add(response.headers["x-request-id"])
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "server" not in response.headers
    assert len(ids) == 6


def test_a_stream_is_no_store_too(server: Whole) -> None:
    with server.http.stream("POST", "/v1/completions", json={"prompt": "a", "max_tokens": 2, "stream": True}) as answer:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "[DONE]" in answer.read().decode()


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/v1/nothing", (404, "unknown_url")),
        ("POST", "/nothing", (404, "unknown_url")),
        ("GET", "/v1/models/", (404, "model_not_found")),
        ("GET", "/v1/models/other", (404, "model_not_found")),
        ("GET", "/v1/completions", (405, "method_not_allowed")),
        ("PUT", "/v1/chat/completions", (405, "method_not_allowed")),
        ("POST", "/healthz", (405, "method_not_allowed")),
    ],
)
def test_unknown_paths_and_methods(server: Whole, method: str, path: str, expected: tuple[int, str]) -> None:
    response = server.http.request(method, path)
    assert code_of(response) == expected
    assert (expected[0] == 405) == ("allow" in response.headers)


def test_an_error_that_nothing_foresaw_is_500_without_its_text(
    server: Whole, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(server.scheduler, "figures", fail)
    response = server.http.get("/metrics")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert response.headers["x-request-id"] in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert "a secret" in caplog.text


def test_health_tells_of_a_model_that_ended(server: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(server.scheduler), "alive", False)
    response = server.http.get("/healthz")
    assert (response.status_code, response.json()) == (503, {"status": "failed", "models": ["nano"]})


# Who asks


def clients_of(server: Whole, *requests: dict[str, str]) -> list[str]:
    """The names of clients under which the scheduler gets stories."""
    found: list[str] = []
    submit = server.scheduler.submit

    def note(stories: object, client: str, *others: object) -> object:
        found.append(client)
        return submit(stories, client, *others)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.scheduler, "submit", note)
        for headers in requests:
            response = server.http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}, headers=headers)
            assert response.status_code == 200
    return found


def test_clients_differ_by_key() -> None:
    with serving_whole(settings=ServeSettings(LOCAL, Keys(["first-key", "second-key"]))) as server:
        first, again, second = clients_of(server, bearer("first-key"), bearer("first-key"), bearer("second-key"))
    assert first == again != second
    assert "first" not in first


def test_addresses_of_a_proxy_are_taken_only_if_asked_for() -> None:
    forwarded = [{"X-Forwarded-For": "10.0.0.1"}, {"X-Forwarded-For": "10.0.0.2"}]
    with serving_whole() as server:
        assert len(set(clients_of(server, *forwarded))) == 1
    with serving_whole(trust_proxy=True) as server:
        assert len(set(clients_of(server, *forwarded))) == 2
