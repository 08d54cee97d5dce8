"""The model that is evaluated: a variant of a bundle, or a checkpoint in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.location import bundle_path, hidden_bundle
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session
from slm.console.errors import UsageError, needs
from slm.folder_kind import MODEL_SUFFIXES, Kind, find_kind, wrong_kind
from slm.presets import GPTConfig
from slm.storage.file_names import WEIGHTS_FILE
from slm.storage.hashing import sha256_of
from slm.tokenizers.tokenizer import Tokenizer

PYTORCH = "pytorch"


@dataclass(frozen=True)
class Subject:
    """A model that is evaluated.

    Attributes:
        name: How tables name it, such as `nano int8`.
        session: Reads ids. Nothing else uses it.
        tokenizer: The model's tokenizer.
        config: The model's shape.
        file_bytes: The size of the model's file.
        sha256: The hash of the model's file.
        rounds_by_run: Whether its rounding depends on the ids that are read together, as in dynamic int8.
    """

    name: str
    session: Session
    tokenizer: Tokenizer
    config: GPTConfig
    file_bytes: int
    sha256: str
    rounds_by_run: bool


def open_subject(model: str, variant: str | None) -> Subject:
    """Opens a model to evaluate.

    Args:
        model: The folder of a checkpoint or of a run, or a bundle: its folder, its archive, or a name.
        variant: The variant of a bundle. None takes its default.

    Raises:
        SlmxError: It is neither, or it cannot be opened.
        UsageError: A variant of a checkpoint was asked for.
    """
    kind = find_kind(Path(model))
    is_part = kind is Kind.FILE and Path(model).suffix.lower() in MODEL_SUFFIXES
    if is_part or kind not in (Kind.CHECKPOINT, Kind.RUN, Kind.BUNDLE, Kind.PACKED, Kind.FILE, Kind.MISSING):
        raise wrong_kind(Path(model), Kind.MODEL, hidden_bundle(Path(model)))
    if kind in (Kind.CHECKPOINT, Kind.RUN):
        if variant not in (None, PYTORCH):
            raise UsageError(f"--variant {variant}: {model} is a checkpoint, which has no variants; name a bundle")
        return _checkpoint(model)
    bundle = Bundle.open(bundle_path(model))
    chosen = bundle.choose(variant)
    session = Session.open(bundle.model_bytes(chosen), bundle.config, name=bundle.model_location(chosen))
    file = bundle.manifest.files[bundle.manifest.variants[chosen].file]
    return Subject(
        f"{bundle.path.stem if bundle.is_archive else bundle.path.name} {chosen}",
        session,
        bundle.tokenizer(),
        bundle.config,
        file.bytes,
        file.sha256,
        not VARIANTS[chosen].independent_rows,
    )


def _checkpoint(path: str) -> Subject:
    with needs("export"):
        import torch

        from export.checks.torch_session import float_session
        from runtimes.engine.session import float_threads
        from slm.checkpoint import load_checkpoint
    opened = load_checkpoint(Path(path))
    config = opened.model.config
    torch.set_num_threads(float_threads(config))
    weights = opened.folder / WEIGHTS_FILE
    return Subject(
        f"{Path(path).resolve().name} {PYTORCH}",
        float_session(opened.model),
        opened.tokenizer,
        config,
        weights.stat().st_size,
        sha256_of(weights),
        False,
    )
