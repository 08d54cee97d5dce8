from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")

from typer.core import TyperOption

from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.store import Bundle
from runtimes.serve.start import Listener, listen, model_name
from slm.cli import LazyGroup
from slm.console.errors import SlmxError
from tests.bundles import Slmx
from tests.runtimes.serve.apps import ENDLESS
from tests.runtimes.serve.processes import slmx_serve
from tests.waiting import wait_until

KEY = "a-key-of-the-tests"
DOCUMENTS = Path(__file__).resolve().parents[3] / "docs"
DOCUMENT = (DOCUMENTS / "server.md").read_text("utf-8")
FILES = (DOCUMENTS / "server" / "slmx.service", DOCUMENTS / "server" / "nginx.conf")
FULL_DEVICE = Path("/dev/full")
HAS_IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists() and Path("/proc/net/if_inet6").read_text() != ""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of keys are not set."""
    for name in ("SLMX_API_KEY", "OTHER_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.slow
def test_the_url_goes_to_stdout_and_the_rest_to_stderr(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "micro") as server:
        assert server.url.startswith("http://127.0.0.1:")
        models = httpx.get(f"{server.url}/v1/models").json()["data"]
        assert [model["id"] for model in models] == ["nano", "micro"]
        asked = {"model": "micro", "prompt": "Once", "max_tokens": 2}
        assert httpx.post(f"{server.url}/v1/completions", json=asked).json()["model"] == "micro"
        assert server.end() == 0
        assert server.process.stdout is not None
        assert server.process.stdout.read() == ""
        told = server.told().splitlines()
    assert told[0].split() == ["nano", "int8,", "8", "stories", "at", "the", "same", "time"]
    assert "for this machine only, with no key" in told[2]
    assert told[3].split() == ["page", f"{server.url}/", "in", "a", "browser"]
    assert "Ctrl-C" in told[4]


@pytest.mark.slow
def test_the_example_of_the_document_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    with slmx_serve(tmp_path, "nano") as server:
        exec(example.replace("http://127.0.0.1:8000", server.url), {})
    assert len(capsys.readouterr().out) > 100


def test_the_document_names_the_options_that_exist() -> None:
    existing = {name for option in command_options() for name in option.opts if name.startswith("--")}
    named = set(re.findall(r"`(--[a-z-]+)", DOCUMENT))
    assert named <= existing
    limits = {name for name in existing if name.startswith("--max") or name.endswith("-seconds")}
    assert limits <= named
    defaults = {option.opts[0]: option.default for option in command_options()}
    for name, told in re.findall(r"^\| `(--[a-z-]+)` \| (\d+(?: [KM]iB)?) \|", DOCUMENT, re.MULTILINE):
        number, _, unit = told.partition(" ")
        assert defaults[name] == int(number) * {"": 1, "KiB": 2**10, "MiB": 2**20}[unit], name
    lines = [line for file in FILES for line in file.read_text("utf-8").splitlines() if "slmx serve" in line]
    used = {name for line in lines for name in re.findall(r"--[a-z-]+", line)}
    assert used
    assert used <= existing


def command_options() -> list[TyperOption]:
    """The options of `slmx serve`."""
    command = LazyGroup().get_command(None, "serve")
    assert command is not None
    return [option for option in command.params if isinstance(option, TyperOption)]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_unit_leaves_little_to_attack() -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(FILES[0])]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    (exposure,) = re.findall(r"Overall exposure level for slmx.service: ([0-9.]+)", ran.stdout)
    assert float(exposure) <= 2.0


@pytest.mark.slow
def test_the_openai_client_writes_a_story(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "--api-key-env", "OTHER_KEY", OTHER_KEY=KEY) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
        story = client.completions.create(model="nano", prompt="Once upon a time", max_tokens=40, seed=1)
        again = client.completions.create(model="nano", prompt="Once upon a time", max_tokens=40, seed=1, stream=True)
        assert "".join(part.choices[0].text for part in again) == story.choices[0].text
        assert story.choices[0].text
        wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong")
        with pytest.raises(openai.AuthenticationError, match="this key is wrong"):
            wrong.models.list()
        assert KEY not in server.told()


@pytest.mark.slow
def test_the_log_has_a_json_object_on_each_line(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_BUNDLES / "nano", tmp_path / "bundles" / "nano")  # the default, which is told
    with slmx_serve(tmp_path, "--log-json", "--grace", "0") as server:
        httpx.get(f"{server.url}/v1/models")
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
            client.sendall(b"no request\r\n\r\n")
            assert b" 400 " in client.recv(100)
        with httpx.stream("POST", f"{server.url}/v1/completions", json={**ENDLESS, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert server.end() == 0
        records = [json.loads(line) for line in server.told().splitlines()]
    assert all(list(record)[:3] == ["time", "level", "event"] for record in records)
    assert all(record["level"] == "info" for record in records)
    events = [record["event"] for record in records if record.get("path") != "/healthz"]
    assert events == ["bundle", "started", "request", "request", "stopping", "request", "stopped"]
    assert records[0]["message"].startswith(f"bundle: {Path('bundles', 'nano')}, exported here")
    assert records[1]["models"] == {"nano": {"variant": "int8", "slots": 8}}
    refused = [record for record in records if record.get("outcome")]
    assert [(record["status"], record["outcome"]) for record in refused] == [(400, "invalid_http")]


@pytest.mark.slow
def test_a_second_signal_ends_the_server_at_once_with_a_last_record(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "--log-json") as server:
        with httpx.stream("POST", f"{server.url}/v1/completions", json={**ENDLESS, "stream": True}) as stream:
            lines = stream.iter_lines()
            next(lines)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: '"stopping"' in server.told())
            assert server.end() == 128 + signal.SIGTERM
        last = json.loads(server.told().splitlines()[-1])
    assert (last["event"], last["message"]) == ("stopped", "stopped at once by a second signal")


@pytest.mark.slow
@pytest.mark.skipif(not FULL_DEVICE.exists(), reason="this system has no /dev/full")
def test_a_full_standard_output_is_told_in_both_forms_of_the_log(tmp_path: Path) -> None:
    said = "standard output: No space left on device; free space there"
    for options in ([], ["--log-json"]):
        command = [sys.executable, "-m", "slm", "serve", "nano", "--port", "0", *options]
        with FULL_DEVICE.open("w") as full:
            ran = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        last = ran.stderr.splitlines()[-1]
        told = json.loads(last)["message"] if options else last.removeprefix("slmx: ")
        assert (ran.returncode, told[: len(said)]) == (1, said)


def test_what_cannot_be_served_is_a_record_of_the_log(slmx: Slmx) -> None:
    for name, code in (("missing", 1), ("nano", 2)):
        ran = slmx("serve", "nano", name, "--port", "0", "--log-json")
        (record,) = map(json.loads, ran.stderr.splitlines())
        assert (ran.code, ran.stdout, record["level"], record["event"]) == (code, "", "error", "failed")
        assert name in record["message"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--port", "x"), "--port: 'x' is not a valid "),
        (("--prot", "1"), "there is no option --prot (did you mean --port?)"),
        (("--max-batch", "0"), "--max-batch: 0 is not in the range"),
        (("--variant", "none"), "--variant: unknown variant 'none'"),
        (("--request-seconds", "nan"), "--request-seconds nan: give a number"),
    ],
)
def test_wrong_usage_is_a_record_of_the_log(slmx: Slmx, options: tuple[str, str], said: str) -> None:
    for words in ((*options, "--log-json"), ("--log-json", *options)):
        ran = slmx("serve", *words)
        (record,) = map(json.loads, ran.stderr.splitlines())
        assert (ran.code, ran.stdout, record["level"], record["event"]) == (2, "", "error", "failed")
        assert record["message"].startswith(said)
    assert slmx("serve", *options).stderr.startswith(f"slmx serve: {said}")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
def test_ipv6_works(tmp_path: Path) -> None:
    with slmx_serve(tmp_path, "nano", "--host", "::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/v1/models").status_code == 200


@pytest.mark.slow
def test_other_machines_need_a_key(tmp_path: Path, slmx: Slmx) -> None:
    for host in ("0.0.0.0", "::") if HAS_IPV6 else ("0.0.0.0",):
        line = slmx.refuses("serve", "nano", "--port", "0", "--host", host, code=2)
        assert line.startswith(
            f"--host {host}: other machines could ask without a key; set one: export SLMX_API_KEY=$("
        )
        with slmx_serve(tmp_path, "nano", "--host", host, SLMX_API_KEY=KEY) as server:
            assert "for all machines that reach it, with a key of SLMX_API_KEY" in server.told()
            port = server.url.rpartition(":")[2]
            for url in (server.url, f"http://127.0.0.1:{port}"):
                assert httpx.get(f"{url}/v1/models").status_code == 401
                headers = {"Authorization": f"Bearer {KEY}"}
                assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (("--api-key-env", "OTHER_KEY"), 2, "--api-key-env OTHER_KEY: there is no such variable"),
        (("--cors", "*"), 2, "--cors '*': give one exact origin"),
        (("--allow-host", "a b"), 2, "--allow-host 'a b': give a name"),
        (("--host", "nowhere.invalid"), 1, "--host 'nowhere.invalid': no such address"),
        (("--host", "192.0.2.1"), 1, "--host 192.0.2.1 --port 0: Cannot assign requested address; choose"),
        (("--connections", "100000"), 1, "100000 connections need 200128 open files"),
        (("--variant", "int4"), 1, "no variant int4"),
        (("--threads", "0"), 2, "threads"),
        (("missing",), 1, "missing"),
        (("nano", "nano"), 2, "both give the model name nano"),
        (("--grace", "inf"), 2, "--grace inf: give a number of seconds up to 1,000,000"),
        (("--grace", "1e10"), 2, "--grace 1e+10: give"),
        (("--request-seconds", "nan"), 2, "--request-seconds nan: give"),
        (("--receive-seconds", "inf"), 2, "--receive-seconds inf: give"),
        (("--write-seconds", "nan"), 2, "--write-seconds nan: give"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], code: int, line: str
) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    assert line in slmx.refuses("serve", "--port", "0", *options, code=code)


def test_a_key_that_is_too_short_is_one_line(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLMX_API_KEY", "")
    assert slmx.refuses("serve", code=2).startswith("the key in SLMX_API_KEY must have 8 to 512 letters")


def test_a_bundle_that_is_not_signed_is_not_served_if_a_signature_is_required(slmx: Slmx, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="needs the extra [sign]")
    key = tmp_path / "mine"
    assert slmx("keygen", "--out", key).code == 0
    public = key.with_suffix(".pub")
    assert "not signed" in slmx.refuses("serve", "nano", "--port", "0", "--require-signature", public)


def test_a_taken_port_is_one_line(slmx: Slmx) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = slmx.refuses_unchanged("serve", "nano", "--port", str(port))
    assert line == f"port {port}: another program uses it; choose another --port"


def test_the_missing_extra_is_named() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from slm.cli import main; sys.argv = ['slmx', 'serve']; main()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    assert re.match(r"slmx: this command needs uvicorn.*: pip install .*\[serve\]", line)


def test_a_model_has_the_name_of_its_folder_or_archive(tmp_path: Path) -> None:
    bundle = Bundle.open(SHIPPED_BUNDLES / "nano")
    folder = Path(shutil.copytree(SHIPPED_BUNDLES / "nano", tmp_path / "fairy-tales"))
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    assert model_name(folder, bundle) == "fairy-tales"
    assert model_name(archive, bundle) == "packed"
    assert model_name(folder / ".." / "fairy-tales", bundle) == "fairy-tales"
    assert model_name(tmp_path / "no plain námè", bundle) == "no-plain-name"
    assert model_name(tmp_path / "故事", bundle) == "nano"


def test_a_listener_knows_its_address() -> None:
    listener = listen("localhost", 0)
    with listener.socket as taken:
        assert listener.is_loopback
        assert listener.url == f"http://127.0.0.1:{taken.getsockname()[1]}".replace(
            "127.0.0.1", "[::1]" if ":" in listener.address else "127.0.0.1"
        )
        with pytest.raises(SlmxError, match="another program uses it"):
            listen(listener.address, listener.port)
        assert Listener(taken, "0.0.0.0", 80).url == "http://127.0.0.1:80"
        assert Listener(taken, "::", 80).url == "http://[::1]:80"
        assert not Listener(taken, "fe80::1%eth0", 80).is_loopback
