"""The commands that show this machine, a bundle and the shapes of models: `slmx doctor`, `info` and `presets`."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from runtimes.bundle.location import BUNDLE_DEFAULT, BUNDLE_HELP, find_bundle, shipped_names
from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError
from slm.console.plain_text import escaped
from slm.console.word_wrap import folded
from slm.folder_kind import CHECKPOINT_LISTING, PRETRAINED
from slm.presets import DEFAULT_ARCHITECTURE, PRESETS, as_architecture


def doctor(
    bundle: Annotated[Path | None, typer.Option(help=BUNDLE_HELP, show_default=BUNDLE_DEFAULT)] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Print everything as one JSON line last, to send to others.")
    ] = False,
    pin: Annotated[
        bool, typer.Option("--pin", help="Let every command use the quickest way for this bundle from now on.")
    ] = False,
    unpin: Annotated[bool, typer.Option("--unpin", help="Take back what --pin chose for this bundle.")] = False,
) -> None:
    """Describe this machine, and measure which variant is fastest.

    It shows processor, limits, memory, versions and known problems.
    """
    from runtimes.bundle.pin import Pin, find_pin, pins_path
    from runtimes.bundle.store import Bundle
    from runtimes.bundle.variants import MOST_LOSS, VARIANTS
    from runtimes.checks.doctor import (
        TOO_NOISY,
        Way,
        choose,
        fatal_problems,
        limits,
        look,
        loss_of,
        measure_ways,
        slowdowns,
    )
    from runtimes.checks.pins import check_pins, remove_pin, write_pin
    from runtimes.engine.exact_products import signed_is_exact
    from runtimes.engine.session import default_threads
    from runtimes.system.busy import BusyWatch
    from runtimes.system.machine import describe_machine, this_cpu

    def tell(name: str, value: object) -> None:
        typer.echo(folded(f"{name:<12} {escaped(str(value))}", 13))

    if pin and unpin:
        raise UsageError("--pin and --unpin exclude each other: drop one")
    if pin:
        check_pins()
    if unpin:
        opened = Bundle.open(find_bundle(bundle))
        removed = remove_pin(opened)
        gone = "nothing was pinned" if removed is None else f"{Way(removed.variant, removed.threads)}, no longer pinned"
        tell("unpinned", f"{gone} for {opened.path}, in {pins_path()}")
        return
    found = look()
    for name, value in describe_machine().items():
        tell(name, value)
    tell("limits", limits())
    tell("memory", "unknown" if found.memory is None else f"{found.memory / 2**20:,.0f} MiB available")
    if found.board:
        tell("board", found.board)
    fatal = fatal_problems(found)
    for line in (*fatal, *slowdowns(found)):
        tell("problem", line)
    if fatal:
        raise typer.Exit(1)
    exact = signed_is_exact()
    kind = "signed, which this processor multiplies" if exact else "unsigned: it does not multiply signed weights"
    tell("weights", f"those of int8 are {kind} exactly")
    opened = Bundle.open(find_bundle(bundle))
    default = opened.choose()
    held = find_pin(opened, this_cpu())
    typer.echo(f"measuring {', '.join(opened.variants)} ({opened.manifest.title})", err=True)
    watch = BusyWatch()
    watch.start()
    started = time.perf_counter()
    measured = measure_ways(opened)
    seconds = time.perf_counter() - started
    others = watch.others()
    for way, samples in measured.items():
        speed = f"{1 / samples.median:>8,.0f} tokens/s, spread {samples.spread:.0%}"
        tell(way.variant, f"{counted(way.threads, 'thread'):<10} {speed}{loss_of(opened, way.variant)}")
    default_file = opened.manifest.files[opened.manifest.variants[default].file]
    usual = Way(default, default_threads(default_file.bytes))
    kept, equal = choose(measured, usual)
    noise = next(iter(measured.values())).spread
    too_noisy = ""
    if noise > TOO_NOISY:
        too_noisy = f"because the speeds differ too much from round to round (spread {noise:.0%})"
        tell("quickest", f"unknown, {too_noisy}; run it again when nothing else runs")
    else:
        tell("quickest", kept)
    if equal and not too_noisy:
        rule = "the default" if kept == usual else "no other needs fewer threads"
        tell("as quick", f"{'; '.join(map(str, equal))} (within the noise; {kept} is taken: {rule})")
    if too_inexact := [name for name in opened.variants if not VARIANTS[name].may_be_default and name != kept.variant]:
        tell("not chosen", f"{', '.join(too_inexact)}: may lose more than {MOST_LOSS:.0%}; --variant takes it")
    why = "" if kept == usual else f", chosen for the target {opened.manifest.target} and the size"
    tell("default", f"{usual}{why}")
    if others is not None:
        of = f" --bundle {shlex.quote(str(bundle))}" if bundle else ""
        again = f"; when they have ended, run slmx doctor{of} --pin again" if pin else ""
        again += ", or take it back with --unpin" if pin and not too_noisy else ""
        tell(
            "warning",
            f"other processes used {others:.0%} of the cores, so these speeds and this order can be wrong{again}",
        )
    if pin and not too_noisy:
        held = Pin(kept.variant, kept.threads, this_cpu())
        write_pin(opened, held)
    tell(
        "pinned",
        "nothing for this bundle" if held is None else f"{Way(held.variant, held.threads)}, in {pins_path()}",
    )
    if report:
        from runtimes.checks.report import report_row

        typer.echo(json.dumps(report_row(found, opened, measured, seconds), ensure_ascii=False))
    if pin and too_noisy:
        raise SlmxError(f"--pin: nothing was pinned now, {too_noisy}; run it again when nothing else runs")


def info(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help=BUNDLE_HELP, show_default=BUNDLE_DEFAULT)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what a bundle holds, after a check of every file."""
    from runtimes.bundle.store import Bundle
    from runtimes.bundle.summary import bundle_facts, text_line, variant_lines

    opened = Bundle.open(find_bundle(bundle))
    opened.check_listed_files()
    if as_json:
        typer.echo(json.dumps(bundle_facts(opened), indent=1, ensure_ascii=False))
        return
    manifest, c = opened.manifest, opened.config
    for line in (
        f"{manifest.title}: a {c.family} of {c.parameters:,} parameters, "
        f"{counted(c.n_layer, 'layer')}, {counted(c.n_head, 'head')}, "
        f"{counted(c.n_embd, 'channel')}, vocabulary {c.vocab_size:,}, context {c.block_size:,}",
        f"source: {manifest.checkpoint.shown_source or 'not recorded'}",
        f"licence of the source: {manifest.checkpoint.licence or 'not stated'}",
    ):
        typer.echo(folded(line, 2))
    for line in variant_lines(manifest):
        typer.echo(line)
    for line in (
        f"default for {manifest.target}: {manifest.default}",
        text_line(manifest.judged_on),
        "made with " + ", ".join(f"{name} {number}" for name, number in manifest.versions.items()),
        f"{counted(len(manifest.files), 'file')} and the manifest, every hash matches",
        f"manifest SHA-256 {opened.manifest_sha256}",
    ):
        typer.echo(folded(line, 2))


