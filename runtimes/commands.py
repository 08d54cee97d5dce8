"""The command that writes stories: `slmx generate`."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtimes.bundle.location import BUNDLE_DEFAULT, BUNDLE_HELP, find_bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.types import (
    MAX_STORIES,
    ON_FULL,
    Completion,
    GenerationConfig,
    LogitsRules,
    SamplingParams,
    Settings,
    read_settings,
)
from slm.counted import count_stories, counted
from slm.disk import write_errors, write_file
from slm.errors import SlmxError, UsageError
from slm.terminal import LiveRate, is_terminal, styled
from slm.usage import one_of, panel

if TYPE_CHECKING:
    from runtimes.engine.generator import Generator
    from runtimes.engine.interactive import InteractiveStory
    from runtimes.engine.stream import Stream

BETWEEN = "\n\n---\n\n"


def _read_prompt(prompt: str, file: Path | None) -> str:
    """Returns the prompt: text, `-` for standard input, or a file. A line break at its end is removed."""
    if file is not None:
        if prompt:
            raise UsageError("a prompt and --prompt-file exclude each other: drop one")
        content = file.read_bytes()
    elif prompt == "-":
        content = bytes(_standard_input().buffer.read())
    else:
        return _as_utf8(prompt)
    try:
        return content.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SlmxError(f"{file or 'standard input'}: not UTF-8 text; convert it to UTF-8") from None


def _as_utf8(argument: str) -> str:
    """Reads an argument as UTF-8, whatever the locale made of its bytes. Other bytes become lone surrogates."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


def _standard_input() -> io.TextIOWrapper:
    """Returns standard input. Its bytes that are not UTF-8 become lone surrogates. SlmxError if it is closed."""
    if not isinstance(sys.stdin, io.TextIOWrapper):
        raise SlmxError("standard input is closed: give the prompt as an argument or with --prompt-file")
    sys.stdin.reconfigure(errors="surrogateescape")
    return sys.stdin


def _parse_bias(pairs: list[str]) -> dict[int, float]:
    biases = {}
    for pair in pairs:
        token, _, value = pair.partition("=")
        try:
            biases[int(token)] = float(value)
        except ValueError:
            raise UsageError(
                f"--logit-bias takes ID=VALUE, such as 42=-5, not {pair!r}; --json prints the ids of a story"
            ) from None
    return biases


