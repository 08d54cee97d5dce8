from __future__ import annotations

import gzip
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage
from pathlib import Path

import brotli
import pytest

from runtimes.web.server import SiteServer, running, serve
from slm.console.errors import SlmxError
from tests.bundles import Slmx
from tests.runtimes.web.sites import NANO, real_site

WASM = "/ort-wasm-simd-threaded.wasm"
SLMX = [sys.executable, "-c", "from slm.cli import main; main()"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: HTTPMessage
    body: bytes


@pytest.fixture
def server() -> Iterator[SiteServer]:
    """A server of the real site."""
    with running(real_site()) as server:
        yield server


def ask(server: SiteServer, address: str, method: str = "GET", **headers: str) -> Answer:
    """Sends a request with the address exactly as it is."""
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    try:
        connection.putrequest(method, address, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/?from=a-link", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/ort-wasm-simd-threaded.js", "text/javascript; charset=utf-8"),
        (WASM, "application/wasm"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/manifest.webmanifest", "application/manifest+json"),
        ("/site.json", "application/json"),
        ("/LICENSES.txt", "text/plain; charset=utf-8"),
        ("/models/nano/README.md", "text/markdown; charset=utf-8"),
        ("/models/nano/onnx/model_int8.onnx", "application/octet-stream"),
    ],
)
def test_every_file_has_its_type_and_the_headers_of_an_isolated_page(
    server: SiteServer, address: str, kind: str
) -> None:
    answer = ask(server, address)
    assert answer.status == 200
    assert answer.body == (real_site() / (address.split("?")[0].lstrip("/") or "index.html")).read_bytes()
    expected = {
        "Content-Type": kind,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Vary": "Accept-Encoding",
        "X-Content-Type-Options": "nosniff",
    }
    assert {name: answer.headers[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("GZIP", "gzip"),
        ("gzip;q=0.5, br;q=0", "gzip"),
        ("br; q=0.0, gzip; q=0", None),
        ("br;q=0.000, gzip;Q=0.", None),
        ("br;q=0.001", "br"),
        ("identity", None),
        ("", None),
        ("brotli, x-gzip, ;;,q=", None),
    ],
)
def test_a_browser_gets_the_smallest_form_that_it_reads(server: SiteServer, accepted: str, coding: str | None) -> None:
    answer = ask(server, WASM, Accept_Encoding=accepted)
    assert answer.headers["Content-Encoding"] == coding
    assert answer.headers["Content-Type"] == "application/wasm"
    unpacked = {"br": brotli.decompress, "gzip": gzip.decompress, None: bytes}[coding](answer.body)
    assert unpacked == (real_site() / WASM[1:]).read_bytes()


def test_a_packed_copy_by_its_own_name_is_not_marked_as_encoded(server: SiteServer) -> None:
    answer = ask(server, f"{WASM}.gz", Accept_Encoding="gzip, br")
    assert (answer.headers["Content-Encoding"], answer.headers["Content-Type"]) == (None, "application/gzip")
    assert answer.body == (real_site() / f"{WASM[1:]}.gz").read_bytes()


def test_head_sends_the_headers_only(server: SiteServer) -> None:
    for accepted in ("", "br"):
        whole, head = (ask(server, WASM, method, Accept_Encoding=accepted) for method in ("GET", "HEAD"))
        assert head.status == 200
        assert head.body == b""
        shown = ("Content-Length", "Content-Type", "Content-Encoding", "ETag")
        assert [head.headers[name] for name in shown] == [whole.headers[name] for name in shown]


def test_an_unchanged_file_is_not_sent_again(server: SiteServer) -> None:
    tag = ask(server, WASM, Accept_Encoding="br").headers["ETag"]
    again = ask(server, WASM, Accept_Encoding="br", If_None_Match=tag)
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert ask(server, WASM, Accept_Encoding="gzip", If_None_Match=tag).status == 200


