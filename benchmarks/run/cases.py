"""The cases: a base case for every runner and number of threads, and variations that change one thing at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence

from benchmarks.peers import PeerKind
from benchmarks.peers.registry import NO_PEERS, PEERS, find_peers
from benchmarks.report.headline import in_a_list
from benchmarks.report.record import TORCH_COMPILED, TORCH_EAGER, TORCH_RUNNERS, Case
from runtimes.bundle.pin import MAX_THREADS
from runtimes.bundle.variants import VARIANTS
from slm.console.counted import counted
from slm.console.errors import SlmxError, UsageError, unknown
from slm.presets import GPTConfig

RUNNERS = (*TORCH_RUNNERS, *VARIANTS)
QUICK_RUNNERS = (TORCH_EAGER, "fp32", "int8", "q8", "int4")
# Runners that are also measured with other prompts, depths and batches. Such a peer must be a `RowWriter`. CTranslate2
# is none. Its decode time is a difference of two times, in which the few steps after a long prompt are lost.
VARIED_PEERS = ("llama.cpp Q8_0", "llama.cpp Q4_0")
VARIED_RUNNERS = (TORCH_EAGER, *(name for name, variant in VARIANTS.items() if not variant.is_torch), *VARIED_PEERS)
QUICK_VARIED = ("int8",)
PROMPT, LONG_PROMPT = 16, 200
NEW_TOKENS, FEWEST_NEW = 128, 16
BATCH = 8
# A prompt that fills the context is measured from this length on. A shorter one would nearly be the long prompt.
SHORTEST_FULL = 220
# What the shape of a plain Llama has that a GPT-2 has not, and the sizes that may be any.
LLAMA_PARTS = {"activation": "silu", "gated": True, "norm": "rmsnorm", "bias": False}
LLAMA_SIZES = {"n_kv_head", "n_inner", "norm_eps", "rope_theta"}
QUICK_PEERS = ("llama.cpp Q8_0",)
LEAST_CONTEXT = 8


def chosen_runners(names: Sequence[str] | None, quick: bool) -> tuple[str, ...]:
    """Returns the runners that `--variants` names, in the order of `RUNNERS`. Without names: all, or the quick ones.

    Raises:
        UsageError: A name is unknown, or there is none.
    """
    if names is None:
        return QUICK_RUNNERS if quick else RUNNERS
    for name in names or ("",):
        if name not in RUNNERS:
            raise UsageError(unknown("variant", name, RUNNERS))
    return tuple(runner for runner in RUNNERS if runner in names)


def chosen_peers(names: Sequence[str] | None, quick: bool) -> list[PeerKind]:
    """Returns the peers that `--peers` names. A runtime's name stands for all its peers.

    Without names, return all peers, or for a quick run one peer if it is installed. UsageError for an unknown name.
    """
    if names is not None:
        kinds = [kind for name in names if name != NO_PEERS for kind in find_peers(name)]
        return list(dict.fromkeys(kinds))
    return [PEERS[name] for name in QUICK_PEERS if not PEERS[name].missing] if quick else list(PEERS.values())


def chosen_threads(text: str | None, cores: int) -> tuple[int, ...]:
    """Returns numbers of threads from a text such as "1,2". Without a text they are 1 and all cores, at most 256.

    Raises:
        UsageError: The text is not a list of numbers, or a number is more than the cores of this process.
    """
    most = min(cores, MAX_THREADS)
    if text is None:
        return tuple(sorted({1, most}))
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise UsageError(f"--threads {text}: give whole numbers, separated by commas, such as --threads 1,2") from None
    if counts[0] < 1 or counts[-1] > most:
        wrong = counts[0] if counts[0] < 1 else counts[-1]
        raise UsageError(f"--threads {wrong}: this process may use {counted(cores, 'core')}; give 1 to {most}")
    return tuple(counts)


def base_cases(
    name: str, config: GPTConfig, runners: Iterable[str], threads: Iterable[int], new_tokens: int
) -> list[Case]:
    """Returns the cases with a short prompt, an empty context and one row, for every runner and number of threads.

    The cases of a runner follow each other. If the context is too short for prompt and continuation, both are shorter.

    Raises:
        SlmxError: The context is too short to measure anything.
    """
    if config.block_size < LEAST_CONTEXT:
        raise SlmxError(
            f"{name}: a context of {counted(config.block_size, 'token')} is too short; {LEAST_CONTEXT} are needed"
        )
    counts = tuple(threads)
    prompt = min(PROMPT, config.block_size // 4)
    new = min(new_tokens, config.block_size - prompt)
    return [Case(name, runner, count, prompt, 0, new) for runner in runners for count in counts]


def variations(
    name: str, config: GPTConfig, runners: Iterable[str], threads: Sequence[int], quick: bool, new_tokens: int
) -> list[list[Case]]:
    """Returns groups of cases that differ from the base cases in one thing: the prompt, the depth or the batch.

    Each is measured with every number of threads, because the best number is not that of the base case: a long prompt
    and many rows give the threads more work. A quick run has the most threads only.

    Args:
        name: The name of the model.
        config: Its shape. If the context is too short, fewer tokens are decoded. A group with too few is left out.
        runners: The runners that can be measured.
        threads: The numbers of threads.
        quick: Whether to vary only the batch of int8.
        new_tokens: The number of tokens to decode.
    """
    block, short = config.block_size, min(PROMPT, config.block_size // 4)
    measured = set(runners)
    varied = [runner for runner in (QUICK_VARIED if quick else VARIED_RUNNERS) if runner in measured]
    counts = [max(threads)] if quick else threads
    full, batch = block - FEWEST_NEW, (short, 0, BATCH)
    prompts = [LONG_PROMPT, *([full] if full >= SHORTEST_FULL else [])]
    settings = [batch] if quick else [*((prompt, 0, 1) for prompt in prompts), (short, block * 3 // 4, 1), batch]
    groups = []
    for prompt, depth, rows in settings:
        new = min(new_tokens, block - depth - prompt)
        if varied and new >= min(FEWEST_NEW, new_tokens):
            groups.append(
                [Case(name, runner, count, prompt, depth, new, rows) for runner in varied for count in counts]
            )
    return groups


def skipped(case: Case, peer: PeerKind | None, config: GPTConfig) -> str | None:
    """Returns why a case cannot be measured; None if it can."""
    if peer is not None and peer.missing:
        return f"{' and '.join(peer.missing)} not installed: {peer.install}"
    if peer is not None and not peer.any_shape and not _is_common(config):
        return f"is measured on plain GPT-2 and Llama shapes only, and this is a {config.family} with other parts"
    if case.runner == TORCH_COMPILED and shutil.which(os.environ.get("CXX", "c++")) is None:
        return "torch.compile needs a C++ compiler; install one, such as g++"
    several = [name for name, variant in VARIANTS.items() if variant.shared_cache]
    if case.batch > 1 and peer is None and case.runner not in several:
        return f"runs one sequence at a time; {in_a_list(several)} run several"
    return None


def _is_common(config: GPTConfig) -> bool:
    """Returns whether a shape is a plain GPT-2 or Llama."""
    options = config.options()
    parts = {name: value for name, value in options.items() if name not in LLAMA_SIZES}
    return not options or ("rope_theta" in options and parts == LLAMA_PARTS)