def _complete_variant(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completes the name of a variant from those of the bundle on the command line, or else from all."""
    from runtimes.bundle.manifest import MANIFEST_FILE, Manifest

    names = list(VARIANTS)
    with suppress(SlmxError, OSError):
        manifest = find_bundle(ctx.params.get("bundle"), say=False) / MANIFEST_FILE
        names = list(Manifest.read(manifest.read_bytes(), str(manifest)).variants)
    return [name for name in names if name.startswith(incomplete)]


_model, _sampling, _limits = panel("Model"), panel("Sampling"), panel("Limits")
_repetition, _prompts, _rare = panel("Words and repetition"), panel("Prompts from a file"), panel("Rare")


def generate(
    prompt: Annotated[list[str] | None, typer.Argument(help="How the story begins; - reads standard input.")] = None,
    count: Annotated[
        int, typer.Option("-n", "--count", min=1, max=MAX_STORIES, help="Stories to write, many at a time.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same story.", show_default="random")
    ] = SamplingParams.seed,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Write the story in turns: you and the model.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Write the text to a new file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a story instead of text.")] = False,
    bundle: Annotated[Path | None, _model(help=BUNDLE_HELP, show_default=BUNDLE_DEFAULT)] = None,
    variant: Annotated[
        str | None,
        _model(
            metavar="NAME",
            autocompletion=_complete_variant,
            help="Variant, such as int8; slmx info lists those of a bundle.",
            show_default="the one for the bundle's target",
        ),
    ] = None,
    threads: Annotated[int | None, _model(help="Number of threads.", show_default="by model size")] = None,
    temperature: Annotated[float, _sampling(help="0 takes the most likely token.")] = SamplingParams.temperature,
    top_k: Annotated[int, _sampling(help="Keep the k most likely tokens; 0 is off.")] = SamplingParams.top_k,
    top_p: Annotated[
        float, _sampling(help="Keep the most likely tokens up to this total probability; 1 is off.")
    ] = SamplingParams.top_p,
    min_p: Annotated[
        float, _sampling(help="Keep tokens with this share of the highest probability; 0 is off.")
    ] = SamplingParams.min_p,
    max_tokens: Annotated[
        int | None, _limits(help="Most tokens to write.", show_default="until the story or the context ends")
    ] = GenerationConfig.max_tokens,
    min_tokens: Annotated[int, _limits(help="Fewest tokens before the story may end.")] = LogitsRules.min_tokens,
    stop: Annotated[list[str] | None, _limits(help="Stop before this text; repeat for more.")] = None,
    on_full: Annotated[
        str,
        _limits(
            **one_of("choice", ON_FULL, "When the context is full: stop, or slide and continue."),
        ),
    ] = GenerationConfig.on_full,
    ban_words: Annotated[
        list[str] | None, _repetition("--ban-word", help="Never write this word, in any case; repeat for more.")
    ] = None,
    no_repeat_ngram: Annotated[
        int, _repetition(help="Never write the same n tokens twice; 0 is off.")
    ] = LogitsRules.no_repeat_ngram,
    repetition_penalty: Annotated[
        float, _repetition(help="Above 1 makes earlier tokens less likely; 1 is off.")
    ] = LogitsRules.repetition_penalty,
    presence_penalty: Annotated[
        float, _repetition(help="Subtracted from the logits of written tokens.")
    ] = LogitsRules.presence_penalty,
    frequency_penalty: Annotated[
        float, _repetition(help="Subtracted from a token's logit for each time it was written.")
    ] = LogitsRules.frequency_penalty,
    prompts: Annotated[
        Path | None,
        _prompts(metavar="FILE", help="Write the stories of a file: .txt or .jsonl, one prompt a line; - is stdin."),
    ] = None,
    out: Annotated[
        Path | None, _prompts(help="With --prompts: the .jsonl of the stories. The same command goes on with it.")
    ] = None,
    shard: Annotated[
        str | None, _prompts(metavar="I/N", help="With --prompts: only part I, from 1, of N parts of the file.")
    ] = None,
    force: Annotated[bool, _prompts("--force", help="With --prompts: replace the stories of another run.")] = False,
    prompt_file: Annotated[Path | None, _rare(help="Read the prompt from a file.")] = None,
    logprobs: Annotated[
        bool, _rare("--logprobs", help="With --json: each token's log-probability.")
    ] = GenerationConfig.logprobs,
    logit_bias: Annotated[list[str] | None, _rare(help="ID=VALUE is added to a token's logit; repeat.")] = None,
    allow_special: Annotated[
        bool, _rare("--allow-special", help="Read special tokens in the prompt, such as <|endoftext|>, as tokens.")
    ] = False,
    require_signature: Annotated[
        Path | None,
        _rare(metavar="KEY", help="Refuse a bundle that is not signed with this public key; see slmx sign."),
    ] = None,
) -> None:
    """Write a story, or the stories of a file of prompts.

    The text goes to stdout while it is written.
    """
    settings = Settings(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        stop=stop or (),
        on_full=on_full,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        presence_penalty=presence_penalty,
        frequency_penalty=frequency_penalty,
        no_repeat_ngram=no_repeat_ngram,
        logit_bias=_parse_bias(logit_bias or []),
        ban_words=[_as_utf8(word) for word in ban_words or ()],
        seed=seed,
        logprobs=logprobs,
    )
    config, sampling = read_settings(**settings)
    if prompts is None and (out is not None or shard is not None or force):
        raise UsageError("--out, --shard and --force are for a file of prompts: add --prompts FILE")
    if prompts is not None:
        if prompt or prompt_file or interactive or save or as_json:
            raise UsageError("--prompts has its own output: drop the prompt, --prompt-file, -i, --save and --json")
        if out is None:
            raise UsageError("--prompts needs a file for the stories: add --out stories.jsonl")
        from runtimes.prompts_file.reader import Shard
        from runtimes.prompts_file.runner import PromptsJob, write_stories

        part = None if shard is None else Shard.read(shard)
        job = PromptsJob(prompts, out, settings, count, part, force)
        generator = _open_generator(bundle, variant, threads, allow_special, require_signature)
        if write_stories(generator, job, lambda line: typer.echo(line, err=True)):
            raise typer.Exit(1)
        return
    if logprobs and not as_json:
        raise UsageError("--logprobs shows in JSON only: add --json")
    if interactive and (as_json or count > 1 or prompt == ["-"]):
        raise UsageError("--interactive reads lines and writes one story as text: drop --json, -n and -")
    beginning = _read_prompt(" ".join(prompt or ()), prompt_file)
    if save is not None:
        _check_new_file(save)
    if sys.stdout is None:
        raise SlmxError("standard output is closed: send it to a file, or to /dev/null")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    from runtimes.engine.batch import Batch
    from runtimes.engine.interactive import InteractiveStory

    generator = _open_generator(bundle, variant, threads, allow_special, require_signature)
    if interactive:
        _write_in_turns(InteractiveStory(generator, config, sampling), beginning, save)
        return
    if count > 1:
        batch = Batch(generator, [beginning] * count, config, sampling)
        try:
            for number, story in enumerate(batch.run()):
                text = _as_json(generator, story) if as_json else BETWEEN * (number > 0) + story.full_text
                typer.echo(text, nl=as_json)
        finally:
            stories = batch.completions
            _save(save, stories)
        if not as_json:
            typer.echo()
    else:
        stream = generator.stream(beginning, config, sampling)
        try:
            _show(stream, silent=as_json)
        finally:
            stories = [stream.completion]
            _save(save, stories)
        typer.echo(_as_json(generator, stories[0]) if as_json else "")
    _report(generator, stories)
    if any(story.stats.finish_reason == "interrupted" for story in stories):
        raise typer.Exit(130)


def _open_generator(
    bundle: Path | None, variant: str | None, threads: int | None, allow_special: bool, key: Path | None
) -> Generator:
    """Opens a bundle to write with. If `key` is given, the bundle must have a signature of it."""
    from runtimes.engine.generator import Generator
    from runtimes.pack.open_signed import open_signed

    return Generator(open_signed(find_bundle(bundle), key), variant, threads, allow_special)


def _check_new_file(path: Path) -> None:
    """Raise OSError unless a file can be written here, and SlmxError if there is one. Leaves no new file."""
    path = path.resolve()
    if path.is_file():
        raise SlmxError(f"{path}: exists already; choose another --save, or delete the file")
    if path.exists() and not path.is_dir():
        return  # a device or a pipe, which opening would change
    path.open("ab").close()
    path.unlink()


def _save(path: Path | None, stories: Iterable[Completion]) -> None:
    """Writes the stories that have begun to a file."""
    texts = [story.full_text for story in stories if story.ids or story.stats.finish_reason != "interrupted"]
    if path is not None and texts:
        _write_text(path, BETWEEN.join(texts))


def _write_text(path: Path, text: str) -> None:
    content = f"{text}\n".encode()
    if path.exists() and not path.is_file():
        with write_errors(path):
            path.write_bytes(content)  # a device or a pipe
    else:
        write_file(path, content)


def _write_in_turns(story: InteractiveStory, prompt: str, save: Path | None) -> None:
    from runtimes.engine.interactive import write_turns

    try:
        write_turns(story, prompt, _standard_input(), _write, lambda line: typer.echo(line, err=True))
    finally:
        if save is not None and story.turns:
            _write_text(save, story.text)
    typer.echo()


def _show(stream: Stream, silent: bool) -> None:
    """Prints a story while it is written, until it ends or Ctrl-C."""
    terminal = is_terminal() and not silent
    prompt = stream.completion.prompt
    write = (lambda piece: None) if silent else _write
    written = styled(prompt, bold=True) if terminal and prompt else prompt
    write(written)
    with LiveRate(terminal) as live:
        try:
            for piece in stream:
                written += piece
                write(piece)
                live.add(len(stream.ids))
        except KeyboardInterrupt:
            write(stream.close())
        except SlmxError:
            write("\n" if written else "")
            raise


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _as_json(generator: Generator, story: Completion) -> str:
    record: dict[str, object] = {
        "prompt": story.prompt,
        "text": story.full_text,
        "ids": story.ids,
        "variant": generator.variant,
    }
    if story.logprobs:
        record["logprobs"] = [round(value, 5) for value in story.logprobs]
    record["bundle"] = str(generator.bundle.path)
    record |= asdict(story.stats) | {"tokens_per_second": round(story.stats.tokens_per_second, 1)}
    return json.dumps(record, ensure_ascii=False)


def _report(generator: Generator, stories: list[Completion]) -> None:
    first = stories[0].stats
    where = f"{generator.variant}, seed {first.seed}, {counted(generator.threads, 'thread')}"
    if len(stories) == 1:
        figures = (
            f"{counted(first.tokens, 'token')}, {first.tokens_per_second:,.0f} tokens/s, "
            f"{1000 * first.time_to_first_token:.1f} ms to the first, stopped by {first.stop}"
        )
    else:
        tokens = sum(story.stats.tokens for story in stories)
        seconds = max(story.stats.time_to_first_token + story.stats.decode_seconds for story in stories)
        figures = (
            f"{count_stories(len(stories))}, {counted(tokens, 'token')}, {tokens / seconds:,.0f} tokens/s together"
        )
    line = f"{figures} ({where})"
    typer.echo(styled(line, dim=True) if is_terminal() else line, err=True)
