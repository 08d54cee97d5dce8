from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.serving import disturbances
from benchmarks.serving.client import Connection
from benchmarks.serving.load import Load, run_load
from benchmarks.serving.servers import Server, running, slmx_command
from benchmarks.studies import serving
from benchmarks.studies.figures import Figure, at_least, at_most, table
from runtimes.bundle.location import SHIPPED_BUNDLES
from slm.console.errors import SlmxError

NANO = SHIPPED_BUNDLES / "nano"
SHORT = {"max_tokens": 8, "temperature": 0, "prompt": "One day", "ignore_eos": True}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="it reads /proc, which only Linux has"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("slmx", slmx_command(NANO, "int8"), tmp_path_factory.mktemp("server")) as found:
        yield found


def test_an_answer_and_a_stream_have_the_same_tokens(server: Server) -> None:
    async def ask() -> None:
        async with await Connection.open(server.port) as connection:
            whole = await connection.complete(SHORT)
            usage = {"stream": True, "stream_options": {"include_usage": True}}
            streamed = await connection.complete(SHORT | usage)
            refused = await connection.complete(SHORT | {"max_tokens": 0.5})
        text = json.loads(whole.body)["choices"][0]["text"]
        events = [line for line in streamed.body.split(b"\n") if b'"text"' in line]
        pieces = [json.loads(b"{" + line.removeprefix(b"data: ").lstrip(b"{"))["choices"][0]["text"] for line in events]
        assert "".join(pieces) == text
        assert (whole.status, whole.tokens, streamed.tokens) == (200, 8, 8)
        assert streamed.first <= streamed.seconds
        assert (refused.status, refused.tokens) == (400, 0)

    asyncio.run(ask())


@pytest.mark.parametrize("stream", [False, True])
def test_load_counts_every_answer_and_the_work(server: Server, stream: bool) -> None:
    load = run_load(server, 4, 0.2, {"max_tokens": 8, "ignore_eos": True}, stream)
    assert set(load.statuses) == {200}
    assert load.tokens == 8 * load.statuses[200]
    assert len(load.first) == load.statuses[200] >= 4
    assert load.server_cpu > 0 < load.client_cpu


def test_a_client_that_leaves_frees_its_slot(server: Server) -> None:
    assert asyncio.run(disturbances.seconds_to_stop(server)) > 0
    assert asyncio.run(disturbances.loop_lag(server)) >= 0


def test_a_server_that_ends_is_one_line_with_its_reason(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no model here')"]
    with (
        pytest.raises(SlmxError, match="peer: it ended with exit code 1: no model here"),
        running("peer", command, tmp_path),
    ):
        pass


def test_a_server_that_is_missing_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(SlmxError, match="peer: cannot start no-such-server"),
        running("peer", ["no-such-server"], tmp_path),
    ):
        pass


@pytest.mark.heavy
def test_the_whole_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {
        "CLIENTS": 4,
        "TOKENS": 8,
        "STREAM_TOKENS": 8,
        "STREAMS": 1,
        "LEFT": 1,
        "CONNECTIONS": 50,
    }.items():
        monkeypatch.setattr(serving, name, value)
    out = tmp_path / "server.json"
    serving.main(NANO, "int8", rounds=1, seconds=0.2, out=out)
    record = json.loads(out.read_text("utf-8"))
    names = [figure["name"] for figure in record["figures"]]
    assert {"answers", "peak memory after these clients", "one client that streams / without a server"} <= set(names)
    assert next(figure for figure in record["figures"] if figure["name"] == "answers")["reached"]
    assert set(record["results"]["clients"]) == {"slmx, whole answers", "slmx, streams"}
    assert capsys.readouterr().out.count("\n") == len(names) + 2


def test_servers_that_refuse_every_request_are_figures_too() -> None:
    generator = SimpleNamespace(tokenizer=SimpleNamespace(end_of_text=0))
    study = serving.Study(generator, rounds=1, seconds=1.0)  # type: ignore[arg-type]
    refused = Load(seconds=1.0, statuses={503: 9})
    names = ("slmx, whole answers", "slmx, streams", "peer, whole answers")
    study._clients_figures([100.0], {name: [refused] for name in names})
    figures = {figure.name: figure for figure in study.figures}
    assert (figures["answers"].value, figures["answers"].reached) == ("18 of 503", False)
    assert figures["slmx / peer, whole answers"].value == "peer, whole answers wrote no story"


def test_table_of_figures() -> None:
    rows = [at_least("rate", 2.0, 1.5, "{:.1f}x"), at_most("memory", 9.0, 8.0, "{:.0f} MB"), Figure("seen", "3", "")]
    assert [row.reached for row in rows] == [True, False, None]
    assert table(rows).splitlines()[2:] == [
        "| rate | 2.0x | >= 1.5x | reached |",
        "| memory | 9 MB | <= 8 MB | NOT reached |",
        "| seen | 3 |  |  |",
    ]
