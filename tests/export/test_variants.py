"""Every variant of one bundle: the content of its file, the libraries that can run it, and the same model in all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from export.checks.greedy import greedy_tokens
from export.checks.operators import check_operators
from export.checks.parity import open_forward, parity
from export.checks.torch_session import empty_past, float_session, open_session
from export.formats.blockwise import quantize_blockwise
from runtimes.bundle.shape import cache_names
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.cache import CACHE_GROWS, GrowingCache, open_onnx
from runtimes.engine.session import Session
from slm.blocks import BLOCK_RECIPES, HEAD_BITS
from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.model import GPT, generate_greedy
from slm.presets import GPTConfig
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

TORCH_VARIANTS = [name for name, variant in VARIANTS.items() if variant.is_torch]
# torch.jit.load and torch.export.load in a process that cannot import slmx.
FOREIGN = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("slm", "export", "runtimes", "benchmarks"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
import torch
variant, path, layers, heads, width, *ids = sys.argv[1:]
module = torch.jit.load(path) if variant == "torchscript" else torch.export.load(path).module()
past = [torch.zeros(1, int(heads), 0, int(width)) for _ in range(2 * int(layers))]
step, written = torch.tensor([[int(i) for i in ids]]), []
for _ in range(20):
    logits, past = module(step, past)
    written.append(int(logits[0, -1].argmax()))
    step = torch.tensor([written[-1:]])
print(*written)
"""


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Bundle:
    return Bundle.open(bundles.tiny_bundle_of_all(tiny_checkpoint))


@pytest.fixture(scope="module")
def prompt(checkpoint: Checkpoint) -> list[int]:
    return [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode("One day")]


def path_of(bundle: Bundle, variant: str) -> Path:
    return bundle.path / VARIANTS[variant].file


def test_all_of_them_are_there_and_the_default_is_int8(bundle: Bundle) -> None:
    assert list(bundle.manifest.variants) == list(VARIANTS)
    assert bundle.manifest.default == bundle.variants[0] == "int8"
    assert set(bundle.variants) == {"fp32", "int8", "q8", "int4", "fp16", "portable", "mobile"}
    assert all(path_of(bundle, name).is_file() for name in VARIANTS)


@pytest.mark.parametrize("variant", ["fp32", "portable", *TORCH_VARIANTS])
def test_float_variants_compute_what_pytorch_computes(bundle: Bundle, checkpoint: Checkpoint, variant: str) -> None:
    forward = open_forward(variant, path_of(bundle, variant), bundle.config, trusted=True)
    limit = VARIANTS[variant].gate.parity
    stored = bundle.manifest.variants[variant].figures.parity
    assert limit is not None
    assert stored is not None
    assert parity(checkpoint.model, forward, chunked_batches=variant != "fp32") <= limit
    assert stored <= limit


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in TORCH_VARIANTS])
def test_our_loop_tells_a_story_with_each(slmx: Slmx, bundle: Bundle, variant: str) -> None:
    ran = slmx("generate", "One day", "--bundle", bundle.path, "--variant", variant, "--temperature", "0", "--json")
    assert ran.code == 0
    printed = json.loads(ran.stdout)
    assert printed["variant"] == variant
    assert printed["text"].startswith("One day")
    assert len(printed["ids"]) > 10


@pytest.mark.parametrize("variant", TORCH_VARIANTS)
def test_our_loop_says_who_runs_the_others(slmx: Slmx, bundle: Bundle, variant: str) -> None:
    line = slmx.refuses("generate", "One day", "--bundle", bundle.path, "--variant", variant)
    assert line == f"{bundle.path}: {variant} is for PyTorch; onnxruntime runs {', '.join(bundle.variants)}"


@pytest.mark.heavy
@pytest.mark.parametrize("variant", TORCH_VARIANTS)
def test_pytorch_runs_them_with_no_slmx_installed(
    bundle: Bundle, checkpoint: Checkpoint, prompt: list[int], variant: str, tmp_path: Path
) -> None:
    config = bundle.config
    sizes = (config.n_layer, config.n_head, config.head_dim)
    command = [sys.executable, "-c", FOREIGN, variant, *map(str, (path_of(bundle, variant), *sizes, *prompt))]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True)
    assert [int(token) for token in ran.stdout.split()] == generate_greedy(checkpoint.model, prompt, 20)


