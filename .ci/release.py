"""Checks whether a release may be made of the last commit, builds it and tries it. It publishes nothing.

    python .ci/release.py [--out DIR] [--rehearse]

It refuses with one line for each thing that is stale. `--rehearse` prints these lines too, and goes on: .ci/run tries
the packages of every commit in this way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OTHERS = (Path("runtimes/stories_small"), Path("runtimes/web/app"))  # packages beside slmx, each built alone
BUDGETS = {"slmx": 10_000_000, "slmx_stories_small": 12_000_000, "slmx_web": 4_000_000}  # the most bytes of a wheel
PACKAGES = {
    "slmx": {"slm", "export", "runtimes", "benchmarks"},
    "slmx_stories_small": {"slmx_stories_small"},
    "slmx_web": {"slmx_web"},
}
SHIPPED = {
    "slmx": (
        "benchmarks/report/page.html.jinja",
        "runtimes/bundles/micro/onnx/model_int8.onnx",
        "runtimes/bundles/nano/onnx/model_int8.onnx",
        "slm/pretrained/nano/model.safetensors",
        "slm/py.typed",
    ),
    "slmx_stories_small": (
        "slmx_stories_small/__init__.py",
        "slmx_stories_small/small/README.md",
        "slmx_stories_small/small/manifest.json",
        "slmx_stories_small/small/onnx/model_int8.onnx",
    ),
    "slmx_web": ("slmx_web/index.html",),
}
GENERATED = ("README.md", "docs/commands.md")  # pages with parts that cog writes
TOOLS = ("build", "setuptools")
INSTALL_TOOLS = "python -m pip install --require-hashes --no-deps --requirement .ci/requirements.txt"
MEASURE = (
    "make bench VALID=FILE measures again, then "
    'python -m benchmarks.report.write_docs runs/bench/report/report.json --note "WHICH MODELS" writes its page'
)
STORY = ("generate", "Once upon a time", "--seed", "1")


def main() -> None:
    """Makes the release that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist"), help="default: dist")
    parser.add_argument("--rehearse", action="store_true", help="go on when a release would be refused")
    chosen = parser.parse_args()
    found = [line for check in CHECKS for line in check(ROOT)]
    for line in found:
        print(f"stale: {line}", file=sys.stderr)
    if found and not chosen.rehearse:
        sys.exit(f"no release: {len(found)} of these to put right")
    with tempfile.TemporaryDirectory() as name:
        wrong = list(make(ROOT, chosen.out.resolve(), Path(name)))
    for line in wrong:
        print(f"wrong: {line}", file=sys.stderr)
    if wrong:
        sys.exit("no release: the packages are not as they should be")
    tag = f"v{stated_version(ROOT)}"
    print("a release would be refused" if found else f"now: git tag {tag} && git push origin {tag}")


def make(root: Path, out: Path, work: Path) -> Iterator[str]:
    """Builds the packages of the last commit twice, tries them, and yields what is wrong. The files lie in `out`."""
    once, again = (built(root, work / place) for place in ("one", "another place"))
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(once.iterdir()):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{digest}  {file.name}  {file.stat().st_size:,} bytes")
        if file.read_bytes() != (again / file.name).read_bytes():
            yield f"{file.name}: two builds of one commit differ"
        shutil.copy(file, out)
    for wheel in sorted(once.glob("*.whl")):
        yield from wheel_problems(wheel)
    yield from story_problems(once, stated_version(root), work)


def story_problems(dist: Path, said: str, work: Path) -> Iterator[str]:
    """Yields what is wrong with the stories that the packages in a folder write, each in an environment of its own."""
    (wheel,), (archive,) = dist.glob(f"slmx-{said}-*.whl"), dist.glob(f"slmx-{said}.tar.gz")
    (small,) = dist.glob(f"slmx_stories_small-{said}-*.whl")
    stories = {}
    for tried, packages, options in (
        (wheel, (wheel,), ()),
        (archive, (archive,), ()),
        (small, (wheel, small), ("--bundle", "small")),
    ):
        written = story_of(packages, work / f"été {tried.name}", options)
        first, _, stories[tried] = written.partition("\n")
        if first != f"slmx {said}":
            yield f"{tried.name}: slmx --version says {first!r}, not slmx {said}"
        if len(stories[tried]) < 200:
            yield f"{tried.name}: its story has only {len(stories[tried])} characters: {stories[tried]!r}"
    if stories[wheel] != stories[archive]:
        yield f"the wheel and the source archive must write one story: {stories[wheel]!r}, {stories[archive]!r}"
    if stories[small] == stories[wheel]:
        yield f"{small.name}: its story is that of the model inside slmx"


def built(root: Path, place: Path) -> Path:
    """Builds the packages of the last commit in a clone of it, and returns the folder of the files."""
    clone, out = place / "slmx", place / "dist"
    run("git", "clone", "--quiet", "--no-hardlinks", str(root), str(clone))
    for source in (Path(), *OTHERS):
        run(sys.executable, ".ci/build.py", str(source), "--out", str(out), cwd=clone)
    return out


