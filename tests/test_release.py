"""`make release` refuses with one line for each thing that is stale, and finds what is wrong with a wheel."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / ".ci" / "release.py"
COG = "<!-- [[[cog\nimport cog\ncog.outl(open('figure').read().strip())\n]]] -->\n{}\n<!-- [[[end]]] -->\n"

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def git(root: Path, *arguments: str) -> None:
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(root), *author, *arguments], check=True, capture_output=True)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


@pytest.fixture
def tree(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of which a release may be made, as far as the checks go."""
    monkeypatch.setattr(script, "version", {"build": "1.6", "setuptools": "84"}.__getitem__)
    root = tmp_path / "é 1"
    root.mkdir()
    write(root, "slm/__init__.py", '"""The model."""\n\n__version__ = "1.2.0"\n')
    for other in script.OTHERS:
        write(root, f"{other.as_posix()}/pyproject.toml", '[project]\nversion = "1.2.0"\n')
    write(root, "CHANGELOG.md", "# Changelog\n\n## 1.2.0 (2026-12-01)\n\n## 1.1.0 (2026-11-01)\n")
    write(root, "README.md", COG.format("12"))
    write(root, "docs/commands.md", "no generated part\n")
    write(root, "docs/benchmarks.json", json.dumps({"machine": {"slmx": "1.2.0"}}))
    write(root, ".ci/requirements.txt", "build==1.6 \\\n    --hash=sha256:0\nsetuptools==84 \\\n    --hash=sha256:0\n")
    write(root, "figure", "12\n")
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def refusals(script: ModuleType, root: Path) -> list[str]:
    return [line for check in script.CHECKS for line in check(root)]


def test_nothing_is_said_of_a_tree_that_is_ready(script: ModuleType, tree: Path) -> None:
    assert refusals(script, tree) == []
    git(tree, "tag", "v1.2.0")
    assert refusals(script, tree) == []


def test_each_stale_thing_is_one_line(script: ModuleType, tree: Path) -> None:
    write(tree, "slm/__init__.py", '__version__ = "1.3.0"\n')
    write(tree, "figure", "13\n")
    write(tree, ".ci/requirements.txt", "build==0.0.1 \\\nsetuptools==0.0.2 \\\n")
    assert refusals(script, tree) == [
        "runtimes/stories_small/pyproject.toml: version 1.2.0, but slm/__init__.py has 1.3.0",
        "runtimes/web/app/pyproject.toml: version 1.2.0, but slm/__init__.py has 1.3.0",
        "CHANGELOG.md: its first section is '1.2.0 (2026-12-01)', not '1.3.0 (YEAR-MONTH-DAY)'",
        "README.md: its generated parts; run cog -r README.md",
        f"docs/benchmarks.json: of slmx 1.2.0, not 1.3.0; {script.MEASURE}",
        "the working tree: 3 not committed, the first is .ci/requirements.txt",
        f"build: 1.6, but .ci/requirements.txt has 0.0.1; run {script.INSTALL_TOOLS}",
        f"setuptools: 84, but .ci/requirements.txt has 0.0.2; run {script.INSTALL_TOOLS}",
    ]


@pytest.mark.parametrize("heading", ["1.2.0 (unreleased)", "1.2.0", "11.2.0 (2026-12-01)", "1x2.0 (2026-12-01)"])
def test_a_section_without_a_date_is_refused(script: ModuleType, tree: Path, heading: str) -> None:
    write(tree, "CHANGELOG.md", f"# Changelog\n\n## {heading}\n\n## 1.2.0 (2026-12-01)\n")
    assert list(script.changelog(tree)) == [
        f"CHANGELOG.md: its first section is {heading!r}, not '1.2.0 (YEAR-MONTH-DAY)'"
    ]


def test_a_page_that_cog_cannot_read_is_named(script: ModuleType, tree: Path) -> None:
    (tree / "figure").unlink()
    (line,) = script.generated(tree)
    assert line.startswith("README.md and docs/commands.md: cog failed: ")


def test_a_tag_must_be_that_of_the_version_and_of_this_commit(script: ModuleType, tree: Path) -> None:
    git(tree, "tag", "v1.2.0")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "second")
    git(tree, "tag", "v9")
    assert list(script.tag(tree)) == [
        "the tag v9 is on this commit, but slm/__init__.py has 1.2.0",
        "the tag v1.2.0 is on another commit; raise __version__ in slm/__init__.py",
    ]


