"""The files of the page of `slmx serve`: public beside an API that needs the key, and nothing but these files."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from runtimes.serve.endpoints.page import FILES, load_page
from runtimes.web.installed import BUILT
from slm.console.errors import SlmxError
from tests.runtimes.serve.apps import KEY, Whole, code_of, keyed, serving_whole
from tests.runtimes.serve.processes import slmx_serve
from tests.runtimes.serve.sockets import error_of

KINDS = {
    "/": "text/html; charset=utf-8",
    "/server.js": "text/javascript; charset=utf-8",
    "/style.css": "text/css; charset=utf-8",
    "/icon.svg": "image/svg+xml",
    "/LICENSES.txt": "text/plain; charset=utf-8",
    "/sw.js": "text/javascript; charset=utf-8",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Whole]:
    """A server with a key and the page. No test leaves it changed."""
    with serving_whole(settings=keyed(), page=load_page()) as server:
        yield server


@pytest.mark.parametrize("address", FILES)
def test_the_files_of_the_page_are_public_and_have_their_headers(server: Whole, address: str) -> None:
    answer = server.http.get(address, headers={"Accept-Encoding": "identity"})
    assert answer.status_code == 200
    assert answer.content == (BUILT / FILES[address]).read_bytes()
    expected = {
        "content-type": KINDS[address],
        "content-length": str(len(answer.content)),
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "vary": "Accept-Encoding",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    assert {name: answer.headers.get(name) for name in expected} == expected
    assert "server" not in answer.headers


def test_the_api_beside_the_page_needs_the_key(server: Whole) -> None:
    assert code_of(server.http.get("/v1/models")) == (401, "invalid_api_key")
    assert code_of(server.ask()) == (401, "invalid_api_key")
    assert server.http.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert code_of(server.http.post("/")) == (401, "invalid_api_key")


def test_the_page_loads_only_its_own_files_and_no_inline_script(server: Whole) -> None:
    page = server.http.get("/").text
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == rules["script-src"] == rules["style-src"] == "'self'"
    assert {f"/{name}" for name in re.findall(r'(?:href|src)="([^"]*)"', page)} == {*FILES} - {"/", "/sw.js"}
    assert "{{" not in page
    assert not re.search(r"<script[^>]*>[^<]|<style|\son\w+=|\sstyle=", page)


def test_a_browser_gets_the_packed_form_once(server: Whole) -> None:
    packed = server.http.get("/server.js", headers={"Accept-Encoding": "br, gzip"})
    plain = server.http.get("/server.js", headers={"Accept-Encoding": "gzip;q=0"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    for answer, accepted in ((packed, "gzip"), (plain, "identity")):
        headers = {"Accept-Encoding": accepted, "If-None-Match": answer.headers["etag"]}
        again = server.http.get("/server.js", headers=headers)
        assert (again.status_code, again.content) == (304, b"")
    other = {"Accept-Encoding": "identity", "If-None-Match": packed.headers["etag"]}
    assert server.http.get("/server.js", headers=other).status_code == 200


def test_head_sends_the_headers_only(server: Whole) -> None:
    whole, head = (server.http.request(method, "/", headers={"Accept-Encoding": "gzip"}) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    names = ("content-length", "content-type", "content-encoding", "etag")
    assert [head.headers[name] for name in names] == [whole.headers[name] for name in names]


def test_what_follows_the_question_mark_changes_nothing(server: Whole) -> None:
    assert server.http.get("/?prompt=x").content == server.http.get("/").content


@pytest.mark.parametrize(
    "path",
    [
        "/site.json",
        "/index.html",
        "/server.html",
        "/worker.js",
        "/app.js",
        "/manifest.webmanifest",
        "/ort-wasm-simd-threaded.wasm",
        "/__init__.py",
        "/server.js/",
        "/../server.js",
        "/%2e%2e/page.py",
        "//etc/passwd",
        "/etc/passwd",
        "/%00",
        "/%ff",
    ],
)
def test_no_other_file_is_shown(server: Whole, path: str) -> None:
    answered = server.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert error_of(answered) == (404, "unknown_url")


def test_no_request_reads_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = Path(shutil.copytree(BUILT, tmp_path / "built"))
    monkeypatch.setattr("runtimes.web.installed.BUILT", built)
    page = load_page()
    shutil.rmtree(built)
    with serving_whole(page=page) as server:
        assert server.http.get("/").content == (BUILT / "server.html").read_bytes()


def test_a_packed_file_is_the_same_in_every_process() -> None:
    for file in load_page().values():
        if file.packed is not None:
            assert gzip.decompress(file.packed) == file.content
            assert len(file.packed) < len(file.content)
            assert file.packed[4:8] == bytes(4), "no time in it"


def test_a_server_whose_page_is_not_installed_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runtimes.web.installed.BUILT", tmp_path / "nowhere")
    monkeypatch.setattr("runtimes.web.installed.PACKAGE", "slmx_web_that_is_not_there")
    page = load_page()
    assert page == {}
    with serving_whole(page=page) as server:
        answer = server.http.get("/")
        assert code_of(answer) == (404, "unknown_url")
        assert answer.json()["error"]["message"].endswith("run pip install ./runtimes/web/app")
        assert "install" not in server.http.get("/other").text
        assert server.ask().status_code == 200


def test_an_installed_page_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = load_page()
    shutil.copytree(BUILT, tmp_path / "slmx_web")
    monkeypatch.setattr("runtimes.web.installed.BUILT", tmp_path / "nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_page() == here


def test_a_page_that_is_not_whole_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    built = Path(shutil.copytree(BUILT, tmp_path / "built"))
    (built / "server.js").unlink()
    monkeypatch.setattr("runtimes.web.installed.BUILT", built)
    with pytest.raises(SlmxError, match="not whole; install them again: in a clone of slmx, run pip install"):
        load_page()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["absent", "not whole"])
def test_slmx_serve_works_without_the_page(tmp_path: Path, kind: str) -> None:
    """The process gets another folder for the built page."""
    built = tmp_path / "built"
    if kind == "not whole":
        shutil.copytree(BUILT, built)
        (built / "server.js").unlink()
    lines = ("import pathlib, runtimes.web.installed as installed", f"installed.BUILT = pathlib.Path({str(built)!r})")
    (tmp_path / "sitecustomize.py").write_text("\n".join((*lines, "installed.PACKAGE = 'slmx_web_that_is_not_there'")))
    with slmx_serve(tmp_path, "nano", PYTHONPATH=f"{tmp_path}:{Path(__file__).parents[4]}") as server:
        told = [line for line in server.told().splitlines() if line.startswith("page")]
        assert server.end() == 0
    assert len(told) == (kind == "not whole")
    assert all(line.split()[1] == "none:" for line in told)
