"""The commands from a corpus to a checkpoint: `slmx prepare`, `train`, `average`, `import`."""

from __future__ import annotations

import shlex
import signal
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError, needs, require
from slm.console.notice import log_line
from slm.console.usage import one_of, panel
from slm.data.stories import SEPARATORS
from slm.metrics import shown_bits
from slm.presets import (
    ARCHITECTURES,
    BLOCK_VARIANTS,
    DEFAULT_ARCHITECTURE,
    DEFAULT_OPTIMIZER,
    DEFAULT_PRESET,
    OPTIMIZERS,
    PRECISIONS,
    PRESETS,
    QAT_VARIANTS,
    TRACKERS,
    GPTConfig,
)

if TYPE_CHECKING:
    from slm.data.prepare import PrepareSettings

# The options of a new model, of its steps, and of its figures are in panels of the help of `slmx train`.
_model, _steps, _figures, _rare = panel("Model"), panel("Steps"), panel("Checkpoints and figures"), panel("Rare")
_HELD_OUT = "1 story in 20"
_PRESET = "the preset's"


def prepare(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Text or table file, folder, pipe, - or hub data set.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the data set.")],
    preset: Annotated[
        str,
        typer.Option(
            **one_of("preset", list(PRESETS), "Model shape, which sets the vocabulary."),
        ),
    ] = DEFAULT_PRESET,
    valid: Annotated[list[str] | None, typer.Option(help="Validation source.", show_default=_HELD_OUT)] = None,
    licence: Annotated[str, typer.Option(help="Licence of the text, for the record.")] = "not stated",
    force: Annotated[bool, typer.Option("--force", help="Replace the data set in --out.")] = False,
    field: Annotated[str, _rare(help="Column with the story, for tables.")] = "text",
    separator: Annotated[
        str,
        _rare(
            **one_of("separator", SEPARATORS, "What separates the stories of a text."),
        ),
    ] = "auto",
    clean: Annotated[bool, _rare(help="Repair mojibake; drop truncated stories.", show_default="yes")] = True,
    vocab_size: Annotated[int | None, _rare(help="Number of tokens.", show_default=_PRESET)] = None,
    tokenizer: Annotated[Path | None, _rare(help="Use that of a checkpoint or data set, or of nano.")] = None,
) -> None:
    """Make a data set of a text: clean it, learn its tokenizer.

    A data set that is up to date is not written again.
    """
    from slm.data.sources import STREAMS, find_sources

    # A missing file is an error before a large installation is asked for.
    find_sources([name for name in (*sources, *(valid or ())) if name not in STREAMS and not Path(name).exists()])
    require("train", "ftfy", "tokenizers")
    with needs("train"):
        from rich.console import Console

        from slm.data.prepare import PrepareSettings
        from slm.data.prepare import prepare as run
        from slm.folder_kind import check_outside
        from slm.hidden_names import tell_hidden_checkpoints

    settings = PrepareSettings(
        sources=tuple(sources),
        preset=preset,
        out=out,
        valid=tuple(valid or ()),
        licence=licence,
        field=field,
        separator=separator,
        vocab_size=vocab_size,
        tokenizer=tokenizer,
        clean=clean,
        force=force,
    )
    check_outside(out)
    tell_hidden_checkpoints(tokenizer)
    dataset = run(settings, Console(stderr=True))
    typer.echo(str(out))
    typer.echo(next_step(settings, min(len(dataset.train.ids), len(dataset.valid.ids))), err=True)


def next_step(prepared: PrepareSettings, tokens: int) -> str:
    """Returns what to do with a data set: the command that trains on it, or what it lacks.

    The command trains a new model, or the checkpoint or run that has the tokenizer of the data set. A new model gets a
    context that is shorter than the data set.

    Args:
        prepared: How the data set was made.
        tokens: Tokens of its shorter split.
    """
    from slm.checkpoint_config import read_config
    from slm.data.dataset import largest_context
    from slm.folder_kind import find_checkpoint

    out, tokenizer = prepared.out, prepared.tokenizer
    start = "" if prepared.preset == DEFAULT_PRESET else f" --preset {prepared.preset}"
    context, init = PRESETS[prepared.preset].config.block_size, None
    if tokenizer is not None:
        # A bundle or a data set has a tokenizer and no weights to start from.
        with suppress(SlmxError, OSError):
            init = find_checkpoint(tokenizer)
            start = f" --init {shlex.quote(str(tokenizer))}"
            context = read_config(init).shape.block_size
    if tokens <= context and init is not None:
        return (
            f"to fine-tune {tokenizer}, prepare more text: one context of it is {context:,} tokens, and the shorter "
            f"split is {tokens:,}"
        )
    why = ""
    if tokens <= context:
        shorter = largest_context(tokens)
        start += f" --block-size {shorter}"
        why = (
            f"the shorter split has {counted(tokens, 'token')}, so the next command shortens the context to {shorter}; "
            "more text makes a better model\n"
        )
    run = shlex.quote(str(Path("runs", out.absolute().name)))
    return f"{why}now: slmx train --text {shlex.quote(str(out))}{start} --out {run}"