@pytest.mark.parametrize("variant", TORCH_VARIANTS)
def test_a_batch_is_its_rows(bundle: Bundle, variant: str) -> None:
    forward = open_forward(variant, path_of(bundle, variant), bundle.config, trusted=True)
    ids = torch.randint(bundle.config.vocab_size, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole, _ = forward(ids, empty_past(bundle.config, 3))
        for row in range(3):
            alone, _ = forward(ids[row : row + 1], empty_past(bundle.config, 1))
            torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_fp16_is_half_the_bytes_and_nearly_the_same(bundle: Bundle) -> None:
    half, whole = (bundles.initializers(path_of(bundle, name)) for name in ("fp16", "fp32"))
    matrices = {name for name, tensor in whole.items() if len(tensor.dims) == 2}
    assert {name.removesuffix(".half") for name in half if name.endswith(".half")} == matrices
    assert all(half[f"{name}.half"].data_type == onnx.TensorProto.FLOAT16 for name in matrices)
    assert not matrices & set(half)
    quality = bundle.manifest.variants["fp16"].figures.quality
    assert quality is not None
    assert quality.windows.kl < 1e-4


@pytest.mark.parametrize("variant", BLOCK_RECIPES)
def test_weights_in_blocks_are_checked_and_described(bundle: Bundle, variant: str) -> None:
    graph = onnx.load(path_of(bundle, variant)).graph
    assert not [node for node in graph.node if node.op_type in ("MatMul", "MatMulInteger")]
    entry, recipe = bundle.manifest.variants[variant], BLOCK_RECIPES[variant]
    rounding = "gptq" if variant == "int4" else "nearest"
    assert entry.settings == {**recipe.settings, "head_bits": HEAD_BITS, "rounding": rounding}
    assert entry.figures.operators is not None
    assert entry.figures.operators.quantized == 4 * bundle.config.n_layer + 1
    assert check_operators(variant, path_of(bundle, variant), bundle.config, []).wrong == ()
    quality, limit = entry.figures.quality, VARIANTS[variant].gate.bpb_increase
    assert quality is not None
    assert limit is not None
    assert quality.decode is not None
    assert quality.decode.kl > 0
    assert quality.worst_bpb_increase <= limit


@pytest.mark.parametrize("trained", [False, True])
def test_int4_is_rounded_by_gptq_unless_the_model_was_trained_for_it(
    slmx: Slmx, checkpoint: Checkpoint, tmp_path: Path, trained: bool
) -> None:
    record = {"plan": {"qat": "int4"}} if trained else {}
    trained_for_it = tmp_path / "checkpoint"
    trained_for_it.mkdir()
    save_checkpoint(trained_for_it, "nano", checkpoint.model, checkpoint.tokenizer, checkpoint.merges, record)
    with bundles.brief_checks():
        ran = slmx("export", "--checkpoint", trained_for_it, "--int4", "--out", "b")
        other = slmx("export", "--checkpoint", trained_for_it, "--out", "other")
    assert ran.code == other.code == 0
    told = "this model was trained for int4, which is not asked for: --int4 adds it"
    assert (told in ran.stderr, told in other.stderr) == (False, trained)
    made = Bundle.open(Path("b"))
    settings = made.manifest.variants["int4"].settings
    assert settings is not None
    assert settings["rounding"] == ("nearest" if trained else "gptq")
    nearest = tmp_path / "nearest.onnx"
    quantize_blockwise(path_of(made, "fp32"), nearest, BLOCK_RECIPES["int4"], None)
    assert (path_of(made, "int4").read_bytes() == nearest.read_bytes()) is trained


def test_q8_is_closer_to_float_than_int8_and_int4(bundle: Bundle) -> None:
    found = {name: bundle.manifest.variants[name].figures.quality for name in ("q8", "int8", "int4")}
    kl = {name: quality.worst.kl for name, quality in found.items() if quality is not None}
    assert kl["q8"] < kl["int8"] < kl["int4"]


def test_a_context_of_one_token_is_refused(slmx: Slmx, checkpoint: Checkpoint) -> None:
    config = GPTConfig(block_size=1, vocab_size=checkpoint.tokenizer.vocab_size, n_layer=1, n_head=1, n_embd=8)
    folder = bundles.folder("one token")
    save_checkpoint(folder, "nano", GPT(config).eval(), checkpoint.tokenizer, checkpoint.merges, {})
    line = slmx.refuses("export", "--checkpoint", folder)
    assert line.endswith("a context of one token predicts nothing; train with --block-size 2 or more")


@pytest.mark.parametrize("variant", BLOCK_RECIPES)
def test_a_width_that_no_block_divides_is_refused(slmx: Slmx, checkpoint: Checkpoint, variant: str) -> None:
    config = GPTConfig(block_size=16, vocab_size=checkpoint.tokenizer.vocab_size, n_layer=1, n_head=3, n_embd=24)
    folder = bundles.folder("odd")
    save_checkpoint(folder, "nano", GPT(config).eval(), checkpoint.tokenizer, checkpoint.merges, {})
    line = slmx.refuses("export", "--checkpoint", folder, f"--{variant}")
    assert (
        line == f"{variant} needs widths that its blocks of 16 divide, not 24; leave out --int4 and --q8 for this shape"
    )


def test_heads_that_onnxruntime_cannot_run_are_refused_but_for_the_portable_graph(
    slmx: Slmx, checkpoint: Checkpoint
) -> None:
    vocabulary = checkpoint.tokenizer.vocab_size
    folder = bundles.folder("heads")
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=32, vocab_size=vocabulary, n_layer=1, n_head=3, n_embd=36)).eval()
    save_checkpoint(folder, "custom", model, checkpoint.tokenizer, checkpoint.merges, {})
    line = slmx.refuses("export", "--checkpoint", folder)
    assert "heads of 12 channels; onnxruntime's GroupQueryAttention needs a multiple of 8" in line
    with bundles.brief_checks():
        assert slmx("export", "--checkpoint", folder, "--no-fp32", "--portable", "--out", "b").code == 0
    assert slmx("generate", "One", "--bundle", "b", "--max-tokens", "3", "--seed", "1").code == 0


