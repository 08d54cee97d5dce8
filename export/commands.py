"""The commands that make and check bundles: `slmx export` and `slmx verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slm.errors import needs


def export(
    preset: Annotated[str | None, typer.Option(help="Model shape; default: the checkpoint's, or nano.")] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Add dynamic int8.")] = False,
    int4: Annotated[bool, typer.Option("--int4", help="Add int4 weights with an int8 head.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Add float16 storage, for the web.")] = False,
    portable: Annotated[bool, typer.Option("--portable", help="Add a graph of standard operators only.")] = False,
    mobile: Annotated[bool, typer.Option("--mobile", help="Add .ort, for onnxruntime's mobile builds.")] = False,
    torchscript: Annotated[bool, typer.Option("--torchscript", help="Add TorchScript.")] = False,
    pt2: Annotated[bool, typer.Option("--pt2", help="Add torch.export's .pt2.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Add every variant.")] = False,
    fp32: Annotated[bool, typer.Option(help="Keep the float32 variant in the bundle.")] = True,
    target: Annotated[
        str | None, typer.Option(help="any, x86, x86-vnni, pi4, pi5 or web: adds its variant and makes it the default.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Default: the one that ships with slmx.")] = None,
    random_init: Annotated[bool, typer.Option("--random-init", help="Random weights, for benchmarks only.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle; default: bundles/PRESET.")] = None,
    int8_recipe: Annotated[str | None, typer.Option(help="How to quantize; default: the target's.")] = None,
    int8_exclude: Annotated[
        str, typer.Option(help="Matrices to leave in float, separated by commas; auto finds those that hurt.")
    ] = "",
    eval_text: Annotated[Path | None, typer.Option(help="Stories to judge on; default: the model's own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn a checkpoint into a bundle of models, each judged against PyTorch; docs/export.md explains them."""
    with needs("export"):
        from export.requirements import check_versions

        check_versions()
        from export.exporter import ExportSettings, export_bundle
        from export.targets import get_target
        from runtimes.bundle.store import VARIANT_FILES
        from runtimes.bundle.summary import variant_lines

    asked = {
        "fp32": fp32,
        "int8": int8,
        "int4": int4,
        "fp16": fp16,
        "portable": portable,
        "mobile": mobile,
        "torchscript": torchscript,
        "pt2": pt2,
    }
    if target is not None:
        asked[get_target(target).default] = True
    chosen = [name for name in VARIANT_FILES if asked[name] or (everything and (name != "fp32" or fp32))]
    settings = ExportSettings(
        preset=preset,
        out=out,
        checkpoint=checkpoint,
        variants=tuple(chosen),
        target=target or "any",
        int8_recipe=int8_recipe,
        int8_exclude=tuple(name.strip() for name in int8_exclude.split(",") if name.strip()),
        untrained=random_init,
        eval_text=eval_text,
        force=force,
    )
    folder, manifest = export_bundle(settings, lambda line: typer.echo(line, err=True))
    typer.echo(str(folder))
    for line in variant_lines(manifest, manifest["variants"]):
        typer.echo(line)


def verify(
    bundle: Annotated[Path | None, typer.Argument(help="Folder of a bundle; default: bundles/nano.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="The float model; default: found from the bundle.")] = None,
    eval_text: Annotated[Path | None, typer.Option(help="Stories to judge on; default: the model's own.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help="Load TorchScript and .pt2, which can run code.")] = False,
) -> None:
    """Check a bundle again: hashes, operators, parity, quality; exit code 1 when a variant fails its gate."""
    with needs("export"):
        from export.checks.gates import verify_bundle
        from runtimes import BUNDLES
        from runtimes.bundle.summary import variant_lines

    def report(line: str) -> None:
        typer.echo(line, err=True)

    manifest = verify_bundle(bundle or BUNDLES / "nano", checkpoint, eval_text, report, trusted=trust)
    found = manifest["verified"]["variants"]
    for line in variant_lines(manifest, found):
        typer.echo(line)
    for name, figures in found.items():
        operators = figures.get("operators")
        counted = (
            f", {operators['quantized']} matrices quantized, {operators['float']} not, {operators['nodes']} nodes"
            if operators
            else ""
        )
        typer.echo(
            f"{name}: {'FAILED: ' + '; '.join(figures['failures']) if figures['failures'] else 'passed'}{counted}"
        )
    typer.echo(f"{len(manifest['files'])} files, every hash matches")
    if any(figures["failures"] for figures in found.values()):
        raise typer.Exit(1)