def train(
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run. Only --dry-run needs none.", show_default=False)
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="Folder from slmx prepare, or a source.")] = None,
    preset: Annotated[
        str | None, typer.Option(**one_of("preset", list(PRESETS), "Model shape."), show_default=DEFAULT_PRESET)
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Checkpoint to fine-tune, or nano, micro, small.")] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Checkpoint, or nano, micro, small, to imitate in place of the text; repeat for a mean."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Updates of the weights.", show_default="20 tokens per parameter, or 4 epochs in fine-tuning"
        ),
    ] = None,
    qat: Annotated[
        str | None,
        typer.Option(**one_of("variant", QAT_VARIANTS, "With --init: train for this variant of slmx export.")),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Time a few steps, print what the run will need, write nothing.")
    ] = False,
    arch: Annotated[
        str | None, _model(**one_of("architecture", ARCHITECTURES, "Architecture."), show_default=DEFAULT_ARCHITECTURE)
    ] = None,
    block_size: Annotated[int | None, _model(help="Context in tokens.", show_default=_PRESET)] = None,
    n_layer: Annotated[int | None, _model(help="Layers.", show_default=_PRESET)] = None,
    n_head: Annotated[int | None, _model(help="Attention heads.", show_default=_PRESET)] = None,
    n_embd: Annotated[int | None, _model(help="Channels.", show_default=_PRESET)] = None,
    batch_size: Annotated[
        int | None, _steps(help="Sequences in a step, over all processes.", show_default=_PRESET)
    ] = None,
    learning_rate: Annotated[
        float | None,
        _steps(help="Peak of the learning rate.", show_default="the preset's, or a tenth of it in fine-tuning"),
    ] = None,
    optimizer: Annotated[
        str | None, _steps(**one_of("optimizer", OPTIMIZERS, "Optimizer."), show_default=DEFAULT_OPTIMIZER)
    ] = None,
    dropout: Annotated[
        float | None, _steps(help="Probability that an activation is dropped.", show_default=_PRESET)
    ] = None,
    seed: Annotated[int | None, _steps(help="Seed of weights, batches and dropout.", show_default="1")] = None,
    valid: Annotated[list[str] | None, _figures(help="Validation source.", show_default=_HELD_OUT)] = None,
    eval_every: Annotated[int | None, _figures(help="Steps between checkpoints.", show_default="250")] = None,
    patience: Annotated[
        int | None,
        _figures(help="Stop after this many evaluations without a better one; 0 is off.", show_default="0"),
    ] = None,
    track: Annotated[
        list[str] | None,
        _figures(
            **one_of("tracker", TRACKERS, "Send the figures there; repeat for both."),
        ),
    ] = None,
    precision: Annotated[
        str | None,
        _rare(**one_of("precision", PRECISIONS, "auto is bf16 if the hardware has it."), show_default="auto"),
    ] = None,
    compile: Annotated[
        bool | None,
        _rare("--compile/--no-compile", help="Use torch.compile.", show_default="if there is a C++ compiler"),
    ] = None,
    accumulate: Annotated[int | None, _rare(help="Parts that a batch is computed in.", show_default="1")] = None,
    weight_decay: Annotated[float | None, _rare(help="Weight decay of matrices.", show_default="0.1")] = None,
    grad_clip: Annotated[float | None, _rare(help="Largest norm of the gradient.", show_default="1")] = None,
    eval_tokens: Annotated[int | None, _rare(help="Validation tokens read each time.", show_default="262,144")] = None,
    licence: Annotated[
        str | None, _rare(help="Licence of the text, for the record.", show_default="the data set's")
    ] = None,
) -> None:
    """Train a model, or fine-tune a checkpoint.

    Ctrl-C saves, and --resume --out RUN continues exactly. docs/training.md has the details.
    """
    if dry_run and resume:
        raise UsageError("--dry-run is for a run that has not begun: drop --resume")
    if out is None and not dry_run:
        raise UsageError("--out is missing")
    require("train", "ftfy", "matplotlib", "tokenizers")
    with needs("train"):
        from rich.console import Console

        from slm.console.signals import StopFlag
        from slm.hidden_names import tell_hidden_checkpoints
        from slm.storage.locks import clear_leftover, clear_leftovers
        from slm.train.dry_run import dry_run as estimate
        from slm.train.hardware import is_first_process
        from slm.train.plan import TrainSettings
        from slm.train.run_folder import RunFolder
        from slm.train.start import find_finished
        from slm.train.train import train as run

    settings = TrainSettings(
        out=out or Path(),
        text=tuple(text or ()),
        preset=preset,
        init=init,
        teacher=tuple(teacher or ()),
        valid=tuple(valid or ()),
        licence=licence,
        arch=arch,
        block_size=block_size,
        n_layer=n_layer,
        n_head=n_head,
        n_embd=n_embd,
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        optimizer=optimizer,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        dropout=dropout,
        grad_clip=grad_clip,
        eval_every=eval_every,
        eval_tokens=eval_tokens,
        patience=patience,
        seed=seed,
        qat=qat,
        precision=precision,
        compile=compile,
        track=tuple(track or ()),
        resume=resume,
    )
    console = Console(stderr=True)
    tell_hidden_checkpoints(init, *settings.teacher)
    if dry_run:
        with tempfile.TemporaryDirectory() as empty:
            for line in estimate(settings if out else replace(settings, out=Path(empty)), console).lines():
                typer.echo(line)
        return
    folder = RunFolder(settings.out)
    if (done := find_finished(settings, console)) is not None:
        if is_first_process():
            clear_leftover(settings.out)
            with suppress(SlmxError):
                clear_leftovers(settings.out)
            folder.rotate(keep_first=done.plan.qat is not None)
            _tell_best(folder.path, f"finished already: {counted(done.steps_done, 'step')}; ")
            typer.echo(folder.more_steps(), err=True)
        return
    stop = StopFlag()
    summary = run(settings, console, stop)
    if summary is None:
        again = f"slmx train --resume --out {shlex.quote(str(settings.out))}"
        typer.echo(f"stopped and saved; continue with: {again}", err=True)
        raise typer.Exit(128 + (stop.number or signal.SIGINT))  # another process can have got it
    if not console.quiet:
        for line in summary.lines():
            typer.echo(line, err=True)
        _tell_best(folder.path)


