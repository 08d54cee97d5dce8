"""The allowed imports, checked in the source and in a fresh process."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import bundles

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("slm", "export", "runtimes", "benchmarks")
MAY_IMPORT = {
    "slm": {"slm"},
    "runtimes": {"runtimes", "slm"},
    "export": {"export", "runtimes", "slm"},
    "benchmarks": {"benchmarks", "export", "runtimes", "slm"},
}
LIGHT_SLM = {
    "slm.tokenizers.byte_level",
    "slm.checkpoint_config",
    "slm.console.counted",
    "slm.storage.disk",
    "slm.console.errors",
    "slm.folder_kind",
    "slm.storage.file_names",
    "slm.storage.hashing",
    "slm.hidden_names",
    "slm.hub.client",
    "slm.hub.errors",
    "slm.hub.name",
    "slm.console.install",
    "slm.console.notice",
    "slm.console.plain_text",
    "slm.storage.json_reader",
    "slm.storage.read_errors",
    "slm.storage.listing",
    "slm.storage.system_errors",
    "slm.storage.wide_text",
    "slm.memory",
    "slm.metrics",
    "slm.presets",
    "slm.provenance",
    "slm.tokenizers.sentencepiece",
    "slm.console.signals",
    "slm.console.terminal",
    "slm.tokenizers.tokenizer",
    "slm.tokenizers.settings",
    "slm.console.usage",
    "slm.console.word_wrap",
}
# These rooms also write folders. The modules need filelock, which no story needs.
FOLDER_WRITERS = {"slm.storage.atomic", "slm.storage.locks", "slm.storage.ownership"}
WRITING_ROOMS = {"checks", "hub", "pack", "prompts_file", "web"}
RUNTIME_NEEDS = {"numpy", "onnxruntime", "tiktoken"}
TYPES_ONLY = {"typing_extensions"}  # imported for type checkers, which bring it
# What the modules of a room may import beside that, from its extra.
ROOM_NEEDS = {
    "hub": {"huggingface_hub"},
    "pack": {"cryptography"},
    "serve": {"starlette", "uvicorn"},
    "serve.answers": {"starlette"},
    "serve.endpoints": {"starlette"},
    "serve.middleware": {"starlette"},
    "serve.protocol": {"starlette", "uvicorn"},
    "web": {"brotli"},
}
HEAVY = {
    "accelerate",
    "cryptography",
    "datasets",
    "google",
    "onnx",
    "onnxscript",
    "optimum",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
}
LOADED = """
import json, sys
from pathlib import Path
try:
    {statement}
except SystemExit as exit_:
    assert not exit_.code, exit_.code