def wheel_problems(wheel: Path) -> Iterator[str]:
    """Yields what is wrong with the size and the content of a wheel. It prints both."""
    name, size = wheel.name.partition("-")[0], wheel.stat().st_size
    files = zipfile.ZipFile(wheel).namelist()
    print(f"{wheel.name}: {len(files)} files, {size:,} bytes of at most {BUDGETS[name]:,}")
    if size > BUDGETS[name]:
        yield f"{wheel.name}: {size:,} bytes, more than {BUDGETS[name]:,}"
    top = {file.split("/")[0] for file in files if not file.split("/")[0].endswith(".dist-info")}
    if top != PACKAGES[name]:
        yield f"{wheel.name}: it holds {', '.join(sorted(top))}, not {', '.join(sorted(PACKAGES[name]))}"
    yield from (f"{wheel.name}: {file} is missing" for file in SHIPPED[name] if file not in files)
    for other in OTHERS:
        if any(file.startswith(f"{other.as_posix()}/") for file in files):
            yield f"{wheel.name}: it holds {other.as_posix()}, which is a package of its own"


def story_of(packages: Sequence[Path], place: Path, options: Sequence[str]) -> str:
    """Installs packages into an empty environment. Returns the first line of `slmx --version`, then a story."""
    venv.create(place, with_pip=True)
    bin_ = place / ("Scripts" if os.name == "nt" else "bin")
    run(str(bin_ / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *map(str, packages))
    said = run(str(bin_ / "slmx"), "--version", cwd=place).splitlines()
    return f"{said[0]}\n{run(str(bin_ / 'slmx'), *STORY, *options, cwd=place)}"


def run(*command: str, cwd: Path | None = None) -> str:
    """Runs a command without PYTHONPATH and returns what it prints; ends with its last lines if it fails."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: failed\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def stated_version(root: Path) -> str:
    """Returns the version of slmx. slm/__init__.py is the only place that states it."""
    (found,) = re.findall(r'^__version__ = "(.+)"$', (root / "slm" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    return str(found)


def other_versions(root: Path) -> Iterator[str]:
    """A package that is built alone has its version in its own pyproject.toml."""
    for other in OTHERS:
        text = (root / other / "pyproject.toml").read_text("utf-8")
        (found,) = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)
        if found != stated_version(root):
            yield f"{other.as_posix()}/pyproject.toml: version {found}, but slm/__init__.py has {stated_version(root)}"


def changelog(root: Path) -> Iterator[str]:
    """The first section of the changelog is the version, with a date."""
    said = stated_version(root)
    heading = next(re.finditer(r"^## (.*)$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE), None)
    if heading is None or not re.fullmatch(rf"{re.escape(said)} \(\d{{4}}-\d\d-\d\d\)", heading[1]):
        yield f"CHANGELOG.md: its first section is {heading and heading[1]!r}, not '{said} (YEAR-MONTH-DAY)'"


def generated(root: Path) -> Iterator[str]:
    """The generated parts of pages are those of the program and of docs/*.json."""
    command = [sys.executable, "-m", "cogapp", "--check", *GENERATED]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    changed = re.findall(r"^Checking (.+)  \(changed\)$", done.stdout, re.MULTILINE)
    yield from (f"{page}: its generated parts; run cog -r {page}" for page in changed)
    if done.returncode and not changed:
        yield f"{' and '.join(GENERATED)}: cog failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"


def benchmarks(root: Path) -> Iterator[str]:
    """The report of speed is of this version."""
    measured = json.loads((root / "docs" / "benchmarks.json").read_text("utf-8"))["machine"]["slmx"]
    if measured != (said := stated_version(root)):
        yield f"docs/benchmarks.json: of slmx {measured}, not {said}; {MEASURE}"


def tree(root: Path) -> Iterator[str]:
    """Everything is committed."""
    changed = git(root, "status", "--porcelain").splitlines()
    if changed:
        yield f"the working tree: {len(changed)} not committed, the first is {changed[0][3:]}"


def tag(root: Path) -> Iterator[str]:
    """The tag of the version is free or that of the last commit, which has no other."""
    wanted, head = f"v{stated_version(root)}", git(root, "rev-parse", "HEAD")
    others = [name for name in git(root, "tag", "--points-at", "HEAD", "v*").split() if name != wanted]
    if others:
        yield f"the tag {others[0]} is on this commit, but slm/__init__.py has {wanted[1:]}"
    if wanted in git(root, "tag").split() and git(root, "rev-parse", f"{wanted}^{{commit}}") != head:
        yield f"the tag {wanted} is on another commit; raise __version__ in slm/__init__.py"


def tools(root: Path) -> Iterator[str]:
    """The tools that write the packages are those of CI: others may write other bytes."""
    text = (root / ".ci" / "requirements.txt").read_text("utf-8")
    for name in TOOLS:
        (pinned,) = re.findall(rf"^{name}==(\S+)", text, re.MULTILINE)
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "not installed"
        if here != pinned:
            yield f"{name}: {here}, but .ci/requirements.txt has {pinned}; run {INSTALL_TOOLS}"


def git(root: Path, *arguments: str) -> str:
    """Returns what a command of git prints."""
    return run("git", "-C", str(root), *arguments).rstrip("\n")


CHECKS: tuple[Callable[[Path], Iterator[str]], ...] = (
    other_versions,
    changelog,
    generated,
    benchmarks,
    tree,
    tag,
    tools,
)

if __name__ == "__main__":
    main()
