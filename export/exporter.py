"""Checkpoint in, bundle out: every variant is judged before the folder takes its name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.card import model_card
from export.checks.exclude import exclude_auto, increases_alone, recipes_that_pass
from export.checks.float_model import FloatModel, eval_text
from export.checks.gates import GATES, PACKAGES, check_variant, failures, worst_bpb_increase
from export.checks.operators import check_operators
from export.configs import write_configs
from export.formats.float16 import store_half
from export.formats.graph import IR_VERSION, OPSET, export_onnx, matrix_names
from export.formats.mobile import OPERATORS_SUFFIX, export_mobile
from export.formats.portable import PORTABLE_OPSET, export_portable
from export.formats.quantize import INT4_BLOCK, check_int4, get_recipe, quantize_int4, quantize_int8
from export.formats.torch_files import export_pt2, export_torchscript
from export.targets import Target, get_target
from runtimes import BUNDLES
from runtimes.bundle.store import FORMAT_VERSION, MANIFEST_FILE, TORCH_VARIANTS, VARIANT_FILES, Bundle
from slm.atomic import atomic_folder
from slm.checkpoint import PRETRAINED, Checkpoint, load_checkpoint
from slm.errors import SlmxError
from slm.hashing import sha256_of
from slm.presets import get_preset
from slm.tokenizer import JSON_FILE, RANKS_FILE
from slm.untrained import untrained_checkpoint

WHAT = {
    "config.json": "shape, for Hugging Face transformers",
    "generation_config.json": "generation defaults, for Hugging Face transformers",
    "tokenizer_config.json": "tokenizer settings, for Hugging Face transformers",
    "genai_config.json": "graph description, for onnxruntime-genai",
    JSON_FILE: "tokenizer, for Hugging Face tokenizers",
    RANKS_FILE: "tokenizer ranks, for tiktoken",
    "README.md": "model card",
    VARIANT_FILES["fp32"]: "float32 graph with KV cache",
    VARIANT_FILES["int8"]: "dynamic int8 graph with KV cache",
    VARIANT_FILES["int4"]: "graph with int4 weights, int8 head, and KV cache",
    VARIANT_FILES["fp16"]: "float32 graph with float16 storage and KV cache",
    VARIANT_FILES["portable"]: "float32 graph of standard ONNX operators with a growing KV cache",
    VARIANT_FILES["mobile"]: "onnxruntime's .ort format, for mobile builds",
    VARIANT_FILES["mobile"].removesuffix(".ort") + OPERATORS_SUFFIX: "operators that a minimal build must include",
    VARIANT_FILES["torchscript"]: "TorchScript with KV cache, for torch.jit.load",
    VARIANT_FILES["pt2"]: "exported program with KV cache, for torch.export.load",
}
# What runs when the target's own default was not exported; int4 is never chosen before another.
PREFERENCE = ("int8", "fp32", "fp16", "portable", "mobile", "int4", *TORCH_VARIANTS)
# What onnxruntime-genai can run: graphs whose cache is one buffer.
SHARED_CACHE = ("int8", "fp32", "fp16", "int4")
AUTO = ("auto",)
# "head_size must be a multiple of 8", its CPU kernel says.
HEAD_MULTIPLE = 8

Say = Callable[[str], None]


@dataclass(frozen=True)
class ExportSettings:
    """What to export and where.

    `preset` None is the checkpoint's; `out` None is bundles/PRESET; `checkpoint` None takes the one that ships
    with slmx, or with `untrained` random weights. `int8_exclude` names matrices to leave in float, or is ("auto",).
    """

    preset: str | None
    out: Path | None = None
    checkpoint: Path | None = None
    variants: tuple[str, ...] = ("fp32",)
    target: str = "any"
    int8_recipe: str | None = None
    int8_exclude: tuple[str, ...] = ()
    untrained: bool = False
    eval_text: Path | None = None
    force: bool = False


def export_bundle(settings: ExportSettings, say: Say) -> tuple[Path, dict[str, Any]]:
    """Write a bundle and return its folder and manifest; `say` gets a line of progress before each stage.

    Raises SlmxError, leaving what was at `out`, for an unusable checkpoint, a folder in the way, a full
    disk, or a variant that does not pass its gate.
    """
    if settings.preset is not None and (settings.checkpoint is None or settings.untrained):
        get_preset(settings.preset)
    target = get_target(settings.target)
    get_recipe(settings.int8_recipe or target.int8_recipe)
    if not settings.variants:
        raise SlmxError("nothing to export: --no-fp32 needs another variant, such as --int8")
    if settings.int8_exclude and "int8" not in settings.variants:
        raise SlmxError("--int8-exclude is about int8: add --int8")
    with ExitStack() as stack:
        checkpoint = _load(settings, stack)
        if settings.preset is not None and checkpoint.preset != settings.preset:
            raise SlmxError(
                f"{checkpoint.folder}: a checkpoint of {checkpoint.preset}, not {settings.preset}; change --preset"
            )
        out = settings.out or BUNDLES / checkpoint.preset
        foreign = _foreign_file(out)
        if foreign is not None:
            raise SlmxError(
                f"{out}: holds {foreign}, which is no part of a bundle; even --force keeps it: use another --out"
            )
        folder = stack.enter_context(atomic_folder(out, replace=settings.force))
        manifest = _Export(folder, checkpoint, settings, target, say).write()
        Bundle.open(folder)
    return out, manifest


def _foreign_file(out: Path) -> str | None:
    """A file that no manifest in the folder lists, if there is one: only bundles may be replaced."""
    try:
        listed = {MANIFEST_FILE, *json.loads((out / MANIFEST_FILE).read_text("utf-8"))["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        listed = set()
    there = (path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir())
    return next((name for name in there if name not in listed), None)


def _load(settings: ExportSettings, stack: ExitStack) -> Checkpoint:
    if settings.untrained:
        if settings.checkpoint is not None:
            raise SlmxError("--random-init and --checkpoint exclude each other: drop one")
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return load_checkpoint(untrained_checkpoint(settings.preset or "nano", work))
    if settings.checkpoint is not None:
        return load_checkpoint(settings.checkpoint)
    preset = settings.preset or "nano"
    shipped = PRETRAINED / preset
    if not shipped.is_dir():
        raise SlmxError(
            f"no {preset} checkpoint ships with slmx: train one (slmx train --preset {preset} "
            "--data FILE --out DIR) and name it with --checkpoint DIR"
        )
    return load_checkpoint(shipped)


class _Export:
    """One export in progress: each variant is written into the folder, measured and held to its gate."""

    def __init__(
        self, folder: Path, checkpoint: Checkpoint, settings: ExportSettings, target: Target, say: Say
    ) -> None:
        self.folder, self.checkpoint, self.settings, self.target, self.say = folder, checkpoint, settings, target, say
        self.model, self.config = checkpoint.model, checkpoint.model.config
        self.recipe = get_recipe(settings.int8_recipe or target.int8_recipe)
        self.paths = {name: folder / file for name, file in VARIANT_FILES.items()}
        fused = [name for name in settings.variants if name in (*SHARED_CACHE, "mobile")]
        if fused and self.config.head_dim % HEAD_MULTIPLE:
            raise SlmxError(
                f"{checkpoint.folder}: heads of {self.config.head_dim} channels; onnxruntime's GroupQueryAttention "
                f"needs a multiple of {HEAD_MULTIPLE}: train with another --n-head, or export --no-fp32 --portable"
            )
        if "int4" in settings.variants:
            check_int4(self.config)
        known = matrix_names(self.config.n_layer)
        unknown = [name for name in settings.int8_exclude if name not in known and settings.int8_exclude != AUTO]
        if unknown:
            raise SlmxError(f"--int8-exclude: no matrix {unknown[0]!r}; there are {', '.join(known)}, and auto")

    def write(self) -> dict[str, Any]:
        """Every file of the bundle; its manifest."""
        wanted = [name for name in VARIANT_FILES if name in self.settings.variants]
        for path in self.paths.values():
            path.parent.mkdir(exist_ok=True)
        self.say("fp32: exporting the graph")
        export_onnx(self.model, self.paths["fp32"])
        self.say("judging: PyTorch reads the text")
        self.float_model = FloatModel(
            self.model, eval_text(self.model, self.checkpoint.tokenizer, self.settings.eval_text)
        )
        makers = {
            "fp32": self._fp32,
            "int8": self._int8,
            "int4": self._int4,
            "fp16": self._fp16,
            "portable": self._portable,
            "mobile": self._mobile,
            "torchscript": self._torchscript,
            "pt2": self._pt2,
        }
        variants = {name: {"file": VARIANT_FILES[name], **makers[name]()} for name in wanted}
        for path in self.paths.values():
            if path.is_file() and path not in [self.paths[name] for name in wanted]:
                path.unlink()
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        return self._describe(variants)

    def _held(self, name: str, made: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
        """What a variant is and its figures, once it has passed its gate."""
        wrong = failures(name, figures)
        if wrong:
            raise SlmxError(f"{wrong[0]}; nothing was published")
        return made | figures

    def _onnx(self, name: str, made: dict[str, Any], kept_float: list[str]) -> dict[str, Any]:
        operators = check_operators(name, self.paths[name], self.config, kept_float)
        return self._held(
            name, made, {"operators": operators, **check_variant(name, self.paths[name], self.float_model)}
        )

    def _fp32(self) -> dict[str, Any]:
        self.say("fp32: comparing with PyTorch, reading the text")
        return self._onnx("fp32", {}, [])

    def _int8(self) -> dict[str, Any]:
        fp32, path, recipe = self.paths["fp32"], self.paths["int8"], self.recipe
        kept = [] if recipe.table else matrix_names(self.config.n_layer)[-1:]
        made: dict[str, Any] = {"recipe": recipe.name, "settings": asdict(recipe)}
        self.say(f"int8: quantizing ({recipe.name}) and reading the text, whole and token by token")
        if self.settings.int8_exclude != AUTO:
            kept = sorted({*kept, *self.settings.int8_exclude})
        quantize_int8(fp32, path, recipe, only=set(matrix_names(self.config.n_layer)) - set(kept))
        figures = check_variant("int8", path, self.float_model)
        limit = GATES["int8"].bpb_increase
        assert limit is not None
        if not worst_bpb_increase(figures) <= limit:
            self.say(f"int8: loses {worst_bpb_increase(figures):.1%}, too much; looking for the matrices that hurt")
            if self.settings.int8_exclude != AUTO:
                raise SlmxError(self._int8_refusal(worst_bpb_increase(figures), limit))
            excluded = exclude_auto(self.float_model, fp32, path, recipe, limit, self.say)
            kept = sorted({*kept, *excluded.names})
            made["exclusion"] = excluded.as_dict()
            figures = check_variant("int8", path, self.float_model)
            self.say(
                f"int8: {', '.join(excluded.names)} in float cost {excluded.bytes_added:,} bytes and make a step "
                f"{excluded.step_time_ratio:.2f} times as long"
            )
        figures["operators"] = check_operators("int8", path, self.config, kept)
        return self._held("int8", made | {"kept_float": kept}, figures)

    def _int8_refusal(self, loss: float, limit: float) -> str:
        """Why int8 was refused: the matrices that hurt most when quantized alone, and what would pass."""
        alone = increases_alone(self.float_model, self.paths["fp32"], self.recipe)
        worst = [f"{name} ({alone[name]:+.1%} alone)" for name in list(alone)[:3]]
        passing = recipes_that_pass(self.float_model, self.paths["fp32"], limit)
        ways = [f"--int8-recipe {' or '.join(passing)}"] if passing else []
        return (
            f"int8 ({self.recipe.name}) loses {loss:.1%} bits per byte (limit {limit:.0%}); what hurts most: "
            f"{', '.join(worst)}; try {' or '.join([*ways, '--int8-exclude auto'])}; nothing was published"
        )

    def _int4(self) -> dict[str, Any]:
        self.say("int4: quantizing and reading the text, whole and token by token")
        head = replace(self.recipe, table=True)
        quantize_int4(self.paths["fp32"], self.paths["int4"], head)
        return self._onnx("int4", {"settings": {"block_size": INT4_BLOCK, "head": head.name}}, [])

    def _fp16(self) -> dict[str, Any]:
        self.say("fp16: storing weights in 16 bits and reading the text")
        store_half(self.paths["fp32"], self.paths["fp16"])
        return self._onnx("fp16", {}, [])

    def _portable(self) -> dict[str, Any]:
        self.say("portable: exporting the graph and comparing with PyTorch")
        export_portable(self.model, self.paths["portable"])
        return self._onnx("portable", {"opset": PORTABLE_OPSET}, [])

    def _mobile(self) -> dict[str, Any]:
        source = "int8" if "int8" in self.settings.variants else "fp32"
        self.say(f"mobile: converting {source} and reading the text")
        export_mobile(self.paths[source], self.paths["mobile"])
        figures = check_variant("mobile", self.paths["mobile"], self.float_model, self.paths[source])
        return self._held("mobile", {"of": source}, figures)

    def _torchscript(self) -> dict[str, Any]:
        self.say("torchscript: scripting and comparing with PyTorch")
        export_torchscript(self.model, self.paths["torchscript"])
        return self._held("torchscript", {}, check_variant("torchscript", self.paths["torchscript"], self.float_model))

    def _pt2(self) -> dict[str, Any]:
        self.say("pt2: exporting the program and comparing with PyTorch")
        export_pt2(self.model, self.paths["pt2"])
        return self._held("pt2", {}, check_variant("pt2", self.paths["pt2"], self.float_model))

    def _describe(self, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The files beside the variants, and the manifest last."""
        folder, checkpoint = self.folder, self.checkpoint
        for name in (RANKS_FILE, JSON_FILE):
            shutil.copyfile(checkpoint.folder / name, folder / name)
        default = next(name for name in (self.target.default, *PREFERENCE) if name in variants)
        genai = [name for name in (default, *SHARED_CACHE) if name in SHARED_CACHE and name in variants]
        model_file = VARIANT_FILES[genai[0]] if genai else None
        write_configs(folder, self.config, checkpoint.tokenizer.end_of_text, model_file)
        manifest: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "preset": checkpoint.preset,
            "target": self.target.name,
            "default": default,
            "shape": asdict(self.config),
            "parameters": self.config.parameters,
            "checkpoint": {
                "sha256": sha256_of(checkpoint.folder / "model.safetensors"),
                "untrained": self.settings.untrained,
            },
            "judged_on": {"text": self.float_model.text.source, "tokens": self.float_model.tokens},
            "variants": variants,
            "versions": {name: version(name) for name in PACKAGES} | {"opset": OPSET, "ir": IR_VERSION},
            "files": _list_files(folder),
        }
        (folder / "README.md").write_text(model_card(manifest, checkpoint.record), "utf-8")
        manifest["files"] = _list_files(folder)
        (folder / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
        return manifest


def _list_files(folder: Path) -> dict[str, dict[str, Any]]:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {
        name: {"what": WHAT[name], "bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
        for name in names
    }
