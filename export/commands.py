"""The commands that make and check bundles: `slmx export` and `slmx verify`."""

from __future__ import annotations

import shlex
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from runtimes.bundle.location import BUNDLE_HELP, find_bundle
from slm.errors import UsageError, needs


def export(
    preset: Annotated[str | None, typer.Option(help="Model shape; default: the checkpoint's, or nano.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Add dynamic int8.")] = False,
    q8: Annotated[bool, typer.Option("--q8", help="Add weights in 8 bits by blocks.")] = False,
    int4: Annotated[bool, typer.Option("--int4", help="Add weights in 4 bits by blocks, with an 8-bit head.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Add float16 storage, for the web.")] = False,
    portable: Annotated[bool, typer.Option("--portable", help="Add a graph of standard operators only.")] = False,
    mobile: Annotated[bool, typer.Option("--mobile", help="Add .ort, for onnxruntime's mobile builds.")] = False,
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Add TorchScript.")] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="Add torch.export's .pt2.")] = False,
    executorch: Annotated[
        bool, typer.Option("--executorch", help="Add executorch's .pte, for phones; not part of --all.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Add every variant.")] = False,
    fp32: Annotated[bool, typer.Option(help="Keep the float32 variant in the bundle.")] = True,
    target: Annotated[
        str | None,
        typer.Option(help="any, x86, x86-vnni, pi3, pi4, pi5 or web: adds its variant and makes it the default."),
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the one that ships with slmx.")] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Random weights, for benchmarks only.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; default: bundles/PRESET.")] = None,
    int8_recipe: Annotated[str | None, typer.Option(help="How to quantize; default: the target's.")] = None,
    int8_exclude: Annotated[
        str, typer.Option(help="Matrices to leave in float, separated by commas; auto finds them.")
    ] = "",
    text: Annotated[
        Path | None, typer.Option("--text", "--eval-text", help="Stories to compare on; default: the model's own.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle in --out.")] = False,
) -> None:
    """Turn a checkpoint into a bundle of models, each compared with PyTorch; docs/export.md explains them."""
    with needs("export"):
        from export.requirements import check_versions

        check_versions()
        from export.exporter import ExportSettings, export_bundle
        from export.targets import get_target
        from runtimes.bundle.summary import variant_lines
        from runtimes.bundle.variants import VARIANTS

    if executorch:
        with needs("executorch"):
            import_module("executorch.exir")
    asked = {
        "fp32": fp32,
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
        asked[get_target(target).default] = True
    chosen = [name for name in VARIANTS if asked[name] or (everything and (name != "fp32" or fp32))]
    settings = ExportSettings(
        preset=preset,
        out=out,
        checkpoint=checkpoint,
        variants=tuple(chosen),
        target=target or "any",
        int8_recipe=int8_recipe,
        int8_exclude=tuple(name.strip() for name in int8_exclude.split(",") if name.strip()),
        untrained=random_init,
        executorch=executorch,
        eval_text=text,
        force=force,
    )
    folder, manifest = export_bundle(settings, lambda line: typer.echo(line, err=True))
    typer.echo(str(folder))
    for line in variant_lines(manifest):
        typer.echo(line)
    typer.echo(f"now: slmx generate --bundle {shlex.quote(str(folder))}", err=True)


def verify(
    bundle: Annotated[Path | None, typer.Argument(help=BUNDLE_HELP)] = None,
    quality: Annotated[bool, typer.Option("--quality", help="Judge every variant again, as its export did.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="With --quality: read TorchScript and .pt2, which can run code.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="With --quality: the float model; default: found from the bundle.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", "--eval-text", help="With --quality: stories to compare on; default: the model's own."),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(help="Other runtimes that must write our greedy tokens: optimum, genai, or optimum,genai."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Check the signature first, with this public key: NAME.pub of slmx keygen.")
    ] = None,
) -> None:
    """Check the hash of every file, that no file is missing or extra, and that every graph opens.

    The exit code is 1 if anything is wrong. The result is written to verification.json, beside the manifest, or to
    FILE.verification.json, beside a packed bundle. It is not written for a bundle inside the installed package.
    """
    from export.interop.registry import find_runtimes
    from runtimes.bundle.location import SHIPPED_BUNDLES
    from runtimes.bundle.manifest import MANIFEST_FILE
    from runtimes.bundle.store import Bundle
    from runtimes.checks.verify import check_structure, write_verification

    def log(line: str) -> None:
        typer.echo(line, err=True)

    if not quality and (trust or checkpoint is not None or text is not None):
        raise UsageError("--trust, --checkpoint and --text need --quality")
    others = [] if runtimes is None else find_runtimes(runtimes)
    opened = Bundle.open(find_bundle(bundle))
    signed_with = None
    if key is not None:
        with needs("sign"):
            from runtimes.pack.signature import require_signature
        signed_with = require_signature(opened, key)
        typer.echo(f"signed with {key}, over {opened.store.location(MANIFEST_FILE)}")
    if others:
        from export.interop.compare import compare_runtimes, onnx_variants

        onnx_variants(opened)
        for runtime in others:
            runtime.load()
    check = check_structure(opened, log)
    judgement, comparison = None, None
    if quality and not check.problems:
        with needs("export"):
            from export.checks.gates import judge_bundle
            from runtimes.bundle.summary import variant_lines
        judgement = judge_bundle(opened, checkpoint, text, trust, log)
        for line in variant_lines(opened.manifest, judgement.figures):
            typer.echo(line)
        for name, wrong in judgement.failures.items():
            operators = judgement.figures[name].operators
            counted = (
                f"; matrices: {operators.quantized} quantized, {operators.float} float; "
                f"nodes in the graph: {operators.nodes}"
                if operators is not None
                else ""
            )
            typer.echo(f"{name}: {'FAILED: ' + '; '.join(wrong) if wrong else 'passed'}{counted}")
    else:
        for name in check.opened:
            typer.echo(f"{name}: opens, with the shape that the manifest lists")
    read = set() if judgement is None else set(judgement.figures)
    for name in check.not_opened:
        if name not in read:
            typer.echo(f"{name}: not read (PyTorch can run code from it: needs --quality --trust)")
    for problem in check.problems:
        typer.echo(f"FAILED: {problem}")
    if others and not check.problems:
        comparison = compare_runtimes(opened, others, log)
        for line in comparison.lines():
            typer.echo(line)
    if not check.problems:
        typer.echo(f"{check.files} files, every hash matches")
    if opened.path.parent != SHIPPED_BUNDLES:
        parts = {"quality": judgement, "runtimes": comparison}
        further = {name: part.as_dict() for name, part in parts.items() if part}
        signature = {} if signed_with is None else {"signature": {"key_sha256": signed_with}}
        write_verification(opened, check, signature | further, log)
    failed = (judgement is not None and any(judgement.failures.values())) or (
        comparison is not None and comparison.failed
    )
    if check.problems or failed:
        raise typer.Exit(1)