def test_mobile_lists_the_operators_it_needs(bundle: Bundle) -> None:
    entry = bundle.manifest.variants["mobile"]
    assert entry.of == "int8"
    assert entry.figures.same_greedy_tokens is True
    lines = (bundle.path / "mobile/model.required_operators.config").read_text("utf-8").splitlines()
    needed = {name for line in lines for name in line.split(";")[2].split(",")}
    assert {"DynamicQuantizeMatMul", "GroupQueryAttention", "SkipLayerNormalization", "FastGelu"} <= needed
    assert not any(line.startswith("#") for line in lines)


def test_mobile_is_made_from_q8_if_there_is_no_int8(slmx: Slmx, tiny_checkpoint: Path) -> None:
    with bundles.brief_checks():
        ran = slmx("export", "--checkpoint", tiny_checkpoint, "--q8", "--mobile", "--no-fp32", "--out", "b")
    assert ran.code == 0
    manifest = Bundle.open(Path("b")).manifest
    assert manifest.default == manifest.variants["mobile"].of == "q8"
    operators = Path("b/mobile/model.required_operators.config").read_text("utf-8")
    assert "MatMulNBits" in operators
    assert "DynamicQuantizeMatMul" not in operators


def test_portable_has_standard_operators_only(bundle: Bundle) -> None:
    model = onnx.load(path_of(bundle, "portable"))
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 23)]
    assert sum(node.op_type == "Attention" for node in model.graph.node) == bundle.config.n_layer


@pytest.mark.parametrize("variant", ["fp32", "int8", "q8", "int4", "fp16"])
def test_the_others_pass_the_checker_too(bundle: Bundle, variant: str) -> None:
    onnx.checker.check_model(onnx.load(path_of(bundle, variant)))


def feed(
    config: GPTConfig, ids: npt.NDArray[np.int64], past: list[npt.NDArray[np.float32]] | None
) -> dict[str, npt.NDArray[np.generic]]:
    """Inputs for ids [batch, new] after a cache, by name."""
    names, _ = cache_names(config.n_layer)
    batch, new = ids.shape
    empty = np.zeros((batch, config.n_head, 0, config.head_dim), np.float32)
    values = past or [empty for _ in names]
    start = values[0].shape[2]
    return {
        "input_ids": ids,
        "attention_mask": np.ones((batch, start + new), np.int64),
        "position_ids": np.tile(np.arange(start, start + new, dtype=np.int64), (batch, 1)),
        **dict(zip(names, values, strict=True)),
    }


