"""The .pte file of `slmx export --executorch` writes the tokens of our fp32 loop, without any part of slmx."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from runtimes import load
from runtimes.bundle.store import Bundle
from slm.console.errors import SlmxError
from tests import bundles
from tests.bundles import Slmx

pytestmark = pytest.mark.slow

installed = pytest.mark.skipif(find_spec("executorch") is None, reason='needs pip install ".[executorch]"')
FILE = "mobile/model.pte"
PROMPT, TOKENS = "Once upon a time", 24


def test_without_the_package_one_line_names_it(
    slmx: Slmx, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    line = slmx.refuses("export", "--checkpoint", tiny_checkpoint, "--executorch", "--out", "b")
    assert line.startswith("this command needs ")
    assert "[executorch]" in line
    assert not Path("b").exists()


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Bundle:
    from export.exporter import export_bundle
    from export.settings import ExportSettings

    out = bundles.folder("executorch") / "b é"
    with bundles.brief_checks():
        export_bundle(ExportSettings(None, out, tiny_checkpoint, ("fp32",), executorch=True), lambda line: None)
    return Bundle.open(out)


@installed
def test_its_greedy_tokens_are_ours(bundle: Bundle) -> None:
    """The golden test: executorch's own runtime and plain tensors, as a program on a phone uses them."""
    from executorch.runtime import Runtime

    config, tokenizer = bundle.config, bundle.tokenizer()
    forward = Runtime.get().load_program(bundle.path / FILE).load_method("forward")
    past = [torch.zeros(1, config.kv_heads, 0, config.head_dim) for _ in range(2 * config.n_layer)]
    ids, found = torch.tensor([[tokenizer.begin, *tokenizer.encode(PROMPT)]]), []
    with load(bundle.path, "fp32") as generator:
        ours = generator.generate(PROMPT, temperature=0, max_tokens=TOKENS).ids
    for _ in ours:
        logits, *past = (value.clone() for value in forward.execute([ids, *past]))
        found.append(int(logits[0, -1].argmax()))
        ids = torch.tensor([found[-1:]])
    assert found == ours


@installed
def test_the_manifest_lists_it_and_it_is_checked_like_every_file(slmx: Slmx, bundle: Bundle) -> None:
    assert FILE in bundle.manifest.files
    assert bundle.variants == ["fp32"]
    assert slmx("verify", bundle.path).code == 0
    spoilt = bundles.copy_of(bundle.path, Path("spoilt"))
    (spoilt / FILE).write_bytes(b"no program")
    assert FILE in slmx("verify", spoilt).stderr + slmx("verify", spoilt).stdout
    assert slmx("verify", spoilt).code == 1


@installed
def test_a_program_of_another_model_is_refused(bundle: Bundle) -> None:
    from export.checks.executorch_check import check_executorch

    other = bundles.random_model(bundle.config)
    with pytest.raises(SlmxError, match=r"executorch: a logit differs by .*; nothing was published"):
        check_executorch(bundle.path / FILE, other)