def test_several_requests_use_one_connection(server: SiteServer) -> None:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    for address, status in (("/", 200), ("/missing", 404), ("/app.js", 200)):
        connection.request("GET", address)
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, True)
    connection.close()


@pytest.mark.parametrize(
    "address",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/models/../../secret.txt",
        "/models/nano/..%5c..%5c..%5csecret.txt",
        "//secret.txt",
        "//etc/passwd",
        "/%00",
        "/app.js%00.html",
        "/app.js/",
        "/.hidden",
        "/C:/secret.txt",
        "/link.txt",
        "/models",
        "/models/",
        "/models/nano",
        "/é".encode().decode("latin-1"),
        "/%ff",
        "secret.txt",
        "http://127.0.0.1/app.js",
        "*",
        "/" + "a/" * 5000,
    ],
)
def test_nothing_outside_the_site_and_no_folder_is_shown(tmp_path: Path, address: str) -> None:
    site = tmp_path / "site"
    (site / "models" / "nano").mkdir(parents=True)
    for path in (tmp_path / "secret.txt", site / ".hidden"):
        path.write_text("secret")
    (site / "app.js").write_text("app")
    (site / "link.txt").symlink_to(tmp_path / "secret.txt")
    server = SiteServer(site, 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=30) as connection:
            connection.sendall(
                b"GET " + address.encode("latin-1") + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    finally:
        server.shutdown()
        server.server_close()
    assert answer.split(b" ", 2)[1] == b"404"
    assert b"secret" not in answer.split(b"\r\n\r\n", 1)[1]
    assert b"Content-Type: text/html" in answer, "the page for errors"


def test_other_methods_are_refused(server: SiteServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/", method).status == 501


def test_only_this_machine_can_connect(server: SiteServer) -> None:
    assert server.server_address[0] == "127.0.0.1"


def test_a_taken_port_is_skipped_or_refused() -> None:
    with SiteServer(real_site()) as first, SiteServer(real_site()) as second:
        ports = [server.server_address[1] for server in (first, second)]
        assert 8000 <= int(ports[0]) < int(ports[1])
        with pytest.raises(SlmxError, match=f"port {ports[0]}: another program uses it; choose another --port"):
            SiteServer(real_site(), int(ports[0]))


def test_a_browser_is_opened_only_where_a_person_sees_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("sys.platform", "linux")
    for terminal, display in ((False, ":0"), (True, ""), (True, ":0")):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        server = SiteServer(tmp_path, 0)
        monkeypatch.setattr(server, "serve_forever", lambda: None)
        serve(server, lambda line: None)
    assert opened == [server.url]


def test_options_that_need_each_other(slmx: Slmx) -> None:
    assert slmx.refuses("web", "--port", "8000", code=2) == "--port needs --serve"


def test_a_taken_port_is_one_line_before_any_work(slmx: Slmx) -> None:
    with SiteServer(real_site(), 0) as server:
        port = server.server_address[1]
        line = slmx.refuses_unchanged("web", "--serve", "--port", str(port))
    assert line == f"port {port}: another program uses it; choose another --port, or leave it out"


@pytest.mark.slow
@pytest.mark.parametrize("out", [True, False])
def test_serve_makes_the_site_and_ctrl_c_ends_it_quietly(tmp_path: Path, out: bool) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary"), "DISPLAY": ""}
    command = [*SLMX, "web", str(NANO), "--serve", "--port", str(port), *(["--out", "site"] if out else [])]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    while not lines or lines[-1] != f"http://127.0.0.1:{port}/\n":
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    assert (lines[0] == "site\n") == out
    while process.stderr.readline() != "Ctrl-C ends it\n":
        assert process.poll() is None
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/site.json")
    assert connection.getresponse().status == 200
    connection.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0
    assert process.stderr.read().strip() == ""
    assert (tmp_path / "site").is_dir() == out
    assert not list((tmp_path / "temporary").iterdir())
