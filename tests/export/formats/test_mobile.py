"""The .ort file needs exactly the operators of its list, and the loop of docs/mobile.md writes our tokens with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnxruntime.tools.ort_format_model.ort_model_processor import OrtFormatModelProcessor

from export.formats.mobile import OPERATORS_SUFFIX, export_mobile
from runtimes import load
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from tests import bundles

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[3] / "docs" / "mobile.md"
PROMPT, TOKENS = "Once upon a time", 24


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Bundle:
    return Bundle.open(bundles.tiny_bundle_of_all(tiny_checkpoint))


def read_list(path: Path) -> dict[str, dict[int, set[str]]]:
    """The operators of a list, by domain and version."""
    found: dict[str, dict[int, set[str]]] = {}
    for line in path.read_text("utf-8").splitlines():
        domain, version, names = line.split(";")
        found.setdefault(domain, {})[int(version)] = set(names.split(","))
    return found


def stored_operators(path: Path) -> dict[str, dict[int, set[str]]]:
    """The operators of the nodes in an .ort file, read without running it."""
    found: dict[str, dict[int, set[str]]] = {}
    OrtFormatModelProcessor(str(path), found, None).process()
    return found


def executed_operators(model: Path, folder: Path) -> set[str]:
    """The operators that onnxruntime runs for one token, from its profile."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = {}
    for value in session.get_inputs():
        kind = np.float32 if "float" in value.type else np.int64
        known = {"batch_size": 1, "sequence_length": 1, "total_sequence_length": 1, "past_sequence_length": 0}
        inputs[value.name] = np.ones([known.get(size, size) for size in value.shape], kind)
    session.run(None, inputs)
    events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    return {event["args"]["op_name"] for event in events if "op_name" in event.get("args", {})}


@pytest.mark.parametrize("source", ["int8", "fp32"])
def test_its_operators_are_those_of_the_list(bundle: Bundle, tmp_path: Path, source: str) -> None:
    path = tmp_path / "model.ort"
    export_mobile(bundle.path / VARIANTS[source].file, path)
    listed = read_list(tmp_path / f"model{OPERATORS_SUFFIX}")
    assert stored_operators(path) == listed
    names = {name for versions in listed.values() for listed_names in versions.values() for name in listed_names}
    run = executed_operators(path, tmp_path)
    assert run
    assert run <= names


def test_a_missing_operator_would_be_noticed(bundle: Bundle) -> None:
    path = bundle.path / VARIANTS["mobile"].file
    listed = read_list(path.with_name(path.stem + OPERATORS_SUFFIX))
    assert stored_operators(path) == listed
    listed["com.microsoft"][1].discard("GroupQueryAttention")
    assert stored_operators(path) != listed


def page_loop(session: ort.InferenceSession, bundle: Bundle, ids: list[int]) -> Iterator[int]:
    """The loop of docs/mobile.md with the same calls: one buffer for each key and value, both input and output."""
    config = bundle.config
    shape = (1, config.kv_heads, config.block_size, config.head_dim)
    cache = [np.zeros(shape, np.float32) for _ in range(2 * config.n_layer)]
    mask = np.zeros((1, config.block_size), np.int64)
    length = 0
    while True:
        new = np.array([ids], np.int64)
        positions = np.arange(length, length + len(ids))[None]
        logits = np.zeros((1, len(ids), config.vocab_size), np.float32)
        mask[0, length : length + len(ids)] = 1
        binding = session.io_binding()
        fed: dict[str, npt.NDArray[Any]] = {"input_ids": new, "position_ids": positions, "attention_mask": mask}
        for number, buffer in enumerate(cache):
            part = f"{number // 2}.{'value' if number % 2 else 'key'}"
            fed[f"past_key_values.{part}"] = buffer
            binding.bind_output(f"present.{part}", "cpu", 0, np.float32, shape, buffer.ctypes.data)
        for name, array in fed.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        session.run_with_iobinding(binding)
        length += len(ids)
        token = int(logits[0, -1].argmax())
        yield token
        ids = [token]


def test_the_loop_of_the_page_writes_our_tokens(bundle: Bundle) -> None:
    session = ort.InferenceSession(bundle.path / VARIANTS["mobile"].file, providers=["CPUExecutionProvider"])
    tokenizer = bundle.tokenizer()
    loop = page_loop(session, bundle, [tokenizer.begin, *tokenizer.encode(PROMPT)])
    with load(bundle.path, "mobile") as generator:
        ours = generator.generate(PROMPT, temperature=0, max_tokens=TOKENS).ids
    assert [next(loop) for _ in ours] == ours


def test_the_page_uses_the_names_and_shapes_of_the_graph() -> None:
    """Every name in the Kotlin and in the Swift block is one of the shipped nano, and the sizes are nano's."""
    shipped = Bundle.open(Path(load.__code__.co_filename).parent / "bundles" / "nano")
    session = ort.InferenceSession(bytes(shipped.model_bytes("int8")), providers=["CPUExecutionProvider"])
    known = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
    config = shipped.config
    sizes = [
        config.n_layer,
        config.kv_heads,
        config.head_dim,
        config.block_size,
        config.vocab_size,
        shipped.tokenizer().end_of_text,
    ]
    for language in ("kotlin", "swift"):
        (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        used = set(
            re.findall(r'"((?:past_key_values|present)\.[^"]+|input_ids|position_ids|attention_mask|logits)"', block)
        )
        named = {
            re.sub(r"\$\{?layer\}?|\\\(layer\)", "0", re.sub(r"\$\{?part\}?|\\\(part\)", "key", name)) for name in used
        }
        assert named == {name for name in known if "." not in name or name.endswith(".0.key")}
        numbers = {int(number) for number in re.findall(r"\b\d+\b", block)}
        assert set(sizes) <= numbers