def presets() -> None:
    """List the model shapes, and which have weights here.

    The parameters are those of --arch llama, the default of slmx train.
    """
    row = "{:<10} {:>7} {:>10} {:>6} {:>5} {:>8} {:>11}  {}"
    heading = ("preset", "context", "vocabulary", "layers", "heads", "channels", "parameters")
    typer.echo(row.format(*heading, "ships with slmx"))
    bundles = shipped_names()
    for preset in PRESETS.values():
        c = as_architecture(preset.config, DEFAULT_ARCHITECTURE)
        sizes = (c.block_size, c.vocab_size, c.n_layer, c.n_head, c.n_embd)
        numbers = (f"{number:,}" for number in (*sizes, c.parameters))
        typer.echo(row.format(preset.name, *numbers, _shipped(preset.name, bundles.get(preset.name))).rstrip())


def _shipped(preset: str, bundle: Path | None) -> str:
    """Returns the model that ships with slmx for a preset, which may have another architecture and other parameters."""
    from runtimes.bundle.store import Bundle
    from slm.checkpoint_config import read_config

    checkpoint = PRETRAINED / preset
    held = {"bundle": bundle is not None, "checkpoint": (checkpoint / CHECKPOINT_LISTING.file).is_file()}
    if not any(held.values()):
        return ""
    config = read_config(checkpoint).shape if bundle is None else Bundle.open(bundle).config
    here = " ".join(name for name, is_here in held.items() if is_here)
    return f"{config.family} {config.parameters:,}" + ("" if all(held.values()) else f" ({here})")
