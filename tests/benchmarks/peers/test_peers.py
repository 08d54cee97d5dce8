"""Other runtimes on the shipped nano. Each installed runtime writes the float model's ids, from its own files."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
import torch

from benchmarks.peers import PeerKind, Reader, RowWriter, run_steps
from benchmarks.peers.hugging_face_folder import write_hugging_face_folder
from benchmarks.peers.registry import PEERS, find_peer, find_peers
from benchmarks.run.runners import Job, open_runner
from export.exporter import export_bundle
from export.settings import ExportSettings
from runtimes.bundle.location import SHIPPED_BUNDLES
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.errors import SlmxError
from slm.folder_kind import PRETRAINED
from slm.importers.importer import ImportSettings, import_model
from slm.model import generate_greedy
from slm.presets import as_architecture, get_preset
from tests import bundles
from tests.benchmarks.peers.kinds import peer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
NANO = PRETRAINED / "nano"
NEW_TOKENS = 20
BEGINNING = "Once upon a time"
WHOLE = "One day, Tom was sad."  # the float model ends this story
LONGEST_STORY = 180
# The least share of a quantized peer's ids that the float model would have written at the same positions.
LIKELY = 0.8
HEAVY = {"ctranslate2", "gguf", "llama_cpp", "numpy", "onnx", "onnxruntime", "onnxruntime_genai", "openvino", "torch"}
WITHOUT_TORCH = ("llama.cpp F32", "onnxruntime-genai fp32", "CTranslate2 float32", "OpenVINO fp32")
FRESH = """
import json, sys
from pathlib import Path
from benchmarks.peers.registry import find_peer
run = find_peer(sys.argv[1]).open(Path(sys.argv[2]), 1).greedy(json.loads(sys.argv[3]), 3)
print(json.dumps([run.rows[0], sorted(sys.modules)]))
"""


@functools.cache
def nano() -> Checkpoint:
    return load_checkpoint(NANO)


@functools.cache
def prompts() -> list[list[int]]:
    """Ids of the beginning of a story, and of a whole story. The end token follows a whole story."""
    tokenizer = nano().tokenizer
    beginning, whole = ([tokenizer.end_of_text, *tokenizer.encode(text)] for text in (BEGINNING, WHOLE))
    story = generate_greedy(nano().model, whole, LONGEST_STORY)
    return [beginning, whole + story[: story.index(tokenizer.end_of_text)]]


def installed(name: str) -> PeerKind:
    """The peer of a test. The test is skipped if the peer cannot run."""
    kind = find_peer(name)
    if kind.missing:
        pytest.skip(f"{' and '.join(kind.missing)} not installed: {kind.install}")
    return kind


@functools.cache
def fp32_bundle() -> Path:
    out = bundles.folder("peers") / "nano"
    with bundles.brief_checks():
        export_bundle(ExportSettings("nano", out, variants=("fp32",)), lambda line: None)
    return out


@functools.cache
def prepared(name: str) -> Path:
    folder = bundles.folder("peer")
    bundle = fp32_bundle() if name == "onnxruntime-genai fp32" else SHIPPED_BUNDLES / "nano"
    find_peer(name).prepare(NANO, bundle, folder)
    return folder


@torch.inference_mode()
def likely(prompt: list[int], ids: list[int]) -> float:
    """The share of ids that the float model also chooses after the ids before them."""
    logits = nano().model(torch.tensor([prompt + ids]))[0, len(prompt) - 1 : -1]
    return float((logits.argmax(-1) == torch.tensor(ids)).float().mean())


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_writes_the_float_models_ids_and_does_not_stop_at_the_end(name: str) -> None:
    kind = installed(name)
    peer = kind.open(prepared(name), 1)
    for prompt in prompts():
        run = peer.greedy(prompt, NEW_TOKENS)
        expected = generate_greedy(nano().model, prompt, NEW_TOKENS)
        assert len(run.rows[0]) == NEW_TOKENS
        assert run.rows[0] == expected if kind.exact else likely(prompt, run.rows[0]) >= LIKELY
        assert run.first_token_seconds > 0
        assert run.decode_seconds > 0
        assert len(run.token_seconds) in (0, NEW_TOKENS - 1)
        assert run.token_seconds == [] or sum(run.token_seconds) == pytest.approx(run.decode_seconds)
        assert peer.greedy(prompt, NEW_TOKENS).rows[0] == run.rows[0]
    assert run.rows[0][0] == nano().tokenizer.end_of_text
    assert peer.greedy(prompts()[0], 1).rows[0] == generate_greedy(nano().model, prompts()[0], 1)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_names_the_files_that_hold_its_model(name: str) -> None:
    kind = installed(name)
    size = kind.weight_bytes(prepared(name))
    floats = 4 * nano().model.config.parameters
    assert floats <= size < 1.1 * floats if kind.exact else floats / 8 < size < floats / 3


@pytest.mark.parametrize(("kind", "block"), [("F32", 4 * 32), ("Q8_0", 34), ("Q4_0", 18)])
def test_the_tokenizer_in_a_gguf_does_not_count_as_weights_as_it_does_for_no_other_runner(
    kind: str, block: int, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    from benchmarks.peers.gguf_file import write_gguf

    path = tmp_path / "model.gguf"
    write_gguf(nano(), path, kind)
    state = nano().model.state_dict()
    wide = {name for name, tensor in state.items() if tensor.ndim == 2 and not name.startswith("wpe")}
    expected = sum(
        tensor.numel() // 32 * block if name in wide else 4 * tensor.numel() for name, tensor in state.items()
    )
    assert find_peer(f"llama.cpp {kind}").weight_bytes(tmp_path) == expected < path.stat().st_size - 200_000


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_peer_opens_in_a_fresh_process_without_torch_and_without_reporting(name: str, tmp_path: Path) -> None:
    installed(name)
    folder = bundles.copy_of(prepared(name), tmp_path / "elsewhere")
    ran = subprocess.run(
        [sys.executable, "-c", FRESH, name, folder, json.dumps(prompts()[0])],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=60,
    )
    ids, modules = json.loads(ran.stdout)
    assert ids == generate_greedy(nano().model, prompts()[0], 3)
    assert not {"torch", "gguf", "openvino_telemetry.main"} & set(modules)


def test_the_registry_loads_no_runtime() -> None:
    code = "import benchmarks.peers.registry, json, sys; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert not HEAVY & set(json.loads(ran.stdout))


def test_a_peer_is_found_by_its_name_and_a_runtimes_by_theirs() -> None:
    assert [kind.name for kind in find_peers("llama.cpp")] == ["llama.cpp F32", "llama.cpp Q8_0", "llama.cpp Q4_0"]
    assert find_peers("optimum") == [find_peer("optimum")] == [PEERS["optimum"]]
    for find in (find_peer, find_peers):
        with pytest.raises(
            SlmxError, match=r"unknown peer 'llama' \(did you mean llama\.cpp\?\): choose one of llama\.cpp, optimum"
        ):
            find("llama")


def test_what_is_missing_is_named() -> None:
    kind = dataclasses.replace(PEERS["optimum"], modules=("json", "nowhere", "nowhere.inside"), writers=("neither",))
    assert kind.missing == ["nowhere", "nowhere.inside", "neither"]
    assert all("pip install" in kind.install for kind in PEERS.values())


def test_steps_are_fed_one_by_one_and_timed() -> None:
    fed: list[list[int]] = []

    def step(ids: list[int]) -> list[int]:
        fed.append(ids)
        return [number + 1 for number in ids]

    run = run_steps(lambda: [1, 7], step, 3)
    assert (run.rows, fed) == ([[1, 2, 3], [7, 8, 9]], [[1, 7], [2, 8]])
    assert len(run.token_seconds) == 2


@pytest.mark.parametrize("arch", ["gpt2", "llama"])
def test_transformers_computes_the_same_from_the_folder_and_it_comes_back(arch: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = as_architecture(get_preset("nano").config, arch)
    checkpoint = dataclasses.replace(nano(), model=bundles.random_model(config))
    (tmp_path / "hf").mkdir()
    write_hugging_face_folder(checkpoint, tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", local_files_only=True).eval()
    ids = torch.tensor([list(range(0, 4000, 40))])
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, checkpoint.model(ids), rtol=1e-4, atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "hf").encode("Lily ran.") == nano().tokenizer.encode(
        "Lily ran."
    )
    assert import_model(ImportSettings(str(tmp_path / "hf"), tmp_path / "back"), print).config == config
    back = load_checkpoint(tmp_path / "back").model.state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in checkpoint.model.state_dict().items())


ROW_WRITERS = ("llama.cpp F32", "llama.cpp Q8_0", "llama.cpp Q4_0")


def test_the_registry_names_the_peers_that_write_rows() -> None:
    assert {name for name, kind in PEERS.items() if kind.writes_rows} == set(ROW_WRITERS)


@pytest.mark.parametrize("name", ROW_WRITERS)
def test_rows_and_a_history_give_the_ids_of_one_row_after_all_of_it(name: str) -> None:
    writer = cast(RowWriter, installed(name).open(prepared(name), 1))
    whole = prompts()[1]
    for prompt in (prompts()[0], whole[:50]):
        alone = writer.greedy(prompt, NEW_TOKENS).rows
        run = writer.greedy(prompt, NEW_TOKENS, rows=8)
        assert run.rows == alone * 8
        assert len(run.token_seconds) == NEW_TOKENS - 1
    history, prompt = whole[:40], whole[40:50]
    for rows in (1, 3):
        assert writer.greedy(prompt, NEW_TOKENS, history, rows).rows == alone * rows
    context = nano().model.config.block_size
    full = (whole * context)[: context - 4]
    assert writer.greedy(full, 4, rows=2).rows == writer.greedy(full, 4).rows * 2
    with pytest.raises(SlmxError, match="request no more ids than the context holds"):
        writer.greedy(full, 6, rows=2)


def test_a_worker_gives_a_peer_the_history_and_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    class Writer:
        def greedy(self, *arguments: object) -> None:
            given.append(arguments)

    for writes_rows in (True, False):
        kind = peer(open=lambda folder, threads: Writer(), writes_rows=writes_rows)
        monkeypatch.setitem(PEERS, "other", kind)
        job = Job("other", True, ".", False, {}, threads=1, batch=8, history=[1], prompt=[2, 3], new_tokens=4)
        open_runner(job)()
    assert given == [([2, 3], 4, [1], 8), ([2, 3], 4)]


READERS = {"llama.cpp F32": 0.9999, "llama.cpp Q8_0": 0.999, "llama.cpp Q4_0": 0.95}
READERS |= {"CTranslate2 float32": 0.9999, "CTranslate2 int8": 0.999}


def test_the_registry_names_the_peers_that_read() -> None:
    assert {name for name, kind in PEERS.items() if kind.reads} == READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_a_peer_that_reads_gives_logits_like_the_float_models_after_each_id(name: str) -> None:
    reader = cast(Reader, installed(name).open(prepared(name), 1))
    for _ in range(2):  # the second reading begins with an empty context too
        logits = torch.from_numpy(reader.read(prompts()[1]))
        with torch.inference_mode():
            expected = nano().model(torch.tensor([prompts()[1]]))[0]
        assert logits.shape == expected.shape
        pairs = zip(logits, expected, strict=True)
        alike = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in pairs]
        assert sum(alike) / len(alike) > READERS[name]
