"""A TorchScript or .pt2 file that runs code when PyTorch reads it is refused before PyTorch reads it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from export.checks.greedy import greedy_tokens
from export.checks.torch_archive import MAX_TEXT_BYTES
from export.checks.torch_session import load_forward, open_session
from export.formats.suppress_output import suppress_output
from export.formats.torch_files import CachedGPT, export_pt2, export_torchscript, sample_inputs
from slm.console.errors import SlmxError
from slm.model import GPT, generate_greedy
from slm.presets import GPTConfig
from tests import bundles

pytestmark = pytest.mark.slow

ROOT = "archive/"
MODEL = "models/model.json"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
Members = dict[str, bytes]
Document = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> GPT:
    return bundles.random_model(GPTConfig(block_size=24, vocab_size=300, n_layer=1, n_head=2, n_embd=32))


@pytest.fixture(scope="module")
def pt2(model: GPT) -> Path:
    path = bundles.folder("torch é %#") / "model.pt2"
    export_pt2(model, path)
    return path


@pytest.fixture(scope="module")
def script(model: GPT) -> Path:
    path = bundles.folder("torch é %#") / "model.ts"
    export_torchscript(model, path)
    return path


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {info.filename.removeprefix(ROOT): archive.read(info) for info in archive.infolist()}


def write(path: Path, content: Members, root: str = ROOT) -> Path:
    """Writes an archive. A name that starts with a slash is outside the root folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name.removeprefix("/") if name.startswith("/") else root + name, data)
    return path