def test_portable_runs_in_the_reference_implementation(bundle: Bundle) -> None:
    path, config = path_of(bundle, "portable"), bundle.config
    ours, theirs = open_onnx(path, 1), ReferenceEvaluator(str(path))
    ids = np.random.default_rng(0).integers(0, config.vocab_size, (2, 7))
    expected, *present = ours.run(None, feed(config, ids, None))
    given, *their_present = (np.asarray(value) for value in theirs.run(None, feed(config, ids, None)))
    np.testing.assert_allclose(given, expected, atol=1e-4)
    again = np.random.default_rng(1).integers(0, config.vocab_size, (2, 3))
    np.testing.assert_allclose(
        np.asarray(theirs.run(["logits"], feed(config, again, their_present))),
        ours.run(["logits"], feed(config, again, present)),
        atol=1e-4,
    )


def test_portable_takes_rows_padded_on_the_left(bundle: Bundle) -> None:
    config, session = bundle.config, open_onnx(path_of(bundle, "portable"), 1)
    rows = np.random.default_rng(0).integers(0, config.vocab_size, (2, 9))
    inputs = feed(config, rows, None)
    inputs["attention_mask"][1, :4] = 0
    inputs["position_ids"][1] = np.maximum(np.arange(9) - 4, 0)
    padded = session.run(["logits"], inputs)[0]
    np.testing.assert_allclose(padded[0], session.run(["logits"], feed(config, rows[:1], None))[0][0], atol=1e-4)
    alone = session.run(["logits"], feed(config, rows[1:, 4:], None))[0][0]
    np.testing.assert_allclose(padded[1, 4:], alone, atol=1e-4)


def test_the_growing_cache_keeps_the_verbs_of_the_shared_one(bundle: Bundle) -> None:
    grows, shares = (Session.open(path_of(bundle, name), bundle.config) for name in ("portable", "fp32"))
    assert isinstance(grows._cache, GrowingCache)
    assert CACHE_GROWS in {entry.key for entry in onnx.load(path_of(bundle, "portable")).metadata_props}
    ids = np.random.default_rng(0).integers(0, bundle.config.vocab_size, bundle.config.block_size).tolist()
    for session in (grows, shares):
        session.prefill(ids[:20])
        session.rewind(11)
    np.testing.assert_allclose(grows.score(ids[30:35]), shares.score(ids[30:35]), atol=1e-4)
    np.testing.assert_allclose(grows.step(ids[40]), shares.step(ids[40]), atol=1e-4)
    assert grows.length == shares.length == 17


@pytest.mark.parametrize("runner", ["torch eager", *TORCH_VARIANTS])
def test_pytorch_behind_a_session_keeps_its_verbs(bundle: Bundle, checkpoint: Checkpoint, runner: str) -> None:
    config = bundle.config
    ours = open_session("fp32", path_of(bundle, "fp32"), config)
    theirs = (
        float_session(checkpoint.model)
        if runner == "torch eager"
        else open_session(runner, path_of(bundle, runner), config, trusted=True)
    )
    ids = np.random.default_rng(0).integers(0, config.vocab_size, config.block_size).tolist()
    seen = []
    for session in (ours, theirs):
        logits = [session.prefill(ids[:20])]
        session.rewind(11)
        logits += [*session.score(ids[30:35])]
        fork = session.fork()
        logits += [session.step(ids[40]).copy(), fork.step(ids[50]).copy(), session.step(ids[41]).copy()]
        logits.append(fork.prefill(ids[51:54]))
        assert (session.length, fork.length) == (18, 20)
        session.reset()
        logits.append(session.read(ids[:3]))
        seen.append(np.stack(logits))
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-4)


def test_greedy_tokens_of_the_float_variants_are_the_same(
    bundle: Bundle, checkpoint: Checkpoint, prompt: list[int]
) -> None:
    expected = generate_greedy(checkpoint.model, prompt, 30)
    for variant in ("fp32", "portable", "fp16", *TORCH_VARIANTS):
        session = open_session(variant, path_of(bundle, variant), bundle.config, trusted=True)
        assert greedy_tokens(session, prompt, 30) == expected, variant
