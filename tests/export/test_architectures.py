"""Every architecture in every variant: the checks of an export pass, and the stories are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from export.checks.greedy import greedy_tokens
from export.checks.torch_session import open_session
from export.exporter import export_bundle
from export.formats.graph import read_weights
from export.interop.compare import compare_runtimes
from export.interop.registry import RUNTIMES
from export.settings import ExportSettings
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.model import generate_greedy
from tests import bundles
from tests.shapes import ARCHITECTURES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=ARCHITECTURES)
def exported(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> tuple[Checkpoint, Bundle]:
    """A model of an architecture with random weights and the tokenizer of the tiny checkpoint, with every variant."""
    tiny = load_checkpoint(tiny_checkpoint)
    config = replace(ARCHITECTURES[request.param], vocab_size=tiny.model.config.vocab_size)
    folder = bundles.folder(f"checkpoint of {request.param}")
    save_checkpoint(folder, "custom", bundles.random_model(config), tiny.tokenizer, tiny.merges, {})
    out = bundles.folder(f"bundle of {request.param} é") / "b"
    with bundles.brief_checks():
        export_bundle(ExportSettings(None, out, folder, tuple(VARIANTS)), lambda line: None)
    return load_checkpoint(folder), Bundle.open(out)


def test_every_variant_passes_its_gate_and_keeps_the_shape(exported: tuple[Checkpoint, Bundle]) -> None:
    checkpoint, bundle = exported
    assert list(bundle.manifest.variants) == list(VARIANTS)
    assert bundle.config == checkpoint.model.config
    again = read_weights(bundle.model_path("fp32"), bundle.config)
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_writes_tokens_and_the_float_ones_those_of_pytorch(
    exported: tuple[Checkpoint, Bundle], variant: str
) -> None:
    checkpoint, bundle = exported
    prompt = [checkpoint.tokenizer.end_of_text, *checkpoint.tokenizer.encode("One day")]
    session = open_session(variant, bundle.model_path(variant), bundle.config, trusted=True)
    written = greedy_tokens(session, prompt, 20)
    assert len(written) == 20
    if VARIANTS[variant].gate.parity is not None:
        assert written == generate_greedy(checkpoint.model, prompt, 20)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_other_runtimes_write_the_same_tokens(exported: tuple[Checkpoint, Bundle], runtime: str) -> None:
    _, bundle = exported
    if runtime == "genai":
        pytest.importorskip("onnxruntime_genai", reason="onnxruntime-genai needs Python 3.11")
    config = bundle.config
    for row in compare_runtimes(bundle, [RUNTIMES[runtime]], lambda line: None).rows:
        if runtime == "optimum" and config.head_dim * config.n_head != config.n_embd:
            assert (row.outcome, row.note.split(" for ")[0]) == ("skipped", "optimum takes 64 channels / 4 heads")
        else:
            assert not row.failed, row
            assert row.outcome == "equal" or not VARIANTS[row.variant].is_float
