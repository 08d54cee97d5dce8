"""The commands that run a bundle: `slmx generate`, `slmx doctor` and `slmx info`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slm.errors import SlmxError
from slm.terminal import LiveRate, is_terminal, styled

if TYPE_CHECKING:
    from runtimes.engine.generator import Completion, Generator, Stream

BETWEEN = "\n\n---\n\n"


def default_bundle() -> Path:
    """`bundles/nano` in the current folder if an export put one there, else the one inside the package."""
    from runtimes import BUNDLES, PACKAGED_BUNDLE

    exported = BUNDLES / "nano"
    if (exported / "manifest.json").is_file():
        typer.echo(f"bundle: {exported}", err=True)
        return exported
    return PACKAGED_BUNDLE


def _read_prompt(prompt: str, file: Path | None) -> str:
    """The prompt as it was given: text, `-` for standard input, or a file; a last line break is no part of it."""
    if file is not None:
        if prompt:
            raise SlmxError("a prompt and --prompt-file exclude each other: drop one")
        content = file.read_bytes()
    elif prompt == "-":
        content = sys.stdin.buffer.read()
    else:
        return prompt
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SlmxError(f"{file or 'standard input'}: not UTF-8 text; convert it to UTF-8") from None


def _parse_bias(pairs: list[str]) -> dict[int, float]:
    biases = {}
    for pair in pairs:
        token, _, value = pair.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError:
            raise SlmxError(f"--logit-bias takes ID=VALUE, such as 42=-5, not {pair!r}") from None
    return biases


def generate(
    prompt: Annotated[str, typer.Argument(help="How the story begins; - reads standard input.")] = "",
    prompt_file: Annotated[Path | None, typer.Option(help="Read the prompt from a file.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Default: bundles/nano here, else the shipped one.")] = None,
    variant: Annotated[str | None, typer.Option(help="Default: the one for the bundle's target.")] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Stories to write, in one batch.")] = 1,
    max_tokens: Annotated[int | None, typer.Option(help="Default: until the story or the context ends.")] = None,
    min_tokens: Annotated[int, typer.Option(help="No end before that many.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text to stop before; repeat for more.")] = None,
    on_full: Annotated[str, typer.Option(help="When the context is full: stop, or slide and go on.")] = "stop",
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 is off.")] = 40,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens up to this mass; 1 is off.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Keep tokens this likely beside the likeliest; 0 is off.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 shuns tokens seen before.")] = 1.0,
    presence_penalty: Annotated[float, typer.Option(help="Taken from tokens written before.")] = 0.0,
    frequency_penalty: Annotated[float, typer.Option(help="Taken from tokens for each time they were written.")] = 0.0,
    no_repeat_ngram: Annotated[int, typer.Option(help="Never write the same n tokens twice; 0 is off.")] = 0,
    logit_bias: Annotated[list[str] | None, typer.Option(help="ID=VALUE added to a token's logit; repeat.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same story; default: a new one.")] = None,
    allow_special: Annotated[
        bool, typer.Option("--allow-special", help="Read <|endoftext|> in the prompt as the token.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Default: by model size.")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Tell the story together.")] = False,
    logprobs: Annotated[bool, typer.Option("--logprobs", help="With --json: each token's log-probability.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write the text to a file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a story instead of text.")] = False,
) -> None:
    """Write a story with onnxruntime; text goes to stdout as it comes."""
    from runtimes.bundle.store import Bundle
    from runtimes.engine.generator import Completion, GenerationConfig, Generator
    from runtimes.engine.interactive import tell
    from runtimes.engine.penalties import LogitsRules
    from runtimes.engine.sampler import SamplingParams

    rules = LogitsRules(
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        no_repeat_ngram=no_repeat_ngram,
        min_tokens=min_tokens,
        logit_bias=_parse_bias(logit_bias or []),
    )
    sampling = SamplingParams(temperature, top_k, top_p, min_p, seed, rules)
    limits = GenerationConfig(max_tokens, tuple(stop or ()), on_full, logprobs)
    if logprobs and not as_json:
        raise SlmxError("--logprobs shows in JSON only: add --json")
    if interactive and (as_json or count > 1 or prompt == "-"):
        raise SlmxError("--interactive reads lines and writes one story as text: drop --json, -n and -")
    prompt = _read_prompt(prompt, prompt_file)
    folder = default_bundle() if bundle is None else bundle
    generator = Generator(Bundle.open(folder), variant, threads, allow_special)
    if sys.stdout is None:
        raise SlmxError("standard output is closed: send it to a file, or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if interactive:
        text = tell(generator, prompt, limits, sampling, sys.stdin, _write, lambda line: typer.echo(line, err=True))
        typer.echo()
        if save is not None:
            save.write_text(text + "\n", "utf-8")
        return
    if count > 1:
        stories = generator.batch([prompt] * count, limits, sampling)
        if as_json:
            for story in stories:
                typer.echo(_as_json(generator, prompt, story))
        else:
            typer.echo(BETWEEN.join(story.text for story in stories))
    else:
        stream = generator.stream(prompt, limits, sampling)
        text = _show(stream, prompt, silent=as_json)
        stories = [Completion(text, stream.ids, stream.summary)]
        typer.echo(_as_json(generator, prompt, stories[0], stream.logprobs) if as_json else "")
    if save is not None:
        save.write_text(BETWEEN.join(story.text for story in stories) + "\n", "utf-8")
    _report(generator, stories)
    if any(story.summary.stop == "interrupted" for story in stories):
        raise typer.Exit(130)


def _show(stream: Stream, prompt: str, silent: bool) -> str:
    """Print a story as it comes, until it ends or Ctrl-C; its text so far."""
    terminal = is_terminal() and not silent
    pieces = [prompt]
    if not silent:
        _write(styled(prompt, bold=True) if terminal and prompt else prompt)
    with LiveRate(terminal) as live:
        try:
            for piece in stream:
                pieces.append(piece)
                if not silent:
                    _write(piece)
                live.add(len(stream.ids))
        except KeyboardInterrupt:
            pass
    return "".join(pieces)


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _as_json(generator: Generator, prompt: str, story: Completion, logprobs: Sequence[float] = ()) -> str:
    whole: dict[str, object] = {"prompt": prompt, "text": story.text, "ids": story.ids, "variant": generator.variant}
    if logprobs:
        whole["logprobs"] = [round(value, 5) for value in logprobs]
    record = asdict(story.summary) | {"tokens_per_second": round(story.summary.tokens_per_second, 1)}
    return json.dumps(whole | {"bundle": str(generator.bundle.path)} | record, ensure_ascii=False)


def _report(generator: Generator, stories: list[Completion]) -> None:
    first = stories[0].summary
    where = f"{generator.variant}, seed {first.seed}, {generator.session.threads} thread(s)"
    if len(stories) == 1:
        told = (
            f"{first.tokens} tokens, {first.tokens_per_second:,.0f} tokens/s, "
            f"{1000 * first.time_to_first_token:.1f} ms to the first, stopped by {first.stop}"
        )
    else:
        tokens = sum(story.summary.tokens for story in stories)
        seconds = max(story.summary.time_to_first_token + story.summary.decode_seconds for story in stories)
        told = f"{len(stories)} stories, {tokens} tokens, {tokens / seconds:,.0f} tokens/s together"
    said = f"{told} ({where})"
    typer.echo(styled(said, dim=True) if is_terminal() else said, err=True)


def doctor(
    bundle: Annotated[Path | None, typer.Option(help="Default: bundles/nano here, else the shipped one.")] = None,
) -> None:
    """Show processor, limits, memory and versions, known traps, and which variant is quickest here."""
    from runtimes.bundle.store import Bundle
    from runtimes.system.doctor import fatal_traps, limits, look, quickest, traps
    from runtimes.system.machine import describe_machine

    found = look()
    for name, value in describe_machine().items():
        typer.echo(f"{name:<12} {value}")
    typer.echo(f"{'limits':<12} {limits()}")
    typer.echo(f"{'memory':<12} {'unknown' if found.memory is None else f'{found.memory / 2**20:,.0f} MiB available'}")
    if found.board:
        typer.echo(f"{'board':<12} {found.board}")
    fatal = fatal_traps(found)
    for line in (*fatal, *traps(found)):
        typer.echo(f"{'trap':<12} {line}")
    if fatal:
        raise typer.Exit(1)
    opened = Bundle.open(default_bundle() if bundle is None else bundle)
    typer.echo(f"measuring {', '.join(opened.variants)} ({opened.manifest.preset})", err=True)
    measured = quickest(opened)
    for name, samples in measured.items():
        typer.echo(f"{name:<12} {1 / samples.median:,.0f} tokens/s +-{samples.spread:.0%}")
    best, default = next(iter(measured)), opened.variants[0]
    target = opened.manifest.target
    told = "the default" if best == default else f"the default is {default}, chosen for the target {target}"
    typer.echo(f"quickest     {best} ({told})")


def info(bundle: Annotated[Path, typer.Argument(help="Folder or archive of a bundle.")]) -> None:
    """Check every file of a bundle and show what it holds."""
    from runtimes.bundle.store import Bundle
    from runtimes.bundle.summary import variant_lines

    opened = Bundle.open(bundle)
    opened.check_all()
    manifest, c = opened.manifest, opened.config
    typer.echo(
        f"{manifest.preset}: {c.parameters:,} parameters, {c.n_layer} layers, {c.n_head} heads, "
        f"{c.n_embd} channels, vocabulary {c.vocab_size}, context {c.block_size}"
    )
    for line in variant_lines(manifest):
        typer.echo(line)
    typer.echo(f"default for {manifest.target}: {manifest.default}")
    typer.echo(f"judged on {manifest.judged_on.tokens:,} tokens: {manifest.judged_on.text}")
    typer.echo("made with " + ", ".join(f"{name} {number}" for name, number in manifest.versions.items()))
    typer.echo(f"{len(manifest.files)} files, every hash matches")
    typer.echo(f"manifest SHA-256 {opened.manifest_sha256}")
