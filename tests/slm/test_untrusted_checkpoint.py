"""A checkpoint of someone else, whose listing fits its files, is loaded or refused with a line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from slm.checkpoint import load_checkpoint
from slm.checkpoint_config import CONFIG_FILE
from slm.console.errors import SlmxError
from slm.storage.file_names import JSON_FILE, RANKS_FILE, RECORD_FILE, WEIGHTS_FILE
from slm.storage.hashing import sha256_of


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def swap(folder: Path, name: str, content: bytes) -> None:
    """Changes a file, and its hash with it."""
    (folder / name).write_bytes(content)
    hashes = json.loads((folder / CONFIG_FILE).read_text())["sha256"]
    edit(folder, sha256=hashes | {name: sha256_of(folder / name)})


@pytest.mark.parametrize("part", ["\ud800", ""])
def test_merges_that_no_file_can_hold_are_refused(part: str, copy: Path) -> None:
    content = json.loads((copy / JSON_FILE).read_text("utf-8"))
    content["model"]["merges"][0] = ["a", part]
    swap(copy, JSON_FILE, json.dumps(content).encode())
    with pytest.raises(SlmxError, match=r"tokenizer\.json: cannot read the merges \(merge 0 is not a pair of texts\)"):
        load_checkpoint(copy)


def test_another_format_or_shape(copy: Path) -> None:
    shape = json.loads((copy / CONFIG_FILE).read_text())["shape"]
    edit(copy, format_version=2)
    with pytest.raises(SlmxError, match="format 2, this slmx reads 1; upgrade"):
        load_checkpoint(copy)
    edit(copy, format_version=1, shape=shape | {"n_embd": 64})
    with pytest.raises(SlmxError, match="does not fit the shape"):
        load_checkpoint(copy)
    edit(copy, shape={"n_embd": 64})
    with pytest.raises(SlmxError, match="shape lacks"):
        load_checkpoint(copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", "nonsense", '{"format_version": 1}'])
def test_a_config_that_is_none(content: str, copy: Path) -> None:
    (copy / CONFIG_FILE).write_text(content)
    with pytest.raises(SlmxError, match=r"config\.json: not the config\.json of a .* \(.*; copy the folder again"):
        load_checkpoint(copy)


@pytest.mark.parametrize("shape", [None, 5, "wide", [], {}])
def test_a_shape_that_is_none(shape: object, copy: Path) -> None:
    edit(copy, shape=shape)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(copy)
    assert str(caught.value).startswith(f"{copy / CONFIG_FILE}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [{"n_embd": 2_000_000}, {"n_layer": 10**12}, {"vocab_size": 10**12}, {"n_layer": 1}])
def test_the_weights_decide_what_is_built(sizes: dict[str, int], copy: Path) -> None:
    edit(copy, shape=json.loads((copy / CONFIG_FILE).read_text())["shape"] | sizes)
    with pytest.raises(SlmxError, match=r"model\.safetensors: does not fit the shape in config\.json \(.* parameters"):
        load_checkpoint(copy)


def test_as_many_weights_in_another_shape_are_refused(copy: Path) -> None:
    shape = json.loads((copy / CONFIG_FILE).read_text())["shape"]
    moved = {"block_size": shape["block_size"] + 1, "vocab_size": shape["vocab_size"] - 1}
    edit(copy, shape=shape | moved)
    with pytest.raises(SlmxError, match=r"model\.safetensors: does not fit the shape in config\.json") as caught:
        load_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_a_newer_format_is_told_from_damage_whatever_else_it_holds(copy: Path) -> None:
    (copy / CONFIG_FILE).write_text('{"format_version": 2, "model": {}}')
    with pytest.raises(SlmxError, match=r"config\.json: checkpoint format 2, this slmx reads 1; upgrade slmx"):
        load_checkpoint(copy)


def test_weights_that_are_no_safetensors(copy: Path) -> None:
    swap(copy, WEIGHTS_FILE, b"x" * 1000)
    with pytest.raises(SlmxError, match=r"model\.safetensors: not a whole .* file \(.*; copy it again") as caught:
        load_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_the_tokenizer_of_another_model(copy: Path) -> None:
    lines = (copy / RANKS_FILE).read_bytes().splitlines(keepends=True)
    swap(copy, RANKS_FILE, b"".join(lines[:-5]))
    with pytest.raises(SlmxError, match="395 tokens in the tokenizer, 400 in the model"):
        load_checkpoint(copy)


@pytest.fixture(scope="module")
def to_spoil(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One copy for the examples of a property. Each example writes the file that it damages again."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("spoilt é %") / "check#point"))


def refusal(folder: Path) -> str:
    """The message with which a checkpoint is refused, or nothing."""
    try:
        load_checkpoint(folder)
    except SlmxError as error:
        return str(error)
    return ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CONFIG_KEYS = ("format_version", "preset", "shape", "sha256", "parameters")
SHAPE_KEYS = ("block_size", "vocab_size", "n_layer", "n_head", "n_embd")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200) | st.text(max_size=100).map(str.encode) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_as_config_are_refused_in_one_line(to_spoil: Path, content: bytes) -> None:
    (to_spoil / CONFIG_FILE).write_bytes(content)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(to_spoil)
    assert str(caught.value).startswith(str(to_spoil / CONFIG_FILE))
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(CONFIG_KEYS), value=JSON)
def test_any_value_in_the_config_loads_or_is_refused_in_one_line(
    tiny_checkpoint: Path, to_spoil: Path, key: str, value: object
) -> None:
    whole = json.loads((tiny_checkpoint / CONFIG_FILE).read_text())
    (to_spoil / CONFIG_FILE).write_text(json.dumps(whole | {key: value}))
    message = refusal(to_spoil)
    assert not message or message.startswith(str(to_spoil))
    assert "\n" not in message


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from(SHAPE_KEYS), value=st.integers() | st.sampled_from([10**9, 2**62, 10**400]) | JSON)
def test_any_size_in_the_shape_loads_or_is_refused_in_one_line(
    tiny_checkpoint: Path, to_spoil: Path, key: str, value: object
) -> None:
    whole = json.loads((tiny_checkpoint / CONFIG_FILE).read_text())
    (to_spoil / CONFIG_FILE).write_text(json.dumps(whole | {"shape": whole["shape"] | {key: value}}))
    message = refusal(to_spoil)
    assert not message or message.startswith(str(to_spoil))
    assert "\n" not in message


@pytest.mark.parametrize("name", [CONFIG_FILE, RECORD_FILE, JSON_FILE])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[" * 100_000, id="deep list"),
        pytest.param(b'{"a":' * 100_000, id="deep object"),
        b'{"a": 1, "a": 2}',
        b'{"a": NaN}',
        b"\xff",
        b"[]",
        b"7",
    ],
)
def test_hostile_json_is_one_line(name: str, content: bytes, copy: Path) -> None:
    if name == CONFIG_FILE:
        (copy / name).write_bytes(content)
    else:
        swap(copy, name, content)
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(copy)
    assert str(caught.value).startswith(f"{copy / name}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("preset", ["../../x", "/tmp/x", "a/b", "", "a\nb", "..", None, 5])
def test_a_preset_that_could_name_another_folder_is_refused(preset: object, copy: Path) -> None:
    edit(copy, preset=preset)
    with pytest.raises(SlmxError, match=r"config\.json: not the config\.json of .*preset is not a plain name"):
        load_checkpoint(copy)


def test_hashes_of_other_files_are_not_opened(copy: Path) -> None:
    hashes = json.loads((copy / CONFIG_FILE).read_text())["sha256"]
    edit(copy, sha256=hashes | {"../../etc/passwd": "0" * 64, "/dev/zero": "0" * 64})
    assert load_checkpoint(copy).preset == "nano"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS_FILE)
    tensors["h.1.mlp.c_fc.bias"][3] = value
    swap(copy, WEIGHTS_FILE, save(tensors))
    with pytest.raises(SlmxError, match=r"model\.safetensors: 'h\.1\.mlp\.c_fc\.bias' holds NaN or infinity; "):
        load_checkpoint(copy)


def test_weights_of_whole_numbers_are_refused(copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS_FILE)
    tensors["ln_f.bias"] = tensors["ln_f.bias"].to(torch.int8)
    swap(copy, WEIGHTS_FILE, save(tensors))
    with pytest.raises(SlmxError, match=r"'ln_f\.bias' is torch\.int8, not a float tensor"):
        load_checkpoint(copy)


@pytest.mark.parametrize("change", ["renamed", "extra", "missing", "flat"])
def test_tensors_that_contradict_the_shape_are_refused(change: str, copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS_FILE)
    bias = tensors["ln_f.bias"]
    if change != "extra":
        del tensors["ln_f.bias"]
    if change in ("renamed", "extra"):
        tensors["ln_f.more\n"] = bias.clone()
    if change == "flat":
        tensors["ln_f.bias"] = bias.reshape(1, -1).clone()
    swap(copy, WEIGHTS_FILE, save(tensors))
    with pytest.raises(SlmxError, match=r"model\.safetensors: does not fit the shape in config\.json \(") as caught:
        load_checkpoint(copy)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(position=st.integers(0, 3000), content=st.binary(min_size=1, max_size=12))
def test_any_damage_of_the_safetensors_header_is_one_line(
    tiny_checkpoint: Path, to_spoil: Path, position: int, content: bytes
) -> None:
    shutil.copyfile(tiny_checkpoint / CONFIG_FILE, to_spoil / CONFIG_FILE)
    weights = bytearray((tiny_checkpoint / WEIGHTS_FILE).read_bytes())
    weights[position : position + len(content)] = content
    swap(to_spoil, WEIGHTS_FILE, bytes(weights))
    message = refusal(to_spoil)
    assert not message or message.startswith(str(to_spoil))
    assert "\n" not in message


def test_the_record_of_a_model_that_was_tuned_many_times_is_read(copy: Path) -> None:
    record: dict[str, object] = {}
    for _ in range(50):
        record = {"origin": {"config_sha256": "0" * 64, "record": record}}
    swap(copy, RECORD_FILE, json.dumps(record).encode())
    assert load_checkpoint(copy).record == record


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": 5}, "data is not a list"),
        ({"data": [{"split": "train"}]}, "data.0.file is missing"),
        ({"tokens_seen": 1e999}, "tokens_seen is not a whole number"),
        ({"steps_done": "4"}, "steps_done is not a whole number"),
        ({"plan": {"steps": "8"}}, "plan.steps is not a whole number"),
        ({"plan": []}, "plan is not an object"),
        ({"plan": {"qat": [1]}}, "plan.qat is not a text"),
        ({"teachers": {}}, "teachers is not a list"),
        ({"teachers": [{"preset": "a\nb"}]}, "teachers.0.preset is not a text"),
        ({"teachers": [{"preset": "a"}]}, "teachers.0.config_sha256 is missing"),
        ({"best": {"bits_per_byte": "<script>"}}, "best.bits_per_byte is not a number"),
        ({"init": {"record": {"tokens_seen": "many"}}}, "init.record.tokens_seen is not a whole number"),
    ],
)
def test_a_record_of_other_types_is_one_line(changes: dict[str, object], said: str, copy: Path) -> None:
    record = json.loads((copy / RECORD_FILE).read_text("utf-8")) | changes
    swap(copy, RECORD_FILE, json.dumps(record).encode().replace(b"Infinity", b"1e999"))
    with pytest.raises(SlmxError) as caught:
        load_checkpoint(copy)
    start = str(caught.value).partition(" from ")[0]
    assert start.startswith(f"{copy / RECORD_FILE}: not a training record ({said}")