def _tell_best(folder: Path, before: str = "", better: Path | None = None) -> None:
    """Prints a checkpoint, or the best of a run. Then `before` and the command that exports it, or exports `better`."""
    from slm.checkpoint import load_checkpoint
    from slm.train.qat import trained_for

    checkpoint = load_checkpoint(folder)
    typer.echo(str(checkpoint.folder))
    export = _export_command(better or folder, checkpoint.model.config, trained_for(checkpoint.record))
    typer.echo(f"{before}now: {export}", err=True)


def average(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT...", help="Two or more checkpoints or runs; the record is that of the last."
        ),
    ],
    text: Annotated[
        list[str], typer.Option("--text", help="Folder from slmx prepare (its validation split), or a source.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new checkpoint.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint in --out.")] = False,
) -> None:
    """Write the mean of several checkpoints of one training.

    The mean of late checkpoints of one run is often better than each of them.
    """
    with needs("train"):
        from rich.console import Console

        from slm.hidden_names import tell_hidden_checkpoints
        from slm.train.average import verdict, write_average

    tell_hidden_checkpoints(*checkpoints)
    result, each = write_average(checkpoints, text, out, force, Console(stderr=True))
    for path, one in zip(checkpoints, each, strict=True):
        log_line(f"{path}: {shown_bits(one.bits_per_byte)} bits per byte")
    words, better = verdict(result, each, checkpoints)
    log_line(f"the mean: {shown_bits(result.bits_per_byte)} bits per byte, {words}")
    _tell_best(out, better=better)


def import_model(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Hugging Face folder, .pt, .gguf or .bin file, or OWNER/NAME.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Tokenizer of a .pt or .bin; other models are moved to its vocabulary."),
    ] = None,
    n_head: Annotated[int | None, typer.Option(min=1, help="For .pt: attention heads, if it does not tell.")] = None,
    shape: Annotated[Path | None, typer.Option(help="For .pt: JSON file with other parts of the shape.")] = None,
    block_size: Annotated[int | None, typer.Option(min=1, help="Shorter context, in tokens.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the model.", show_default="what the source says")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the checkpoint in --out.")] = False,
) -> None:
    """Turn a model of another tool into a checkpoint to export.

    It reads models of Hugging Face, nanoGPT, llama2.c and llama.cpp. docs/import.md has the details.
    """
    require("train", "tokenizers")
    with needs("train"):
        from slm.hidden_names import tell_hidden_checkpoints
        from slm.importers.importer import ImportSettings
        from slm.importers.importer import import_model as run

    settings = ImportSettings(
        source=source,
        out=out,
        tokenizer=tokenizer,
        shape=shape,
        n_head=n_head,
        block_size=block_size,
        licence=licence,
        force=force,
    )
    tell_hidden_checkpoints(tokenizer)
    imported = run(settings, log_line)
    config = imported.config
    typer.echo(str(out))
    train = f"slmx train --init {shlex.quote(str(out))} --text STORIES --out NEW"
    now = train if imported.moved else _export_command(out, config)
    typer.echo(f"{config.parameters:,} parameters; now: {now}", err=True)


def _export_command(checkpoint: Path, config: GPTConfig, trained_for: str | None = None) -> str:
    """Returns the command that exports a checkpoint or a run of this shape, in the variant that it was trained for."""
    flags = f"--no-fp32 --{trained_for}" if trained_for in BLOCK_VARIANTS else "--int8"
    if config.head_dim % config.fused_head_multiple:
        flags = "--no-fp32 --portable"
    bundle = Path("bundles", checkpoint.absolute().name)
    return f"slmx export --checkpoint {shlex.quote(str(checkpoint))} {flags} --out {shlex.quote(str(bundle))}"
