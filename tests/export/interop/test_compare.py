"""`slmx verify --runtimes`: bundles in optimum and onnxruntime-genai, and how differences and refusals are shown."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from export.interop import compare
from export.interop.registry import RUNTIMES, Runtime
from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.console.install import pip_line
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from tests import bundles
from tests.bundles import Ran, Slmx
from tests.export.interop.wrong_tokens import PLACE

pytestmark = pytest.mark.slow

ONNX = ["int8", "fp32", "q8", "int4", "fp16", "portable"]
HEADING = "runtime      variant      greedy tokens, compared with those of slmx"
# `slmx` in a process that cannot import the packages of its first argument.
WITHOUT = """
import sys
hidden = sys.argv.pop(1).split(",")
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nothing())
sys.argv = ["slmx", *sys.argv[1:]]
from slm.cli import main
main()
"""


def installed(*names: str) -> str:
    """The value of --runtimes. The test is skipped if one of them is not installed."""
    if "genai" in names:
        pytest.importorskip("onnxruntime_genai", reason="it needs Python 3.11 or later")
    return ",".join(names)


def without(hidden: str, *args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, hidden, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)


def rows(ran: Ran | subprocess.CompletedProcess[str]) -> dict[tuple[str, str], str]:
    """What the table says for each runtime and variant."""
    lines = ran.stdout.splitlines()
    cells = [line.split(maxsplit=2) for line in lines[lines.index(HEADING) + 1 :] if not line.endswith("hash matches")]
    return {(runtime, variant): result for runtime, variant, result in cells}


def edit(bundle: Path, name: str, change: Callable[[Any], object]) -> None:
    """Changes a JSON file of a bundle, which stays valid."""
    values = json.loads((bundle / name).read_text("utf-8"))
    change(values)
    (bundle / name).write_text(json.dumps(values), "utf-8")
    bundles.list_again(bundle, name)


@pytest.fixture
def bundle(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b é 100% #1")


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_every_onnx_variant_gives_our_tokens(slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path, runtime: str) -> None:
    bundle = bundles.copy_of(bundles.tiny_bundle_of_all(tiny_checkpoint), tmp_path / "all")
    before = bundles.snapshot(bundle)
    ran = slmx("verify", bundle, "--runtimes", installed(runtime))
    assert ran.code == 0, ran.stdout
    assert rows(ran) == {(runtime, variant): "equal: 32 and 32 tokens" for variant in ONNX}
    assert all(line.startswith(("files: ", *(f"{name}: " for name in VARIANTS))) for line in ran.stderr.splitlines())
    found = json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))["runtimes"]
    assert list(found["versions"]) == [RUNTIMES[runtime].package]
    shown = [(row["runtime"], row["variant"], row["outcome"], row["failed"]) for row in found["rows"]]
    assert shown == [(runtime, variant, "equal", False) for variant in ONNX]
    after = bundles.snapshot(bundle)
    del after[VERIFICATION_FILE]
    assert after == before


def test_an_archive_is_compared_and_left_alone(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "b.slmx"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted(bundle.rglob("*")):
            packed.write(path, path.relative_to(bundle).as_posix())
    before = sha256_of(archive)
    ran = slmx("verify", archive, "--runtimes", installed("optimum", "genai"))
    assert ran.code == 0
    pairs = [(runtime, variant) for runtime in ("optimum", "genai") for variant in ("int8", "fp32")]
    assert rows(ran) == dict.fromkeys(pairs, "equal: 32 and 32 tokens")
    assert sha256_of(archive) == before


@pytest.mark.parametrize("runtime", list(RUNTIMES))
def test_the_tokens_end_with_the_context(
    slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    opened = Bundle.open(bundle)
    monkeypatch.setattr(compare, "PROMPTS", ("One day " * 100, "Once"))
    monkeypatch.setattr(compare, "NEW_TOKENS", 1000)
    ran = slmx("verify", bundle, "--runtimes", installed(runtime))
    assert opened.config.block_size == 64
    short = 64 - 1 - len(opened.tokenizer().encode("Once"))
    assert set(rows(ran).values()) == {f"equal: 32 and {short} tokens"}
    assert ran.code == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shown: shown["model"].update(type="no-such-type"), "no-such-type"),
        (lambda shown: shown["model"].update(vocab_size=3), "vocab_size"),
        (lambda shown: shown["model"].update(context_length=0), "context_length"),
        (lambda shown: shown["model"]["decoder"]["inputs"].update(input_ids="words"), "words"),
        (lambda shown: shown["model"].pop("decoder"), "model.decoder is missing; export it again"),
        (lambda shown: shown.update(search=[]), "search is not an object; export it again"),
    ],
)
def test_a_wrong_value_for_genai_is_one_line(
    slmx: Slmx, bundle: Path, change: Callable[[Any], object], reason: str
) -> None:
    names = installed("genai")
    edit(bundle, "genai_config.json", change)
    ran = slmx("verify", bundle, "--runtimes", names)
    assert ran.code == 1
    found = rows(ran)
    assert set(found) == {("genai", "int8"), ("genai", "fp32")}
    for result in found.values():
        assert result.startswith("FAILED: error: ")
        assert reason in result
    assert "Traceback" not in ran.stderr
    shown = json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))["runtimes"]["rows"]
    assert [(row["outcome"], row["failed"]) for row in shown] == [("error", True)] * 2


@pytest.mark.parametrize(
    "change", [{"model_type": "none"}, {"n_head": 4}, {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config"}}]
)
def test_a_wrong_value_for_optimum_is_one_line(slmx: Slmx, bundle: Path, change: dict[str, object]) -> None:
    edit(bundle, "config.json", lambda shown: shown.update(change))
    ran = slmx("verify", bundle, "--runtimes", "optimum")
    assert ran.code == 1
    assert [result.startswith("FAILED: error: ") for result in rows(ran).values()] == [True] * 2
    assert "Traceback" not in ran.stderr


def test_settings_that_name_libraries_and_files_are_not_followed(slmx: Slmx, bundle: Path, tmp_path: Path) -> None:
    names = installed("genai")

    def name_others(shown: Any) -> None:  # noqa: ANN401
        shown["model"]["decoder"]["session_options"]["custom_ops_library"] = str(tmp_path / "library.so")
        shown["model"]["decoder"]["filename"] = str(tmp_path / "another.onnx")
        shown["model"]["vision"] = {"filename": str(tmp_path / "vision.onnx")}

    edit(bundle, "genai_config.json", name_others)
    ran = slmx("verify", bundle, "--runtimes", names)
    assert ran.code == 0, ran.stdout


def test_a_bundle_without_settings_for_a_runtime_is_skipped(slmx: Slmx, bundle: Path) -> None:
    names = installed("genai")
    (bundle / "genai_config.json").unlink()
    files = json.loads((bundle / MANIFEST_FILE).read_text("utf-8"))["files"]
    del files["genai_config.json"]
    bundles.edit_manifest(bundle, files=files)
    ran = slmx("verify", bundle, "--runtimes", names)
    assert ran.code == 0
    assert set(rows(ran).values()) == {"skipped: genai_config.json is not in this bundle"}


def test_another_token_fails_a_float_variant_and_is_named_for_int8(
    slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        RUNTIMES, "other", Runtime("other", "slmx", "export", "tests.export.interop.wrong_tokens", "config.json")
    )
    ran = slmx("verify", bundle, "--runtimes", "other")
    assert ran.code == 1
    found = rows(ran)
    assert found["other", "fp32"] == f"FAILED: different: token {PLACE} after prompt 2 is another"
    assert found["other", "int8"].startswith(f"different: token {PLACE} after prompt 2 is another; no failure: ")
    shown = json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))["runtimes"]["rows"]
    assert [(row["variant"], row["outcome"], row["failed"]) for row in shown] == [
        ("int8", "different", False),
        ("fp32", "different", True),
    ]


def test_a_damaged_bundle_is_not_opened_elsewhere(slmx: Slmx, bundle: Path) -> None:
    (bundle / "config.json").write_text("{}", "utf-8")
    ran = slmx("verify", bundle, "--runtimes", "optimum")
    assert ran.code == 1
    assert HEADING not in ran.stdout
    assert "runtimes" not in json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))


def test_without_the_option_nothing_is_compared(slmx: Slmx, bundle: Path) -> None:
    ran = slmx("verify", bundle)
    assert ran.code == 0
    assert HEADING not in ran.stdout
    assert "runtimes" not in json.loads((bundle / VERIFICATION_FILE).read_text("utf-8"))


@pytest.mark.parametrize("names", ["candle", "optimum,candle", "", "optimum,"])
def test_an_unknown_name_lists_the_names(slmx: Slmx, bundle: Path, names: str) -> None:
    line = slmx.refuses("verify", bundle, "--runtimes", names, code=2)
    assert line == f"--runtimes: unknown runtime {names.split(',')[-1]!r}: choose one of optimum, genai"


def test_a_bundle_without_onnx_is_refused(slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = bundles.copy_of(bundles.tiny_bundle_of_all(tiny_checkpoint), tmp_path / "all")
    variants = json.loads((bundle / MANIFEST_FILE).read_text("utf-8"))["variants"]
    bundles.edit_manifest(bundle, variants={"pt2": variants["pt2"]}, default="pt2")
    line = slmx.refuses("verify", bundle, "--runtimes", "optimum")
    assert line == f"{bundle}: no ONNX graph for other runtimes; export it again with --int8"


@pytest.mark.parametrize(
    ("runtime", "hidden", "extra"), [("genai", "onnxruntime_genai", "genai"), ("optimum", "optimum", "export")]
)
def test_a_runtime_that_is_not_installed_is_one_line(bundle: Path, runtime: str, hidden: str, extra: str) -> None:
    ran = without(hidden, "verify", bundle, "--runtimes", runtime)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"slmx: this command needs {hidden}: {pip_line(extra)}\n"
    assert not (bundle / VERIFICATION_FILE).exists()


def test_a_runtime_that_cannot_be_imported_is_one_line(
    slmx: Slmx, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        RUNTIMES, "other", Runtime("other", "other-lib", "genai", "tests.export.interop.broken_package", "config.json")
    )
    line = slmx.refuses("verify", bundle, "--runtimes", "other")
    assert line.startswith("other-lib cannot be imported (libother.so.1: cannot open shared object file): pip install ")


def test_genai_needs_no_pytorch(bundle: Path) -> None:
    names = installed("genai")
    ran = without("torch,onnx,transformers,optimum", "verify", bundle, "--runtimes", names)
    assert ran.returncode == 0, ran.stderr
    assert set(rows(ran).values()) == {"equal: 32 and 32 tokens"}


def test_the_registry_loads_no_runtime() -> None:
    code = "import export.interop.registry, sys; print(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert not {"torch", "optimum", "onnxruntime", "onnxruntime_genai"} & set(ran.stdout.split())
