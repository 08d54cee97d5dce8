"""The commands that make and check bundles: `slmx export` and `slmx verify`."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from export.formats.recipes import DEFAULT_RECIPE, RECIPE_NAMES
from export.interop.registry import RUNTIMES
from export.targets import TARGETS
from runtimes.bundle.location import BUNDLE_DEFAULT, BUNDLE_HELP, find_bundle
from slm.console.counted import counted
from slm.console.errors import UsageError, needs
from slm.console.notice import log_line
from slm.console.usage import names_of, one_of, panel, some_of
from slm.console.word_wrap import folded
from slm.presets import PRESETS
from slm.storage.file_names import MANIFEST_FILE

_variants, _int8 = panel("Variants"), panel("Rare: how int8 quantizes")
_quality = panel("Quality")


def _add(flag: str, what: str) -> Any:  # noqa: ANN401  # what typer.Option returns
    """Returns the option that adds a variant."""
    return _variants(flag, help=f"Add {what}.")


def export(
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint or training run.", show_default="the one that ships with slmx")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(**one_of("preset", list(PRESETS), "Model shape."), show_default="the checkpoint's, or nano"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            **one_of("target", list(TARGETS), "Machine to make the best variant for, and no other unless asked."),
            show_default="any",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle.", show_default="bundles/NAME")] = None,
    text: Annotated[
        Path | None, typer.Option("--text", help="File of stories to compare on.", show_default="the model's own")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle in --out.")] = False,
    int8: Annotated[bool, _add("--int8", "dynamic int8")] = False,
    q8: Annotated[bool, _add("--q8", "weights in 8 bits by blocks")] = False,
    int4: Annotated[bool, _add("--int4", "weights in 4 bits by blocks, with an 8-bit head")] = False,
    fp16: Annotated[bool, _add("--fp16", "float16 storage, for the web")] = False,
    portable: Annotated[bool, _add("--portable", "a graph of standard operators only")] = False,
    mobile: Annotated[bool, _add("--mobile", ".ort, for onnxruntime's mobile builds")] = False,
    torchscript: Annotated[bool, _add("--torchscript", "TorchScript")] = False,
    pt2: Annotated[bool, _add("--pt2", "torch.export's .pt2")] = False,
    everything: Annotated[bool, _add("--all", "all of these")] = False,
    executorch: Annotated[bool, _add("--executorch", "executorch's .pte, for phones; not part of --all")] = False,
    fp32: Annotated[
        bool | None,
        _variants("--fp32/--no-fp32", help="Keep the float32 variant.", show_default="yes, with --target no"),
    ] = None,
    int8_recipe: Annotated[
        str, _int8(**one_of("int8 recipe", RECIPE_NAMES, "How weights become int8."))
    ] = DEFAULT_RECIPE,
    int8_exclude: Annotated[
        str | None, _int8(help="Matrices to leave in float, separated by commas; auto finds them.", show_default="none")
    ] = None,
) -> None:
    """Turn a checkpoint into a bundle, which writes stories.

    A bundle holds variants of the model, each compared with PyTorch. docs/export.md explains them.
    """
    with needs("export"):
        from export.requirements import check_versions

        check_versions()
    from export.settings import ExportSettings, bundle_up_to_date
    from runtimes.bundle.variants import VARIANTS
    from slm.hidden_names import tell_hidden_checkpoints
    from slm.storage.locks import clear_leftover

    if executorch:
        with needs("executorch"):
            import_module("executorch.exir")
    asked = {
        "fp32": (target is None) if fp32 is None else fp32,
        "int8": int8,
        "q8": q8,
        "int4": int4,
        "fp16": fp16,
        "portable": portable,
        "mobile": mobile,
        "torchscript": torchscript,
        "pt2": pt2,
    }
    if target is not None:
        asked[TARGETS[target]] = True
    chosen = [name for name in VARIANTS if asked[name] or (everything and (name != "fp32" or fp32 is not False))]
    settings = ExportSettings(
        preset=preset,
        out=out,
        checkpoint=checkpoint,
        variants=tuple(chosen),
        target=target or "any",
        int8_recipe=int8_recipe,
        int8_exclude=names_of(int8_exclude or ""),
        executorch=executorch,
        eval_text=text,
        force=force,
    )
    tell_hidden_checkpoints(checkpoint)
    if (made := bundle_up_to_date(settings)) is not None:
        clear_leftover(made)
        typer.echo(str(made))
        typer.echo(f"{made}: up to date", err=True)
        return
    with needs("export"):
        from export.exporter import export_bundle
        from export.stages import stages
        from runtimes.bundle.summary import text_line, variant_lines
    with stages() as log:
        folder, manifest = export_bundle(settings, log)
    typer.echo(str(folder))
    for line in (*variant_lines(manifest), text_line(manifest.judged_on)):
        typer.echo(folded(line, 2))
    typer.echo(f"now: slmx generate --bundle {shlex.quote(str(folder))}", err=True)


def verify(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP, show_default=BUNDLE_DEFAULT)
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Check the signature first, with this public key: NAME.pub of slmx keygen.")
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(
            **some_of("runtime", list(RUNTIMES), "Other runtimes that must write our greedy tokens."),
        ),
    ] = None,
    quality: Annotated[bool, _quality("--quality", help="Check every variant again, as its export did.")] = False,
    trust: Annotated[
        bool, _quality("--trust", help="With --quality: read TorchScript and .pt2, which can run code.")
    ] = False,
    checkpoint: Annotated[
        Path | None, _quality(help="With --quality: the float model.", show_default="found from the bundle")
    ] = None,
    text: Annotated[
        Path | None,
        _quality("--text", help="With --quality: stories to compare on.", show_default="the model's own"),
    ] = None,
) -> None:
    """Check a bundle: every hash, and that every graph opens.

    A missing file and an extra one are found too. The exit code is 1 if anything is wrong.

    The result is written to verification.json beside the manifest, or to FILE.verification.json beside a packed bundle.
    It is not written for a bundle inside the installed package.
    """
    from export.interop.registry import find_runtimes
    from runtimes.bundle.location import is_shipped
    from runtimes.bundle.store import Bundle
    from runtimes.checks.verify import check_structure, write_verification

    if not quality and (trust or checkpoint is not None or text is not None):
        raise UsageError("--trust, --checkpoint and --text need --quality")
    others = [] if runtimes is None else find_runtimes(runtimes)
    opened = Bundle.open(find_bundle(bundle))
    signed_with = None
    if key is not None:
        with needs("sign"):
            from runtimes.pack.signature import require_signature
        signed_with = require_signature(opened, key)
        typer.echo(folded(f"signed with {key}, over {opened.store.location(MANIFEST_FILE)}", 2))
    if others:
        from export.interop.compare import compare_runtimes, onnx_variants

        onnx_variants(opened)
        for runtime in others:
            runtime.load()
    check = check_structure(opened, log_line)
    checked, comparison = None, None
    if quality and not check.problems:
        with needs("export"):
            from export.checks.gates import check_quality
            from export.stages import stages
            from runtimes.bundle.summary import text_line, variant_lines
        with stages() as say:
            checked = check_quality(opened, checkpoint, text, trust, say)
        for line in (*variant_lines(opened.manifest, checked.figures), text_line(checked.judged_on)):
            typer.echo(folded(line, 2))
        for name, wrong in checked.failures.items():
            operators = checked.figures[name].operators
            matrices = (
                f"; matrices: {operators.quantized} quantized, {operators.float} float; "
                f"nodes in the graph: {operators.nodes}"
                if operators is not None
                else ""
            )
            typer.echo(folded(f"{name}: {'FAILED: ' + '; '.join(wrong) if wrong else 'passed'}{matrices}", 2))
    else:
        for name in check.opened:
            typer.echo(folded(f"{name}: opens, with the shape that the manifest lists", 2))
    read = set() if checked is None else set(checked.figures)
    for name in check.not_opened:
        if name not in read:
            typer.echo(folded(f"{name}: not read (PyTorch can run code from it: needs --quality --trust)", 2))
    for problem in check.problems:
        typer.echo(folded(f"FAILED: {problem}", 2))
    if others and not check.problems:
        comparison = compare_runtimes(opened, others, log_line)
        for line in comparison.lines():
            typer.echo(folded(line, 2))
    if not check.problems:
        typer.echo(folded(f"{counted(check.files, 'file')} and the manifest, every hash matches", 2))
    if not is_shipped(opened.path):
        parts = {"quality": checked, "runtimes": comparison}
        further = {name: part.as_dict() for name, part in parts.items() if part}
        signature = {} if signed_with is None else {"signature": {"key_sha256": signed_with}}
        write_verification(opened, check, signature | further, log_line)
    failed = (checked is not None and any(checked.failures.values())) or (comparison is not None and comparison.failed)
    if check.problems or failed:
        raise typer.Exit(1)
