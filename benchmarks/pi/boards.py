"""Estimates the speed of real boards from the instructions of a token.

Two cases are computed. In the fast one, the processor runs as many instructions in a cycle as such code can, and the
weights arrive while it computes. In the slow one, it runs about half as many and waits for every byte of the weights:

    fast seconds = max(instructions / (high * hertz), bytes / bandwidth)
    slow seconds = instructions / (low * hertz) + bytes / bandwidth

A real board is expected between the two. Neither knows the operating system, heat, or other programs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Core:
    """What is published about a processor.

    Attributes:
        low: Instructions per cycle in the slow case.
        high: Instructions per cycle in the fast case.
        source: Where the two come from.
    """

    low: float
    high: float
    source: str


@dataclass(frozen=True)
class Board:
    """A board.

    Attributes:
        name: Its name.
        cpu: qemu's name of its processor.
        hertz: The frequency of its cores.
        bandwidth: Bytes per second that one core reads from memory.
        source: Where the bandwidth comes from.
    """

    name: str
    cpu: str
    hertz: float
    bandwidth: float
    source: str


CORES = {
    "cortex-a53": Core(
        0.5,
        1.0,
        "insn_bench_aarch64, results/raspberry-pi-3_cortex-a53.md: at most 2 instructions, 1 vector instruction of 128 "
        "bits and half a load of 128 bits a cycle, so 1 for code that is mostly these; the low value is half of it",
    ),
    "cortex-a72": Core(
        0.88,
        2.0,
        "cpufp, Broadcom_BCM2711.md: 11.96 GFLOPS at 1.5 GHz, one vector multiplication a cycle, so 2 for code in "
        "which half are these (the decoder takes 3); low: perf stat of ls on a Raspberry Pi 4, "
        "SE-Processor-Fuzzing/control-hazard-analyzer issue 65",
    ),
    "cortex-a76": Core(
        1.4,
        3.0,
        "cpufp, Broadcom_BCM2712.md: 153.5 GOPS at 2.4 GHz, which is two dot products of 128 bits a cycle; the decoder "
        "takes 4, so 3 is taken; the low value is about half of it",
    ),
}
BOARDS = (
    Board("Raspberry Pi Zero 2 W", "cortex-a53", 1.0e9, 2.1e9, "sbc-bench results/3E85.txt: NEON read"),
    Board("Raspberry Pi 3 B+", "cortex-a53", 1.4e9, 2.1e9, "as Zero 2 W, whose memory is of the same kind"),
    Board("Raspberry Pi 4", "cortex-a72", 1.8e9, 4.4e9, "sbc-bench results/3F9C.txt: memcpy, bytes read and written"),
    Board("Raspberry Pi 5", "cortex-a76", 2.4e9, 14.8e9, "sbc-bench results/1ULtUe.txt: NEON LDP load"),
)


def estimate(board: Board, instructions: float, size: float) -> tuple[float, float]:
    """Estimates the tokens per second of one thread.

    Args:
        board: The board.
        instructions: Instructions of a token.
        size: Bytes of the weights that a token reads.

    Returns:
        The slow and the fast case.
    """
    core = CORES[board.cpu]
    waiting = size / board.bandwidth
    fast = max(instructions / (core.high * board.hertz), waiting)
    slow = instructions / (core.low * board.hertz) + waiting
    return 1 / slow, 1 / fast