Path({target!r}).write_text(json.dumps(sorted(sys.modules)))
"""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(path: Path) -> str:
    """The room of a module, without `runtimes`."""
    return ".".join(path.relative_to(ROOT / "runtimes").parts[:-1])


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Full names of the modules that import statements name; relative imports are not used here."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            yield str(node.module)


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        types_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if not types_only and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from outside_functions(node)


def test_every_package_has_modules() -> None:
    assert all(len(modules(package)) > 1 for package in PACKAGES)


@pytest.mark.parametrize(
    "path",
    [path for package in PACKAGES for path in modules(package)],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_arrows_between_packages_point_one_way(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    package = path.relative_to(ROOT).parts[0]
    ours = {name for name in imported(ast.walk(tree)) if name.split(".")[0] in PACKAGES}
    assert {name.split(".")[0] for name in ours} <= MAY_IMPORT[package]
    if package == "runtimes":
        light = LIGHT_SLM | (FOLDER_WRITERS if room(path) in WRITING_ROOMS else set())
        assert {name for name in ours if name.startswith("slm")} <= light


@pytest.mark.parametrize("path", modules("runtimes"), ids=lambda path: path.name)
def test_runtimes_need_numpy_onnxruntime_and_tiktoken_only(path: Path) -> None:
    names = {name.split(".")[0] for name in imported(ast.walk(ast.parse(path.read_text("utf-8"))))}
    needs = (
        RUNTIME_NEEDS
        | TYPES_ONLY
        | ROOM_NEEDS.get(room(path), set())
        | ({"typer"} if path.name == "commands.py" else set())
    )
    assert names - set(sys.stdlib_module_names) - {"runtimes", "slm", "__future__"} <= needs


@pytest.mark.parametrize("name", sorted(LIGHT_SLM | FOLDER_WRITERS))
def test_what_runtimes_use_of_slm_is_light_too(name: str) -> None:
    tree = ast.parse((ROOT / f"{name.replace('.', '/')}.py").read_text("utf-8"))
    names = {n for n in imported(outside_functions(tree)) if n.split(".")[0] not in sys.stdlib_module_names}
    assert names <= LIGHT_SLM | FOLDER_WRITERS | {"tiktoken", "typer"}


def test_only_packages_that_turn_telemetry_off_import_onnxruntime() -> None:
    importing = {
        path.relative_to(ROOT).parts[0]
        for package in PACKAGES
        for path in modules(package)
        if any(name.split(".")[0] == "onnxruntime" for name in imported(ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert importing == {"runtimes", "export", "benchmarks"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module", ["runtimes.engine.cache", "export.formats.quantize", "benchmarks.studies.int4_rules"]
)
def test_onnxruntime_keeps_no_device_id_and_reports_nothing(module: str, tmp_path: Path) -> None:
    unset = ("ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "CI", "GITHUB_ACTIONS", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(tmp_path)}
    code = f"import {module}, sys; assert 'onnxruntime' in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=60)
    assert [path.name for path in tmp_path.rglob("*") if "nnxruntime" in path.name or "deviceid" in path.name] == []


def modules_loaded(statement: str, folder: Path) -> set[str]:
    """The names of the modules that a fresh process has loaded after a statement."""
    target = folder / "modules.json"
    code = LOADED.format(statement=statement, target=str(target))
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, capture_output=True, timeout=60)
    return set(json.loads(target.read_text("utf-8")))


def loaded(statement: str, folder: Path) -> set[str]:
    """The top-level names of these modules."""
    return {name.split(".")[0] for name in modules_loaded(statement, folder)}


def test_importing_the_generator_loads_nothing_heavy(tmp_path: Path) -> None:
    names = loaded("import runtimes.engine.generator", tmp_path)
    assert names >= RUNTIME_NEEDS
    assert not names & (HEAVY | {"export", "benchmarks"})


def test_generating_loads_nothing_heavy(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = bundles.tiny_bundle(tiny_checkpoint)
    arguments = ["slmx", "generate", "Once", "--bundle", str(bundle), "--max-tokens", "3"]
    found = modules_loaded(f"sys.argv = {arguments!r}; import slm.cli; slm.cli.main()", tmp_path)
    names = {name.split(".")[0] for name in found}
    assert names >= RUNTIME_NEEDS
    assert not names & (HEAVY | {"export", "benchmarks"})
    assert not found & {"runtimes.words", "runtimes.engine.banned_words"}, "no word is banned"


def test_making_a_web_page_loads_nothing_heavy_and_not_even_onnxruntime(tmp_path: Path) -> None:
    arguments = ["slmx", "web", "nano", "--out", "site"]
    names = loaded(f"sys.argv = {arguments!r}; import slm.cli; slm.cli.main()", tmp_path)
    assert "brotli" in names
    assert not names & (HEAVY | {"onnxruntime", "numpy", "export", "benchmarks"})


def test_help_loads_not_even_numpy(tmp_path: Path) -> None:
    names = loaded("sys.argv = ['slmx', '--help']; import slm.cli; slm.cli.main()", tmp_path)
    assert "typer" in names
    assert not names & (HEAVY | RUNTIME_NEEDS)


def test_measuring_the_float_model_loads_no_compiler_and_no_exporter(tmp_path: Path) -> None:
    found = modules_loaded("import export.checks.torch_session, slm.checkpoint", tmp_path)
    assert "torch" in found
    assert not found & {"torch._dynamo", "torch._inductor", "onnx", "transformers"}, "they would count as its memory"
