"""Makes a bundle from a checkpoint. Every variant is checked before the bundle is published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.card import model_card
from export.checks.exclude import exclude_auto, increases_alone, recipes_that_pass
from export.checks.executorch_check import check_executorch
from export.checks.float_model import FloatModel, check_finite, eval_text
from export.checks.gates import PACKAGES, check_variant, failures
from export.checks.saturation import count_saturation
from export.configs import write_configs
from export.formats.blockwise import quantize_blockwise
from export.formats.executorch_file import EXECUTORCH_FILE, export_executorch
from export.formats.float16 import store_float16
from export.formats.fused import OPSET, export_onnx
from export.formats.gptq import Hessians, calibrate
from export.formats.graph import IR_VERSION, head_name, matrix_names
from export.formats.mobile import OPERATORS_SUFFIX, export_mobile
from export.formats.portable import PORTABLE_OPSET, export_portable
from export.formats.quantize import quantize_int8
from export.formats.recipes import DEFAULT_RECIPE, RECIPE_NAMES, get_recipe
from export.formats.torch_files import export_pt2, export_torchscript
from export.interop.registry import GENAI_FILE
from export.settings import ExportSettings, default_out, digest_of_inputs, given_name, require_text_file
from export.targets import default_variant
from runtimes.bundle.chat_template import template_for
from runtimes.bundle.figures import Figures
from runtimes.bundle.manifest import BUNDLE_LISTING, FileEntry, JudgedOn, MadeFrom, Manifest, VariantEntry
from runtimes.bundle.store import Bundle, FolderStore
from runtimes.bundle.variants import VARIANTS
from slm.blocks import BLOCK_RECIPES, check_blocks
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import Log
from slm.console.plain_text import as_plain_text
from slm.denormals import denormals_line
from slm.folder_kind import PRETRAINED, check_outside
from slm.presets import DEFAULT_PRESET, get_preset
from slm.provenance import licence_of, source_of
from slm.storage.atomic import atomic_folder
from slm.storage.file_names import CONFIG_FILE, JSON_FILE, MANIFEST_FILE, RANKS_FILE, WEIGHTS_FILE
from slm.storage.hashing import sha256_of
from slm.train.qat import trained_for
from slm.train.run_folder import RunFolder

CARD_FILE = "README.md"
# The manifest's description of each file that is not a variant.
DESCRIPTIONS = {
    CONFIG_FILE: "shape, for Hugging Face transformers",
    "generation_config.json": "generation defaults, for Hugging Face transformers",
    "tokenizer_config.json": "tokenizer settings, for Hugging Face transformers",
    GENAI_FILE: "graph description, for onnxruntime-genai",
    JSON_FILE: "tokenizer, for Hugging Face tokenizers",
    RANKS_FILE: "tokenizer ranks, for tiktoken",
    CARD_FILE: "model card",
    EXECUTORCH_FILE: "float32 program with KV cache, for executorch on phones",
    VARIANTS["mobile"].file.removesuffix(".ort") + OPERATORS_SUFFIX: "operators that a minimal build must include",
}
AUTO = ("auto",)
# With more parameters, int8 is not tried for one matrix after the other when it is refused.
LONG_SEARCH = 50_000_000


def export_bundle(settings: ExportSettings, log: Log) -> tuple[Path, Manifest]:
    """Writes a bundle.

    Args:
        settings: What to export and where.
        log: Called with a line of progress before each stage.

    Returns:
        The folder of the bundle, and its manifest.

    Raises:
        SlmxError: The checkpoint cannot be used, the folder cannot be replaced, the disk is full, or a variant does not
            pass its gate. The earlier content of the folder is kept.
    """
    if settings.preset is not None and settings.checkpoint is None:
        get_preset(settings.preset)
    default_variant(settings.target)
    get_recipe(settings.int8_recipe)
    if not settings.variants:
        raise UsageError("nothing to export: --no-fp32 needs another variant, such as --int8")
    if "int8" not in settings.variants:
        if settings.int8_exclude:
            raise UsageError("--int8-exclude is about int8: add --int8")
        if settings.int8_recipe != DEFAULT_RECIPE:
            raise UsageError("--int8-recipe is about int8: add --int8")
    if settings.eval_text is not None:
        require_text_file(settings.eval_text)
    checkpoint = _load(settings)
    if settings.checkpoint is not None:
        _tell_checkpoint(settings.checkpoint, checkpoint, log)
    if (variant := trained_for(checkpoint.record)) not in (None, *settings.variants):
        log(f"this model was trained for {variant}, which is not asked for: --{variant} adds it")
    check_finite(checkpoint.model, str(checkpoint.folder))
    if (line := denormals_line(checkpoint.model.state_dict())) is not None:
        log(line)
    if settings.preset is not None and checkpoint.preset != settings.preset:
        raise SlmxError(
            f"{checkpoint.folder}: a checkpoint of {checkpoint.preset}, not {settings.preset}; change --preset"
        )
    out = default_out(settings, checkpoint.preset)
    check_outside(out)
    with atomic_folder(out, BUNDLE_LISTING, replace=settings.force) as folder:
        manifest = _Export(folder, checkpoint, settings, given_name(settings, out), log).write()
        Bundle.open(folder).check_listed_files()
    return out, manifest


def _load(settings: ExportSettings) -> Checkpoint:
    if settings.checkpoint is not None:
        return load_checkpoint(settings.checkpoint)
    preset = settings.preset or DEFAULT_PRESET
    shipped = PRETRAINED / preset
    if not shipped.is_dir():
        raise SlmxError(
            f"no {preset} checkpoint is in this installation (that of a clone, pip install -e ., has nano, micro and "
            f"small): train one (slmx train --preset {preset} --text FILE --out DIR) and name it with --checkpoint DIR"
        )
    return load_checkpoint(shipped)


def _tell_checkpoint(given: Path, checkpoint: Checkpoint, log: Log) -> None:
    """Logs which checkpoint is exported, if a run was given or if the checkpoint is of a run that is unfinished."""
    run = RunFolder(checkpoint.folder.parent)
    unfinished = run.unfinished() if checkpoint.folder in (run.best, *run.steps()) else ""
    if unfinished:
        log(f"checkpoint: {checkpoint.folder}, of step {checkpoint.record.get('steps_done', 0):,}; {unfinished}")
    elif checkpoint.folder != given:
        log(f"checkpoint: {checkpoint.folder}")


class _Export:
    """One export. Each variant is written into the folder, measured and checked by its gate."""

    def __init__(
        self,
        folder: Path,
        checkpoint: Checkpoint,
        settings: ExportSettings,
        name: str | None,
        log: Log,
    ) -> None:
        self.folder, self.checkpoint, self.settings, self.log = folder, checkpoint, settings, log
        self.name = name
        self.model, self.config = checkpoint.model, checkpoint.model.config
        self.recipe = get_recipe(settings.int8_recipe)
        self.paths = {name: folder / variant.file for name, variant in VARIANTS.items()}
        fused = [name for name in settings.variants if VARIANTS[name].shared_cache]
        if self.config.block_size < 2:
            raise SlmxError(
                f"{checkpoint.folder}: a context of one token predicts nothing; train with --block-size 2 or more"
            )
        multiple = self.config.fused_head_multiple
        if fused and self.config.head_dim % multiple:
            raise SlmxError(
                f"{checkpoint.folder}: heads of {self.config.head_dim} channels; onnxruntime's GroupQueryAttention "
                f"needs a multiple of {multiple}: export --no-fp32 --portable alone, or train with another --n-head"
            )
        for name in BLOCK_RECIPES:
            if name in settings.variants:
                check_blocks(name, self.config, "leave out --int4 and --q8 for this shape")
        known = matrix_names(self.config)
        unknown = [name for name in settings.int8_exclude if name not in known and settings.int8_exclude != AUTO]
        if unknown:
            raise UsageError(f"--int8-exclude: no matrix {unknown[0]!r}; there are {', '.join(known)}, and auto")

    def write(self) -> Manifest:
        """Writes every file of the bundle, the manifest last."""
        # Before the text is read. If it changes after that, the next export is not taken for the same one.
        inputs = digest_of_inputs(self.settings, self.checkpoint.config_sha256, self.checkpoint.hashes, self.name)
        wanted = [name for name in VARIANTS if name in self.settings.variants]
        for path in self.paths.values():
            path.parent.mkdir(exist_ok=True)
        self.log("fp32: exporting the graph")
        export_onnx(self.model, self.paths["fp32"])
        self.log("float model: PyTorch reads the text")
        self.float_model = FloatModel(
            self.model, eval_text(self.model, self.checkpoint.tokenizer, self.settings.eval_text)
        )
        makers: dict[str, Callable[[], VariantEntry]] = {
            "fp32": self._fp32,
            "int8": self._int8,
            "q8": self._q8,
            "int4": self._int4,
            "fp16": self._fp16,
            "portable": self._portable,
            "mobile": self._mobile,
            "torchscript": self._torchscript,
            "pt2": self._pt2,
        }
        variants = {name: makers[name]() for name in wanted}
        for path in self.paths.values():
            if path.is_file() and path not in [self.paths[name] for name in wanted]:
                path.unlink()
            if path.parent.is_dir() and not any(path.parent.iterdir()):
                path.parent.rmdir()
        if self.settings.executorch:
            self._executorch()
        return self._describe(variants, inputs)

    def _check(self, name: str, kept_float: Sequence[str] = (), source: Path | None = None) -> Figures:
        # This process wrote the files, so it may load the files for PyTorch.
        return check_variant(
            name, self.paths[name], self.float_model, trusted=True, kept_float=kept_float, source=source
        )

    def _entry(self, name: str, figures: Figures, **made: Any) -> VariantEntry:  # noqa: ANN401  # fields of VariantEntry
        """Returns the entry of a variant in the manifest; SlmxError if it does not pass its gate."""
        wrong = failures(name, figures)
        if wrong:
            raise SlmxError(f"{wrong[0]}; nothing was published")
        return VariantEntry(VARIANTS[name].file, figures, **made)

    def _fp32(self) -> VariantEntry:
        self.log("fp32: comparing with PyTorch, reading the text")
        return self._entry("fp32", self._check("fp32"))

    def _int8(self) -> VariantEntry:
        fp32, path, recipe = self.paths["fp32"], self.paths["int8"], self.recipe
        kept = set() if recipe.table else {head_name(self.config)}
        self.log(f"int8: quantizing ({recipe.name}) and reading the text, whole and token by token")
        if self.settings.int8_exclude != AUTO:
            kept |= set(self.settings.int8_exclude)
        quantize_int8(fp32, path, recipe, only=set(matrix_names(self.config)) - kept)
        figures, exclusion = self._check("int8", sorted(kept)), None
        limit = VARIANTS["int8"].gate.bpb_increase
        assert limit is not None
        assert figures.quality is not None
        increase = figures.quality.worst_bpb_increase
        if not increase <= limit:
            self.log(f"int8: needs {increase:.1%} more bits per byte, too many")
            if self.settings.int8_exclude != AUTO:
                raise SlmxError(self._int8_refusal(increase, limit))
            exclusion = exclude_auto(self.float_model, fp32, path, recipe, increase, limit, self.log)
            kept |= set(exclusion.names)
            figures = self._check("int8", sorted(kept))
            self.log(
                f"int8: {', '.join(exclusion.names)} in float cost {exclusion.bytes_added:,} bytes and make a step "
                f"{exclusion.step_time_ratio:.2f} times as long"
            )
        saturation = count_saturation(fp32, path)
        self.log(
            f"int8: {saturation.at_ends / max(1, saturation.weights):.3%} of the weights are at an end of their range, "
            f"{saturation.clipped:,} were cut to it"
        )
        return self._entry(
            "int8",
            replace(figures, saturation=saturation),
            recipe=recipe.name,
            settings=asdict(recipe),
            kept_float=tuple(sorted(kept)),
            exclusion=exclusion,
        )

    def _int8_refusal(self, increase: float, limit: float) -> str:
        """Returns why int8 was refused: the matrices that lose most when quantized alone, and what would pass."""
        why = f"int8 ({self.recipe.name}) needs {increase:.1%} more bits per byte (limit {limit:.0%})"
        if self.config.parameters > LONG_SEARCH:
            return (
                f"{why}; the search for the matrices that hurt would take hours for a model of this size; export it "
                "with --fp16 in place of --int8, which loses nothing; nothing was published"
            )
        alone = increases_alone(self.float_model, self.paths["fp32"], self.recipe)
        worst = [f"{name} ({alone[name]:+.1%} alone)" for name in list(alone)[:3]]
        others = [name for name in RECIPE_NAMES if name != self.recipe.name]
        passing = recipes_that_pass(self.float_model, self.paths["fp32"], limit, others)
        ways = [f"--int8-recipe {' or '.join(passing)}"] if passing else []
        return (
            f"{why}; what hurts most: {', '.join(worst)}; try {' or '.join([*ways, '--int8-exclude auto'])}; "
            "nothing was published"
        )

    def _q8(self) -> VariantEntry:
        self.log("q8: quantizing and reading the text, whole and token by token")
        return self._blocks("q8", None)

    def _int4(self) -> VariantEntry:
        if trained_for(self.checkpoint.record) == "int4":
            self.log("int4: rounding as in the training, and reading the text, whole and token by token")
            return self._blocks("int4", None)
        self.log(
            "int4: quantizing for stories of the float model (GPTQ), and reading the text, whole and token by token"
        )
        return self._blocks("int4", calibrate(self.model, self.checkpoint.tokenizer))

    def _blocks(self, name: str, hessians: Hessians | None) -> VariantEntry:
        recipe = BLOCK_RECIPES[name]
        quantize_blockwise(self.paths["fp32"], self.paths[name], recipe, hessians)
        rounding = "nearest" if hessians is None else "gptq"
        return self._entry(name, self._check(name), settings={**recipe.settings, "rounding": rounding})

    def _fp16(self) -> VariantEntry:
        self.log("fp16: storing weights in 16 bits and reading the text")
        store_float16(self.paths["fp32"], self.paths["fp16"])
        return self._entry("fp16", self._check("fp16"))

    def _portable(self) -> VariantEntry:
        self.log("portable: exporting the graph and comparing with PyTorch")
        export_portable(self.model, self.paths["portable"])
        return self._entry("portable", self._check("portable"), opset=PORTABLE_OPSET)

    def _mobile(self) -> VariantEntry:
        source = next((name for name in ("int8", "q8") if name in self.settings.variants), "fp32")
        self.log(f"mobile: converting {source} and reading the text")
        export_mobile(self.paths[source], self.paths["mobile"])
        return self._entry("mobile", self._check("mobile", source=self.paths[source]), of=source)

    def _torchscript(self) -> VariantEntry:
        self.log("torchscript: scripting and comparing with PyTorch")
        export_torchscript(self.model, self.paths["torchscript"])
        return self._entry("torchscript", self._check("torchscript"))

    def _pt2(self) -> VariantEntry:
        self.log("pt2: exporting the program and comparing with PyTorch")
        export_pt2(self.model, self.paths["pt2"])
        return self._entry("pt2", self._check("pt2"))

    def _executorch(self) -> None:
        self.log("executorch: lowering the program and comparing with PyTorch")
        path = self.folder / EXECUTORCH_FILE
        path.parent.mkdir(exist_ok=True)
        export_executorch(self.model, path)
        self.log(
            f"executorch: largest logit difference {check_executorch(path, self.model):.1e}, the same greedy tokens"
        )

    def _describe(self, variants: dict[str, VariantEntry], inputs: str) -> Manifest:
        """Writes the other files of the bundle, and the manifest last."""
        folder, checkpoint = self.folder, self.checkpoint
        checkpoint.tokenizer.save(folder, checkpoint.merges)
        preferred = sorted(variants, key=lambda name: VARIANTS[name].preference)
        wanted = default_variant(self.settings.target)
        default = wanted if wanted in variants else preferred[0]
        # genai_config.json tells onnxruntime-genai that past and present share a buffer, so it names such a graph.
        genai = [name for name in (default, *preferred) if VARIANTS[name].shared_cache and VARIANTS[name].is_onnx]
        model_file = VARIANTS[genai[0]].file if genai else None
        write_configs(folder, self.config, checkpoint.tokenizer, model_file)
        manifest = Manifest(
            preset=checkpoint.preset,
            target=self.settings.target,
            default=default,
            shape=self.config,
            checkpoint=MadeFrom(
                checkpoint.hashes[WEIGHTS_FILE],
                checkpoint.record.get("untrained") is True,
                source_of(checkpoint.record),
                licence_of(checkpoint.record),
            ),
            judged_on=JudgedOn(as_plain_text(self.float_model.text.source), self.float_model.tokens),
            variants=variants,
            versions={name: version(name) for name in PACKAGES} | {"opset": OPSET, "ir": IR_VERSION},
            files=_list_files(folder),
            tokenizer=checkpoint.tokenizer.settings,
            chat=template_for(checkpoint.tokenizer.settings),
            inputs=inputs,
            name=self.name,
        )
        (folder / CARD_FILE).write_text(model_card(manifest, checkpoint.record), "utf-8", newline="\n")
        files = {**manifest.files, CARD_FILE: _file_entry(folder, CARD_FILE)}
        manifest = replace(manifest, files=dict(sorted(files.items())))
        (folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
        return manifest


def _list_files(folder: Path) -> dict[str, FileEntry]:
    return {name: _file_entry(folder, name) for name in FolderStore(folder).names()}


def _file_entry(folder: Path, name: str) -> FileEntry:
    described = DESCRIPTIONS | {variant.file: variant.what for variant in VARIANTS.values()}
    return FileEntry(described[name], (folder / name).stat().st_size, sha256_of(folder / name))
