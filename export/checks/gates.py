"""The checks that a variant must pass before it is published, and in `slmx verify --quality` after that."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.checks.float_model import FloatModel, eval_text
from export.checks.greedy import greedy_tokens
from export.checks.operators import check_operators
from export.checks.parity import open_forward, parity, same_greedy_tokens
from export.checks.torch_session import open_session
from export.formats.graph import read_weights
from runtimes.bundle.figures import Figures
from runtimes.bundle.manifest import JudgedOn, plain
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.console.plain_text import as_plain_text
from slm.folder_kind import PRETRAINED
from slm.model import GPT, generate_greedy
from slm.storage.file_names import WEIGHTS_FILE
from slm.untrained import untrained_checkpoint

PACKAGES = ("slmx", "torch", "onnx", "onnxruntime")


def check_variant(
    name: str,
    file: Path | bytes,
    float_model: FloatModel,
    *,
    trusted: bool,
    kept_float: Sequence[str],
    source: Path | bytes | None,
) -> Figures:
    """Measures what the gate of a variant needs: parity and greedy tokens, or the fidelity on the text.

    Args:
        name: The variant.
        file: Its file, or the content of it.
        float_model: The model that it is compared with, and the text.
        trusted: Whether a PyTorch file may be loaded, which can run code that the file holds.
        kept_float: Matrices that must stay in float.
        source: The ONNX file, or its content, that a converted one (mobile) must agree with, token by token.

    Returns:
        The figures of the variant.

    Raises:
        SlmxError: The file cannot be opened, or it is not trusted.
    """
    variant, model = VARIANTS[name], float_model.model
    gate = variant.gate
    difference, same, bits, quality, operators = None, None, None, None, None
    if gate.parity is not None:
        forward = open_forward(name, file, model.config, trusted=trusted)
        difference = parity(model, forward, chunked_batches=not variant.shared_cache)
        session = open_session(name, file, model.config, trusted=trusted)
        same = same_greedy_tokens(model.config, partial(greedy_tokens, session), partial(generate_greedy, model))
    if name == "fp32":
        bits = float_model.compare(file, decode=False, name=name).windows.bits_per_byte
    if gate.bpb_increase is not None:
        quality = float_model.compare(file, gate.decode, name)
    if source is not None:
        ours, theirs = (partial(greedy_tokens, Session.open(each, model.config)) for each in (file, source))
        same = same_greedy_tokens(model.config, ours, theirs)
    if variant.is_onnx:
        operators = check_operators(name, file, model.config, kept_float)
    return Figures(difference, same, bits, quality, operators)


def failures(name: str, figures: Figures) -> list[str]:
    """Returns why a variant does not pass its gate, one sentence for each reason; empty if it passes."""
    gate = VARIANTS[name].gate
    found = [] if figures.operators is None else list(figures.operators.wrong)
    if gate.parity is not None:
        if figures.parity is None:
            found.append(f"{name} was not compared with PyTorch")
        elif not figures.parity <= gate.parity:
            found.append(f"{name} differs from PyTorch by {figures.parity:.1e} (limit {gate.parity:.0e})")
    if gate.bpb_increase is not None:
        if figures.quality is None:
            found.append(f"{name} was not compared with the float model")
        elif not figures.quality.worst_bpb_increase <= gate.bpb_increase:
            increase = figures.quality.worst_bpb_increase
            found.append(f"{name} needs {increase:.1%} more bits per byte (limit {gate.bpb_increase:.1%})")
    if figures.same_greedy_tokens is False:
        found.append(f"{name} writes other greedy tokens than the model it was made from")
    return found


@dataclass(frozen=True)
class QualityCheck:
    """What `check_quality` measured.

    Attributes:
        float_model: A description of the model that the variants were compared with.
        judged_on: The text that they were compared on.
        versions: Versions of the packages that were used.
        figures: The figures by variant.
        not_read: Variants that were not measured, because their files are not trusted.
    """

    float_model: str
    judged_on: JudgedOn
    versions: dict[str, str]
    figures: dict[str, Figures]
    not_read: list[str]

    @property
    def failures(self) -> dict[str, list[str]]:
        """Why each measured variant does not pass its gate; an empty list if it passes."""
        return {name: failures(name, figures) for name, figures in self.figures.items()}

    def as_dict(self) -> dict[str, Any]:
        """Returns the content for `verification.json`."""
        variants = {name: plain(found) | {"failures": self.failures[name]} for name, found in self.figures.items()}
        rest = plain(self)
        del rest["figures"]
        return rest | {"variants": variants}


def check_quality(bundle: Bundle, checkpoint: Path | None, text: Path | None, trusted: bool, log: Log) -> QualityCheck:
    """Measures every variant of a bundle again, as its export did.

    Args:
        bundle: An opened bundle. Each file is checked again when it is measured.
        checkpoint: The float model. None takes the shipped one that the bundle was made from, or random weights, or the
            weights of the fp32 graph.
        text: Stories to compare on; None takes stories sampled from the float model.
        trusted: Whether files for PyTorch are read. Such a file can run code.
        log: Called with a line of progress before each stage.

    Returns:
        The figures of all variants that were measured.

    Raises:
        SlmxError: A file is not the one that the manifest lists, or the bundle was not made from the checkpoint.
    """
    model, source = _float_model(bundle, checkpoint)
    log(f"float model: {source}")
    float_model = FloatModel(model, eval_text(model, bundle.tokenizer(), text))
    figures, not_read = {}, []
    for name, entry in bundle.manifest.variants.items():
        if VARIANTS[name].is_torch and not trusted:
            not_read.append(name)
            continue
        log(f"{name}: checking")
        made_of = bundle.model_file(entry.of) if entry.of in bundle.manifest.variants else None
        figures[name] = check_variant(
            name,
            bundle.model_file(name),
            float_model,
            trusted=trusted,
            kept_float=entry.kept_float,
            source=made_of,
        )
    return QualityCheck(
        float_model=as_plain_text(source),
        judged_on=JudgedOn(as_plain_text(float_model.text.source), float_model.tokens),
        versions={name: version(name) for name in PACKAGES},
        figures=figures,
        not_read=not_read,
    )


def _float_model(bundle: Bundle, checkpoint: Path | None) -> tuple[GPT, str]:
    """Returns the model that a bundle was made from, and a description of where it was found."""
    preset, made_from = bundle.manifest.preset, bundle.manifest.checkpoint
    if checkpoint is None and made_from.untrained:
        with tempfile.TemporaryDirectory() as name:
            return load_checkpoint(untrained_checkpoint(preset, Path(name))).model, "random weights"
    shipped = PRETRAINED / preset
    if checkpoint is None and shipped.is_dir():
        loaded = load_checkpoint(shipped)
        if loaded.hashes[WEIGHTS_FILE] == made_from.sha256:
            return loaded.model, "the checkpoint that ships with slmx"
    if checkpoint is None:
        if "fp32" not in bundle.manifest.variants:
            raise SlmxError(f"{bundle.path}: no fp32 variant to compare with; name the model with --checkpoint DIR")
        return read_weights(bundle.model_file("fp32"), bundle.config), "the weights of its fp32 graph"
    loaded = load_checkpoint(checkpoint)
    if loaded.hashes[WEIGHTS_FILE] != made_from.sha256:
        raise SlmxError(f"{bundle.path}: not made from {checkpoint}; name its own checkpoint, or none")
    return loaded.model, str(checkpoint)
