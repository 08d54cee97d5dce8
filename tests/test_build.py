"""The packages of CI are hashed and those of constraints.txt, and a source archive is the same every time."""

from __future__ import annotations

import importlib.util
import io
import re
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"^([\w.-]+)==([^\s;]+)", re.MULTILINE)
# `torch` has a build for each kind of machine, and slmx is what is tested.
NOT_HASHED = {"slmx", "torch"}


def normal(name: str) -> str:
    """The name of a package as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_script", ROOT / ".ci" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_is_hashed_at_the_version_of_constraints() -> None:
    text = (ROOT / ".ci" / "requirements.txt").read_text("utf-8")
    assert not re.search(r"://|^-| @ ", text, re.MULTILINE)
    found = {normal(name): version for name, version in PINNED.findall(text)}
    constraints = (ROOT / "constraints.txt").read_text("utf-8")
    allowed = {(normal(name), version) for name, version in PINNED.findall(constraints)}
    known = {name for name, _ in allowed}
    assert {item for item in found.items() if item[0] in known} <= allowed
    for block in re.split(r"\n(?=\S)", text):
        assert not PINNED.match(block) or "--hash=sha256:" in block, block


def test_every_package_of_the_dev_extra_is_there() -> None:
    text = (ROOT / ".ci" / "requirements.txt").read_text("utf-8")
    found = {normal(name) for name, _ in PINNED.findall(text)}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    lists = dict(re.findall(r"^(\w+) = \[(.*?)\](?=$| #)", extras, re.MULTILINE | re.DOTALL))
    wanted = {"dev"} | set(re.findall(r"slmx\[(\w+)\]", lists["dev"]))
    wanted |= {inner for name in wanted for inner in re.findall(r"slmx\[(\w+)\]", lists[name])}
    named = {normal(name) for extra in wanted for name in re.findall(r'"([\w.-]+)', lists[extra])}
    assert len(named) > 30
    assert named <= found | NOT_HASHED


def archive(path: Path, names: list[str], owner: str, date: int, mode: int) -> Path:
    """Writes a source archive as setuptools does on one machine on one day."""
    with tarfile.open(path, "w:gz") as new:
        folder = tarfile.TarInfo("slmx-1")
        folder.type, folder.mode = tarfile.DIRTYPE, mode | 0o111
        new.addfile(folder)
        for name in names:
            member = tarfile.TarInfo(f"slmx-1/{name}")
            member.size, member.mtime, member.uname, member.mode = len(name.encode()), date, owner, mode
            new.addfile(member, io.BytesIO(name.encode()))
    return path


def test_a_source_archive_does_not_tell_who_made_it_and_when(script: ModuleType, tmp_path: Path) -> None:
    one = archive(tmp_path / "1.tar.gz", ["é.py", "b.py"], "ann", 1_500_000_000, 0o644)
    two = archive(tmp_path / "2.tar.gz", ["b.py", "é.py"], "bob", 1_700_000_000, 0o664)
    assert one.read_bytes() != two.read_bytes()
    for path in (one, two):
        script.repack(path, 1_600_000_000)
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as content:
        assert {(member.mtime, member.uname) for member in content} == {(1_600_000_000, "")}
        file = content.extractfile("slmx-1/é.py")
        assert file is not None
        assert file.read() == "é.py".encode()