def test_the_command_refuses_and_writes_nothing(tree: Path) -> None:
    write(tree, "figure", "13\n")
    shutil.copy(SCRIPT, tree / ".ci")
    ran = subprocess.run([sys.executable, tree / ".ci" / "release.py"], cwd=tree, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stdout == ""
    *stale, said = ran.stderr.splitlines()
    assert stale[0] == "stale: README.md: its generated parts; run cog -r README.md"
    assert said == f"no release: {len(stale)} of these to put right"
    assert not (tree / "dist").exists()


def test_what_is_wrong_with_a_wheel_is_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tmp_path / "slmx-1.2.0-py3-none-any.whl"
    names = [
        *script.SHIPPED["slmx"],
        "benchmarks/commands.py",
        "export/card.py",
        "runtimes/types.py",
        "slmx-1.2.0.dist-info/METADATA",
    ]
    with zipfile.ZipFile(good, "w") as wheel:
        for name in names:
            wheel.writestr(name, "x")
    assert list(script.wheel_problems(good)) == []
    bad = tmp_path / "bad" / good.name
    bad.parent.mkdir()
    with zipfile.ZipFile(bad, "w") as wheel:
        small = "runtimes/stories_small/slmx_stories_small/small/manifest.json"
        for name in (*names[1:], "tests/x.py", "runtimes/web/app/slmx_web/app.js", small):
            wheel.writestr(name, "x")
    monkeypatch.setitem(script.BUDGETS, "slmx", 100)
    assert list(script.wheel_problems(bad)) == [
        f"{bad.name}: {bad.stat().st_size:,} bytes, more than 100",
        f"{bad.name}: it holds benchmarks, export, runtimes, slm, tests, not benchmarks, export, runtimes, slm",
        f"{bad.name}: {script.SHIPPED['slmx'][0]} is missing",
        f"{bad.name}: it holds runtimes/stories_small, which is a package of its own",
        f"{bad.name}: it holds runtimes/web/app, which is a package of its own",
    ]


def test_the_wheel_of_small_is_checked_too(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "slmx_stories_small-1.2.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name in script.SHIPPED["slmx_stories_small"][:-1]:
            wheel.writestr(name, "x")
        wheel.writestr("runtimes/x.py", "x")
    assert list(script.wheel_problems(path)) == [
        f"{path.name}: it holds runtimes, slmx_stories_small, not slmx_stories_small",
        f"{path.name}: slmx_stories_small/small/onnx/model_int8.onnx is missing",
    ]


def test_stories_that_are_not_as_they_should_be_are_named(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, small = "slmx-1.2.0-py3-none-any.whl", "slmx_stories_small-1.2.0-py3-none-any.whl"
    for name in (wheel, small, "slmx-1.2.0.tar.gz", "slmx_stories_small-1.2.0.tar.gz", "slmx_web-1.2.0.tar.gz"):
        (tmp_path / name).touch()
    tried: list[tuple[list[str], tuple[str, ...]]] = []

    def problems(story: dict[str, str]) -> list[str]:
        def story_of(packages: tuple[Path, ...], place: Path, options: tuple[str, ...]) -> str:
            assert " " in place.name
            assert not place.name.isascii()
            tried.append(([package.name for package in packages], options))
            return story[packages[-1].name]

        monkeypatch.setattr(script, "story_of", story_of)
        return list(script.story_problems(tmp_path, "1.2.0", tmp_path))

    one, other = "slmx 1.2.0\n" + "a" * 200, "slmx 1.2.0\n" + "b" * 200
    assert problems({wheel: one, "slmx-1.2.0.tar.gz": one, small: other}) == []
    assert tried == [([wheel], ()), (["slmx-1.2.0.tar.gz"], ()), ([wheel, small], ("--bundle", "small"))]
    assert problems({wheel: one, "slmx-1.2.0.tar.gz": other, small: one}) == [
        f"the wheel and the source archive must write one story: {'a' * 200!r}, {'b' * 200!r}",
        f"{small}: its story is that of the model inside slmx",
    ]
    assert problems({wheel: one, "slmx-1.2.0.tar.gz": one, small: "slmx 1.1.0\nb"}) == [
        f"{small}: slmx --version says 'slmx 1.1.0', not slmx 1.2.0",
        f"{small}: its story has only 1 characters: 'b'",
    ]


def test_the_version_of_slmx_is_stated_once(script: ModuleType) -> None:
    said = script.stated_version(ROOT)
    assert list(script.other_versions(ROOT)) == []
    for name in ("pyproject.toml", "CITATION.cff", "runtimes/web/app/package.json", "tests/suites/node/package.json"):
        assert said not in (ROOT / name).read_text("utf-8"), name
