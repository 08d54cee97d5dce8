"""The matrix: a base case for every side and thread count, and around it one thing varied at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.report.record import Case, Result
from benchmarks.run.runners import TORCH_EAGER, TORCH_SIDES
from runtimes.bundle.store import TORCH_VARIANTS, VARIANT_FILES
from runtimes.engine.cache import MAX_THREADS
from slm.errors import SlmxError
from slm.presets import GPTConfig

SIDES = (*TORCH_SIDES, *VARIANT_FILES)
QUICK_SIDES = (TORCH_EAGER, "fp32", "int8", "int4")
# Sides that other prompts, depths and batches are measured on.
VARIED_SIDES = (TORCH_EAGER, *(name for name in VARIANT_FILES if name not in TORCH_VARIANTS))
PROMPT, LONG_PROMPT = 16, 200
NEW_TOKENS, FEWEST_NEW = 128, 16
BATCH = 8


def chosen_sides(names: Sequence[str] | None, quick: bool) -> tuple[str, ...]:
    """The sides that `--variants` names, in the order of a table, or the default; SlmxError for an unknown one."""
    if names is None:
        return QUICK_SIDES if quick else SIDES
    unknown = [name for name in names if name not in SIDES]
    if unknown or not names:
        raise SlmxError(f"--variants: no variant {(unknown or [''])[0]!r}; there are {', '.join(SIDES)}")
    return tuple(side for side in SIDES if side in names)


def chosen_threads(text: str | None, cores: int) -> tuple[int, ...]:
    """Thread counts such as "1,2", by default one and all cores; SlmxError for one that this process has not."""
    if text is None:
        return tuple(sorted({1, cores}))
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise SlmxError(f"--threads {text}: give whole numbers with commas between, such as --threads 1,2") from None
    most = min(cores, MAX_THREADS)
    if counts[0] < 1 or counts[-1] > most:
        wrong = counts[0] if counts[0] < 1 else counts[-1]
        raise SlmxError(f"--threads {wrong}: this process may use {cores} cores; give 1 to {most}")
    return tuple(counts)


def base_cases(
    name: str, config: GPTConfig, sides: Iterable[str], threads: Iterable[int], new_tokens: int = NEW_TOKENS
) -> list[Case]:
    """A short prompt, an empty context, one row: every side on every number of threads, the threads of a side in a row.

    A context too small for prompt and continuation shortens both.
    """
    counts = tuple(threads)
    prompt = min(PROMPT, config.block_size // 4)
    new = min(new_tokens, config.block_size - prompt)
    return [Case(name, side, count, prompt, 0, new) for side in sides for count in counts]


def variations(
    name: str, config: GPTConfig, best: Mapping[str, int], quick: bool, new_tokens: int = NEW_TOKENS
) -> list[list[Case]]:
    """Groups of cases that differ from the base in one thing: a longer prompt, a fuller context, more rows.

    `best` is the number of threads of each side that was measured; sides not varied are left out. With `quick` only
    int8's batch is. Fewer new tokens where the context ends; no group where hardly any are left.
    """
    block, short = config.block_size, min(PROMPT, config.block_size // 4)
    sides = [side for side in VARIED_SIDES if side in best]
    batch = (short, 0, BATCH)
    settings = [batch] if quick else [(LONG_PROMPT, 0, 1), (short, block // 2, 1), batch]
    groups = []
    for prompt, depth, rows in settings:
        new = min(new_tokens, block - depth - prompt)
        varied = [side for side in sides if side == "int8"] if quick else sides
        if varied and new >= min(FEWEST_NEW, new_tokens):
            groups.append([Case(name, side, best[side], prompt, depth, new, rows) for side in varied])
    return groups


def best_threads(results: Iterable[Result]) -> dict[str, int]:
    """The number of threads on which each side decoded quickest; sides without a measurement are left out."""
    rates: dict[str, tuple[float, int]] = {}
    for result in results:
        if result.decode is not None:
            side, found = result.case.side, (result.decode.median, result.case.threads)
            rates[side] = max(rates.get(side, found), found)
    return {side: threads for side, (_, threads) in rates.items()}
