"""The Containerfile of docs/server, as `make container-check` reads it. The check needs root and Debian's packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.container import __main__ as check
from benchmarks.container.containerfile import Stage, read_stages
from benchmarks.container.image import _context, _copy, compressed_size
from benchmarks.pi.debian import RELEASE
from slm.console.errors import SlmxError

FILE = check.FILE.read_text("utf-8")


@pytest.fixture(scope="module")
def last() -> Stage:
    return read_stages(FILE)[-1]


def test_stages_lines_and_packages_are_read() -> None:
    text = (
        "# c\nFROM debian AS first\n"
        "RUN apt-get update && apt-get install -y --no-install-recommends a b-c && rm x\n"
        'RUN one \\\n    --two\n\nFROM debian\nENV A=1 B=x=y\nCOPY --from=first /a /b\nCMD ["a", "b c"]\n'
    )
    first, last = read_stages(text)
    assert (first.name, first.packages, first.commands) == ("first", ["a", "b-c"], ["rm x", "one --two"])
    assert (last.name, last.packages, last.commands) == ("", [], [])
    assert last.environment == {"A": "1", "B": "x=y"}
    assert (last.texts("COPY"), last.array("CMD")) == (["--from=first /a /b"], ["a", "b c"])


def test_the_server_of_the_container_has_no_rights_and_no_key_of_its_own(last: Stage) -> None:
    (user,) = last.texts("USER")
    assert all(int(part) > 1000 for part in user.split(":"))
    assert "SLMX_API_KEY" not in FILE, "the key comes from the environment"
    assert last.array("ENTRYPOINT")[:4] == ["/opt/slmx/bin/slmx", "serve", "--host", "0.0.0.0"]
    assert last.texts("EXPOSE") == [last.array("ENTRYPOINT")[-1]] == ["8000"]
    assert last.packages == ["python3", "libstdc++6"]


def test_the_health_check_is_a_program_of_python(last: Stage) -> None:
    interpreter, option, source = last.array("HEALTHCHECK")
    assert (interpreter, option) == ("/opt/slmx/bin/python", "-c")
    ran = subprocess.run([sys.executable, "-c", source.replace("8000", "9")], capture_output=True, text=True)
    assert ran.returncode == 1, "a server that does not answer is not healthy"
    assert "urllib.error.URLError" in ran.stderr


def test_the_base_is_the_release_whose_packages_are_taken() -> None:
    froms = [line for line in FILE.splitlines() if line.startswith("FROM ")]
    assert {line.split()[1] for line in froms} == {f"debian:{RELEASE}-slim"}
    assert "torch" not in FILE.lower().replace("pytorch", "")


def test_files_and_folders_are_copied_where_they_belong(tmp_path: Path) -> None:
    for name in ("context/a.txt", "context/dist/x-1.whl", "first/opt/slmx/bin/slmx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    root = tmp_path / "root"
    _copy("a.txt dist/x-*.whl /build/", tmp_path / "context", tmp_path, root)
    _copy("--from=first /opt/slmx /opt/slmx", tmp_path / "context", tmp_path, root)
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert found == ["build/a.txt", "build/x-1.whl", "opt/slmx/bin/slmx"]


def test_the_size_is_that_of_all_bytes_packed(tmp_path: Path) -> None:
    (tmp_path / "zeros").write_bytes(bytes(2**20))
    small = compressed_size(tmp_path)
    assert 0 < small < 2**12
    assert compressed_size(tmp_path, "zeros") < 2**12
    with pytest.raises(SlmxError, match=r"packing .* failed"):
        compressed_size(tmp_path, "missing")


def test_it_needs_root_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SlmxError, match="only root can make the root of a container"):
        check.main()


def test_the_wheels_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands: list[Sequence[str]] = []
    wheel = tmp_path / "slmx.whl"
    wheel.touch()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("benchmarks.container.image.build_wheel", lambda target: wheel)
    monkeypatch.setattr("benchmarks.container.image.output_of", lambda command, doing: commands.append(command))
    _context(tmp_path)
    platforms = [option for option in commands[0] if option.startswith("--platform=")]
    assert platforms
    assert all(option.endswith("_aarch64") for option in platforms)
