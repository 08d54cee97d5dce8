"""Measures what int8 loses after a prompt that it reads in one pass: python -m benchmarks.studies.after_prompt.

    python -m benchmarks.studies.after_prompt --text FILE --checkpoint slm/pretrained/micro

Dynamic int8 has one scale for the activations of a pass, so it rounds a prompt that is read in one pass otherwise than
the same prompt token by token. Only the tokens after the prompt are counted. They are read one by one, as in writing.
"Rise" is the relative rise in bits per byte over fp32, with a 95 % interval that is clustered by story.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.evaluation.intervals import ratio
from benchmarks.program import run
from benchmarks.studies.figures import rise
from benchmarks.studies.results import Out, write_results
from export.formats.fused import export_onnx
from export.formats.quantize import quantize_int8
from export.formats.recipes import get_recipe
from runtimes.engine.loss import log_softmax, negative_log_likelihood
from runtimes.engine.session import Session
from slm.checkpoint import load_checkpoint
from slm.console.errors import UsageError
from slm.data.corpus import encode_stories
from slm.data.sources import read_stories
from slm.folder_kind import PRETRAINED

FLOAT, IN_ONE_PASS, TOKEN_BY_TOKEN = "fp32", "prompt in one pass", "prompt token by token"
RECIPE = "u8-tensor"
PROMPTS = (16, 64, 128)
FEWEST, MOST = 40, 120  # tokens of a story after the prompt that are counted

Ids = npt.NDArray[np.int64]


def nats_after(session: Session, story: Ids, prompt: int, in_one_pass: bool) -> float:
    """Returns the negative log-likelihood in nats of the tokens of a story after its prompt.

    Args:
        session: The model. Its cache is overwritten.
        story: Ids int64 [n], n at most the context, with the begin token first.
        prompt: The number of ids in the prompt.
        in_one_pass: Whether the prompt is read in one pass, or token by token.
    """
    session.reset()
    read = [session.prefill(story[:prompt])] if in_one_pass else [session.step(int(i)) for i in story[:prompt]]
    logits = [read[-1].copy(), *(session.step(int(i)).copy() for i in story[prompt:-1])]
    return negative_log_likelihood(log_softmax(np.stack(logits)), story[prompt:])


def measure(sessions: dict[str, Session], stories: Sequence[Ids], prompt: int) -> dict[str, Any]:
    """Reads stories with fp32 and int8; returns the rise of each way of reading the prompt, for JSON."""
    block = sessions[FLOAT].config.block_size
    chosen = [story[: min(block, prompt + MOST)] for story in stories if len(story) >= prompt + FEWEST]
    if not chosen or prompt + FEWEST > block:
        raise UsageError(
            f"--prompt {prompt}: no story of the text has {FEWEST} tokens after it in a context of {block}"
        )
    sizes = np.array([len(story) - prompt for story in chosen], np.float64)
    base = np.array([nats_after(sessions[FLOAT], story, prompt, True) for story in chosen])
    found: dict[str, Any] = {"stories": len(chosen), "tokens": int(sizes.sum())}
    for way in (IN_ONE_PASS, TOKEN_BY_TOKEN):
        nats = np.array([nats_after(sessions["int8"], story, prompt, way == IN_ONE_PASS) for story in chosen])
        found[way] = ratio(nats - base, sizes).scaled(float(sizes.sum() / base.sum())).to_json()
    return found


def table(results: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    lines = [f"| tokens of the prompt | tokens after it | {IN_ONE_PASS} | {TOKEN_BY_TOKEN} |", "|---:|---:|---:|---:|"]
    for prompt, row in results.items():
        cells = [rise(row[way]) for way in (IN_ONE_PASS, TOKEN_BY_TOKEN)]
        lines.append(f"| {prompt} | {row['tokens']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    text: Annotated[Path, typer.Option(help="Stories that the model was not trained on.")],
    checkpoint: Annotated[Path, typer.Option(help="The checkpoint.")] = PRETRAINED / "nano",
    prompt: Annotated[
        list[int] | None, typer.Option(min=1, help="The tokens of a prompt; repeat for more. Default: 16, 64 and 128.")
    ] = None,
    stories: Annotated[int, typer.Option(min=2, help="The most stories to read.")] = 500,
    out: Out = None,
) -> None:
    """Measure int8 after prompts and print a table."""
    loaded = load_checkpoint(checkpoint)
    ids = [
        np.asarray(encode_stories([story], loaded.tokenizer).ids, np.int64)
        for story in islice(read_stories([text]), stories)
    ]
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        export_onnx(loaded.model, fp32)
        quantize_int8(fp32, int8, get_recipe(RECIPE))
        sessions = {FLOAT: Session.open(fp32, loaded.model.config), "int8": Session.open(int8, loaded.model.config)}
        results = {}
        for length in prompt or PROMPTS:
            results[str(length)] = measure(sessions, ids, length)
            typer.echo(f"{length}: {results[str(length)]}", err=True)
    typer.echo(table(results))
    settings = {"checkpoint": loaded.preset, "text": text.name, "stories": stories}
    write_results(out, settings, results)


if __name__ == "__main__":
    run(main)