def edit(content: Members, name: str, change: Callable[[Document], object]) -> None:
    document = json.loads(content[name])
    change(document)
    content[name] = json.dumps(document).encode()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def as_torch_pickle(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save(Touch(marker), buffer)
    return buffer.getvalue()


def pickled_weight(content: Members, marker: Path) -> None:
    content["data/weights/weight_0"] = as_torch_pickle(marker)
    edit(content, WEIGHTS, lambda d: d["config"]["model.wte.weight"].update(path_name="weight_0", use_pickle=True))


def pickled_constant(content: Members, marker: Path) -> None:
    content["data/constants/tensor_0"] = as_torch_pickle(marker)
    entry = {"path_name": "tensor_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit(content, CONSTANTS, lambda d: d["config"].update(c=entry))


def opaque_constant(content: Members, marker: Path) -> None:
    content["data/constants/opaque_obj_0"] = pickle.dumps(Touch(marker))
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    edit(content, CONSTANTS, lambda d: d["config"].update(c=entry))


def pickled_sample_inputs(content: Members, marker: Path) -> None:
    content[SAMPLE_INPUTS] = as_torch_pickle(marker)


def older_weights(content: Members, marker: Path) -> None:
    content["data/weights/model.pt"] = as_torch_pickle(marker)


def older_constants(content: Members, marker: Path) -> None:
    content["data/constants/model.pt"] = as_torch_pickle(marker)


def older_format(content: Members, marker: Path) -> None:
    program = content[MODEL]
    content.clear()
    content["/version"] = b"8.20"
    content["/serialized_exported_program.json"] = program
    for name in ("state_dict", "constants", "example_inputs"):
        content[f"/serialized_{name}.pt"] = as_torch_pickle(marker)


def evaluated_size(content: Members, marker: Path) -> None:
    def change(program: Document) -> None:
        value = next(iter(program["graph_module"]["graph"]["sym_int_values"].values()))
        value["as_expr"]["expr_str"] = f"__import__('os').system('touch {marker}')"

    edit(content, MODEL, change)


ATTACKS = (
    pickled_weight,
    pickled_constant,
    opaque_constant,
    pickled_sample_inputs,
    older_weights,
    older_constants,
    older_format,
    evaluated_size,
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pt2_that_runs_code_when_pytorch_reads_it_is_refused_before(
    attack: Callable[[Members, Path], None], pt2: Path, tmp_path: Path
) -> None:
    marker, content = tmp_path / "marker", members(pt2)
    attack(content, marker)
    path = write(tmp_path / "é %#.pt2", content)
    with contextlib.suppress(Exception):
        torch.export.load(path)
    assert marker.exists(), "the attack does not work, so its refusal proves nothing"
    marker.unlink()
    with pytest.raises(SlmxError) as refused:
        load_forward("pt2", path, trusted=True)
    assert str(refused.value).startswith(f"{path}: ")
    assert str(refused.value).endswith("it was not loaded. Export the bundle again with slmx export")
    assert not marker.exists()


def first_node(program: Document) -> Document:
    node: Document = program["graph_module"]["graph"]["nodes"][0]
    return node


def rename_an_input(program: Document) -> None:
    program["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = "x=print(1)"


def program_with(change: Callable[[Document], object]) -> Callable[[Members], None]:
    return lambda content: edit(content, MODEL, change)


TABLE = "model.wte.weight"


def weights_with(change: Callable[[Document], object]) -> Callable[[Members], None]:
    return lambda content: edit(content, WEIGHTS, lambda config: change(config["config"]))


def repeated(content: Members) -> None:
    content[MODEL.upper()] = content[MODEL]


STRANGE: dict[str, tuple[Callable[[Members], object], str]] = {
    "custom object": (lambda c: c.update({"data/constants/custom_obj_0": b"x"}), "holds 'data/constants/custom_obj_0'"),
    "compiled library": (lambda c: c.update({"data/aotinductor/model/a.so": b"x"}), "holds 'data/aotinductor"),
    "extra file": (lambda c: c.update({"extra/a.txt": b"x"}), "holds 'extra/a.txt'"),
    "second model": (lambda c: c.update({"models/b.json": c[MODEL]}), "holds 'models/b.json'"),
    "escaping name": (lambda c: c.update({"../../a": b"x"}), "holds '../../a'"),
    "name in another case": (repeated, "holds a name twice"),
    "two folders": (lambda c: c.update({"/b/c": b"x"}), "no archive that slmx writes"),
    "text too large": (lambda c: c.update({MODEL: b" " * (MAX_TEXT_BYTES + 1)}), "more than 16,777,216"),
    "weight of no bytes": (
        lambda c: c.update({"data/weights/weight_0": b""}),
        "holds 0 bytes in 'data/weights/weight_0'",
    ),
    "pickle flag": (
        weights_with(lambda c: c[TABLE].update(use_pickle=True)),
        "asks PyTorch to unpickle 'model.wte.weight'",
    ),
    "no pickle flag": (weights_with(lambda c: c[TABLE].pop("use_pickle")), "KeyError"),
    "weight elsewhere": (
        weights_with(lambda c: c[TABLE].update(path_name="../x")),
        "asks PyTorch to unpickle",
    ),
    "no program": (lambda c: c.pop(MODEL), "no archive that slmx writes"),
    "no JSON": (lambda c: c.update({MODEL: b"{"}), "no archive that slmx writes (JSONDecodeError"),
    "deep JSON": (lambda c: c.update({MODEL: b"[" * 100_000 + b"]" * 100_000}), "no archive that slmx writes"),
    "other function": (program_with(lambda p: first_node(p).update(target="torch.hub.load")), "calls 'torch.hub.load'"),
    "other operator": (
        program_with(lambda p: first_node(p).update(target="torch.ops.aten.from_file.default")),
        "calls",
    ),
    "operator as argument": (
        program_with(lambda p: first_node(p)["inputs"][0].update(arg={"as_operator": "torch.hub.load"})),
        "names functions or objects of its own (as_operator)",
    ),
    "metadata": (program_with(lambda p: first_node(p)["metadata"].update(torch_fn="a")), "(metadata)"),
    "guard": (program_with(lambda p: p.update(guards_code=["print(1) == 0"])), "holds 'print(1) == 0' as guards_code"),
    "name in the graph": (
        program_with(lambda p: p["graph_module"]["graph"]["tensor_values"].update({"x=print(1)": {}})),
        "holds the name 'x=print(1)'",
    ),
    "number of many digits": (
        weights_with(lambda c: c[TABLE]["tensor_meta"].update(sizes=[{"as_expr": {"expr_str": "9" * 5000}}])),
        "holds '9999",
    ),
    "size of a weight": (
        weights_with(lambda c: c[TABLE]["tensor_meta"].update(sizes=[{"as_expr": {"expr_str": "print(1)"}}])),
        "holds 'print(1)' as expr_str",
    ),
    "input name": (program_with(rename_an_input), "holds 'x=print(1)' as name"),
}


@pytest.mark.parametrize("change", STRANGE)
def test_a_pt2_that_slmx_did_not_write_is_refused(change: str, pt2: Path, tmp_path: Path) -> None:
    content = members(pt2)
    spoil, message = STRANGE[change]
    spoil(content)
    path = write(tmp_path / "é %#.pt2", content)
    with pytest.raises(SlmxError, match=re.escape(message)):
        load_forward("pt2", path, trusted=True)


def test_a_name_that_is_there_twice_is_refused(pt2: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt2", members(pt2))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(ROOT + MODEL, b"{}")
    with pytest.raises(SlmxError, match="holds a name twice"):
        load_forward("pt2", path, trusted=True)


@pytest.mark.parametrize("variant", ["pt2", "torchscript"])
def test_files_that_are_no_archive_are_refused_before_they_are_unpickled(variant: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    older = tmp_path / "older.pt"
    torch.save(Touch(marker), older, _use_new_zipfile_serialization=False)
    newer = tmp_path / "newer.pt"
    newer.write_bytes(as_torch_pickle(marker))
    packed = tmp_path / "packed.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(older, "pickle")
    plain = tmp_path / "plain.txt"
    plain.write_bytes(b"Once upon a time")
    empty = tmp_path / "empty"
    empty.touch()
    for path in (older, newer, packed, plain, empty):
        with pytest.raises(SlmxError, match=f"{path.name}: .*; it was not loaded"):
            load_forward(variant, path, trusted=True)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["extra/a.txt", "traced_inputs.pkl", "code/a.sh", "constants/a", "attributes.pkl"])
def test_torchscript_with_members_that_slmx_does_not_write_is_refused(name: str, script: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", members(script) | {name: b"x"})
    with pytest.raises(SlmxError, match=re.escape(f"holds {name!r}")):
        load_forward("torchscript", path, trusted=True)


def test_a_truncated_file_and_a_foreign_program_are_one_line(script: Path, pt2: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.ts"
    short.write_bytes(script.read_bytes()[:-30])
    with pytest.raises(SlmxError, match="no archive that slmx writes"):
        load_forward("torchscript", short, trusted=True)
    content = members(script)
    content["data.pkl"] = b"nonsense"
    with pytest.raises(SlmxError, match="PyTorch cannot load this"):
        load_forward("torchscript", write(tmp_path / "a.ts", content), trusted=True)
    content = members(pt2)
    edit(content, WEIGHTS, lambda config: config["config"].pop("model.ln_f.bias"))
    with pytest.raises(SlmxError, match="PyTorch cannot load this"):
        load_forward("pt2", write(tmp_path / "a.pt2", content), trusted=True)


@pytest.mark.parametrize("variant", ["pt2", "torchscript"])
def test_what_slmx_writes_is_loaded_when_it_is_trusted(variant: str, pt2: Path, script: Path, model: GPT) -> None:
    path = pt2 if variant == "pt2" else script
    session = open_session(variant, path, model.config, trusted=True)
    assert greedy_tokens(session, [1, 2, 3], 12) == generate_greedy(model, [1, 2, 3], 12)
    with pytest.raises(SlmxError) as refused:
        open_session(variant, path, model.config)
    assert str(refused.value) == (
        f"{path}: PyTorch can run code from this file; add --trust if you trust who made the bundle"
    )


def test_torchscript_of_older_versions_with_debugging_records_is_still_read(model: GPT, tmp_path: Path) -> None:
    path = tmp_path / "older.ts"
    with suppress_output():
        traced = torch.jit.trace(CachedGPT(model).eval(), sample_inputs(model.config), strict=False)  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), path)
    assert any(name.endswith(".debug_pkl") for name in members(path))
    session = open_session("torchscript", path, model.config, trusted=True)
    assert greedy_tokens(session, [1, 2, 3], 5) == generate_greedy(model, [1, 2, 3], 5)


def test_the_files_hold_no_pickled_inputs_and_nothing_of_the_machine(pt2: Path, script: Path) -> None:
    assert members(pt2)[SAMPLE_INPUTS] == b""
    here = Path(__file__).resolve().parents[3], Path(torch.__file__).resolve().parents[1]
    for path in (pt2, script):
        content = b"".join(members(path).values())
        assert not [folder for folder in here if str(folder).encode() in content]
        assert b".py" not in content
