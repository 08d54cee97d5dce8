"""The command that writes stories: `slmx generate`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtimes.bundle.location import BUNDLE_DEFAULT, BUNDLE_HELP, find_bundle
from runtimes.bundle.variants import ONNX_VARIANTS
from runtimes.generate.prompt_input import as_utf8, prompt_from, standard_input
from runtimes.types import (
    MAX_STORIES,
    ON_FULL,
    GenerationConfig,
    LogitsRules,
    SamplingParams,
    Settings,
    read_settings,
)
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import log_line
from slm.console.usage import one_of, panel

if TYPE_CHECKING:
    from runtimes.engine.generator import Generator


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
    """Completes the name of a variant from those of the bundle on the command line, or else from all of onnxruntime."""
    from runtimes.bundle.store import Bundle

    names = list(ONNX_VARIANTS)
    with suppress(SlmxError, OSError):
        names = Bundle.open(find_bundle(ctx.params.get("bundle"), say=False)).variants
    return [name for name in names if name.startswith(incomplete)]


_model, _sampling, _limits = panel("Model"), panel("Sampling"), panel("Limits")
_repetition, _prompts, _rare = panel("Words and repetition"), panel("Prompts from a file"), panel("Rare")


def generate(
    prompt: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="How the story begins; - reads standard input.")
    ] = None,
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
        stop=[as_utf8(text) for text in stop or ()],
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
        ban_words=[as_utf8(word) for word in ban_words or ()],
        seed=seed,
        logprobs=logprobs,
    )
    config, sampling = read_settings(**settings)
    if prompts is None and (out is not None or shard is not None or force):
        raise UsageError("--out, --shard and --force are for a file of prompts: add --prompts FILE")
    if prompts is not None:
        others = {
            "the prompt": prompt,
            "--prompt-file": prompt_file,
            "-i": interactive,
            "--save": save,
            "--json": as_json,
        }
        if unfit := [name for name, given in others.items() if given]:
            raise UsageError(f"--prompts has its own output: drop {' and '.join(unfit)}")
        if out is None:
            raise UsageError("--prompts needs a file for the stories: add --out stories.jsonl")
        from runtimes.prompts_file.reader import Shard
        from runtimes.prompts_file.runner import PromptsJob, write_stories

        part = None if shard is None else Shard.read(shard)
        job = PromptsJob(prompts, out, settings, count, part, force)
        generator = _open_generator(bundle, variant, threads, allow_special, require_signature)
        if write_stories(generator, job, log_line):
            raise typer.Exit(1)
        return
    if logprobs and not as_json:
        raise UsageError("--logprobs shows in JSON only: add --json")
    unfit = [name for name, given in {"--json": as_json, "-n": count > 1, "-": prompt == ["-"]}.items() if given]
    if interactive and unfit:
        raise UsageError(f"--interactive reads lines and writes one story as text: drop {' and '.join(unfit)}")
    beginning = prompt_from(prompt or [], prompt_file, piped=not interactive)
    from runtimes.engine.batch import Batch
    from runtimes.generate.interactive import InteractiveStory
    from runtimes.generate.output import StoryOutput, check_new_file

    if save is not None:
        check_new_file(save)
    generator = _open_generator(bundle, variant, threads, allow_special, require_signature)
    output = StoryOutput(generator, as_json, save)
    if interactive:
        lines = standard_input("-i reads the lines of the story from it, so leave it open")
        output.write_in_turns(InteractiveStory(generator, config, sampling, beginning), lines)
        return
    if count > 1:
        stories = output.write_batch(Batch(generator, [beginning] * count, config, sampling))
    else:
        stories = [output.write_stream(generator.stream(beginning, config, sampling))]
    if any(story.stats.finish_reason == "interrupted" for story in stories):
        raise typer.Exit(130)


def _open_generator(
    bundle: Path | None, variant: str | None, threads: int | None, allow_special: bool, key: Path | None
) -> Generator:
    """Opens a bundle to write with. If `key` is given, the bundle must have a signature of it."""
    from runtimes.engine.generator import Generator
    from runtimes.pack.open_signed import open_signed

    return Generator(open_signed(find_bundle(bundle), key), variant, threads, allow_special)
