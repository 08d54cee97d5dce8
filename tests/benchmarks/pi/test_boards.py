"""The estimates for real boards follow their formula."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pi.boards import BOARDS, CORES, Board, estimate
from benchmarks.pi.machine import CPUS

BOARD = Board("a board", "cortex-a72", 1e9, 1e9, "")


def test_every_board_has_a_processor_that_is_emulated_and_a_source() -> None:
    assert {board.cpu for board in BOARDS} == set(CPUS) == set(CORES)
    assert all(board.source for board in BOARDS)
    assert all(core.source and core.low < core.high for core in CORES.values())


def test_a_case_by_hand() -> None:
    core = CORES["cortex-a72"]
    # A megabyte takes a millisecond, and a million instructions take 1 / IPC milliseconds.
    slow, fast = estimate(BOARD, 1e6, 1e6)
    assert slow == pytest.approx(1000 / (1 / core.low + 1))
    assert fast == pytest.approx(1000)  # the memory is slower than the processor
    assert estimate(BOARD, 1e7, 1e6)[1] == pytest.approx(1000 / (10 / core.high))


@given(
    st.sampled_from(BOARDS),
    st.floats(1e4, 1e10),
    st.floats(1e3, 1e9),
    st.floats(1, 10),
)
def test_the_range_is_in_order_and_more_work_is_slower(
    board: Board, instructions: float, size: float, more: float
) -> None:
    slow, fast = estimate(board, instructions, size)
    assert 0 < slow < fast
    for heavier in (estimate(board, instructions * more, size), estimate(board, instructions, size * more)):
        assert heavier[0] <= slow
        assert heavier[1] <= fast
