"""A pool of slots: rows have the same logits as alone, and only filled positions take memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import FloatArray
from runtimes.engine.cache import SharedCache
from runtimes.engine.pool import Pool
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from tests import bundles

IDS = st.integers(0, 300)


@pytest.fixture(scope="module")
def session(tiny_checkpoint: Path) -> Session:
    return bundles.session(bundles.tiny_bundle(tiny_checkpoint))


def assert_close(ours: FloatArray, theirs: FloatArray) -> None:
    np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)


def test_a_row_has_the_bytes_that_the_shape_states(session: Session) -> None:
    assert Pool(session, 2).row_bytes == session.config.cache_bytes


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whoever_comes_and_goes_each_row_is_what_it_would_be_alone(session: Session, data: st.DataObject) -> None:
    """Rows are added (empty, or with positions of another row), read, stepped, rewound and removed in any order."""
    pool = Pool(session, 4)
    alone: list[Session] = []  # a session with the sequence of each row

    def add() -> None:
        if len(alone) == 4:
            with pytest.raises(
                SlmxError, match=r"^all 4 slots are taken: wait until a story ends, or open more slots$"
            ):
                pool.add()
            return
        source = data.draw(st.integers(0, len(alone) - 1)) if alone else 0
        length = data.draw(st.integers(0, alone[source].length)) if alone else 0
        assert pool.add(source, length) == len(alone)
        alone.append(alone[source].fork(length) if length else session.fork(0))
        read(len(alone) - 1)

    def read(row: int) -> None:
        ids = data.draw(st.lists(IDS, min_size=1, max_size=5))
        if alone[row].length + len(ids) <= session.config.block_size:
            assert_close(pool.prefill(row, ids), alone[row].prefill(ids))

    def step() -> None:
        if alone and max(one.length for one in alone) < session.config.block_size:
            tokens = [data.draw(IDS) for _ in alone]
            for row, (logits, one, token) in enumerate(zip(pool.step(tokens), alone, tokens, strict=True)):
                assert_close(logits, one.step(token))
                assert pool.ids[row] == one.ids

    def rewind() -> None:
        if alone:
            row = data.draw(st.integers(0, len(alone) - 1))
            length = data.draw(st.integers(1, alone[row].length))
            pool.rewind(row, length)
            alone[row].rewind(length)

    def remove() -> None:
        if alone:
            row = data.draw(st.integers(0, len(alone) - 1))
            pool.remove(row)
            alone[row] = alone[-1]
            alone.pop()

    actions: list[Callable[[], None]] = [add, step, rewind, remove]
    for action in [add, add, *data.draw(st.lists(st.sampled_from([*actions, step, step]), max_size=15)), step]:
        action()


def test_a_new_sequence_is_read_while_others_run(session: Session) -> None:
    """A and B start and step. C is added, A is removed, D takes the free slot. Each has the same tokens as alone."""
    prompts = {"A": [1, 2, 3], "B": [4], "C": [5, 6, 7, 8], "D": [2, 9]}

    def alone(name: str, count: int) -> list[int]:
        one = session.fork(0)
        ids = [int(one.prefill(prompts[name]).argmax())]
        while len(ids) < count:
            ids.append(int(one.step(ids[-1]).argmax()))
        return ids

    pool, rows = Pool(session, 3), list[str]()
    written: dict[str, list[int]] = {}

    def admit(name: str) -> None:
        written[name] = [int(pool.prefill(pool.add(), prompts[name]).argmax())]
        rows.append(name)

    def step(count: int) -> None:
        for _ in range(count):
            for name, logits in zip(rows, pool.step([written[name][-1] for name in rows]), strict=True):
                written[name].append(int(logits.argmax()))

    admit("A")
    admit("B")
    step(3)
    admit("C")
    step(4)
    pool.remove(0)
    rows[0] = rows.pop()
    step(2)
    admit("D")
    step(5)
    assert {name: len(ids) for name, ids in written.items()} == {"A": 8, "B": 15, "C": 12, "D": 6}
    for name, ids in written.items():
        assert ids == alone(name, len(ids)), name


def test_int8_rows_are_close_to_what_they_would_be_alone(tiny_checkpoint: Path) -> None:
    session = bundles.session(bundles.tiny_bundle(tiny_checkpoint), "int8")
    pool, prompts = Pool(session, 3), [[1, 2, 3], [200, 4], [7]]
    for prompt in prompts:
        pool.prefill(pool.add(), prompt)
    logits = pool.step([10, 20, 30])
    for row, (prompt, token) in enumerate(zip(prompts, [10, 20, 30], strict=True)):
        one = session.fork(0)
        one.prefill(prompt)
        expected = one.step(token)
        assert np.abs(logits[row] - expected).max() < 0.1 * expected.std()


def test_what_a_pool_cannot_do_is_one_line(session: Session, tiny_checkpoint: Path) -> None:
    pool = Pool(session, 2)
    with pytest.raises(SlmxError, match=r"^0 tokens for a step of 0 rows: give one for each$"):
        pool.step([])
    pool.prefill(pool.add(), [1, 2])
    for source, length in ((1, 1), (0, 3), (-1, 1)):
        with pytest.raises(SlmxError, match=f"^row {source} has no {length} positions to copy$"):
            pool.add(source, length)
    with pytest.raises(SlmxError, match=r"^2 tokens for a step of 1 rows"):
        pool.step([1, 2])
    for wrong in (-1, session.config.vocab_size):
        with pytest.raises(SlmxError, match=f"no token has the id {wrong};"):
            pool.step([wrong])
    assert pool.ids == [[1, 2]]
    pool.prefill(0, [3] * (session.config.block_size - 2))
    with pytest.raises(SlmxError, match="the context of 64 tokens is full"):
        pool.step([1])


@pytest.mark.slow
def test_a_graph_of_standard_operators_has_no_pool(tiny_checkpoint: Path) -> None:
    with pytest.raises(SlmxError, match="writes one story at a time; take fp32 or int8"):
        Pool(bundles.session(bundles.tiny_bundle_of_all(tiny_checkpoint), "portable"), 2)


def test_the_first_rows_are_views_of_one_memory(session: Session) -> None:
    pool = Pool(session, 3)
    cache = pool._cache
    for row in range(3):
        pool.prefill(pool.add(), [row + 1, 5])
    for count in (3, 2, 1):
        pool.step([1] * count)
        outputs = cache._bindings[count].get_outputs()
        assert [value.data_ptr() for value in outputs[1:]] == [value.ctypes.data for value in cache._values]
        assert outputs[0].data_ptr() == cache._logits.ctypes.data
        pool.remove(count - 1)


def test_a_run_that_fails_leaves_every_row_usable(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, one = Pool(session, 2), session.fork(0)
    for _ in range(2):
        pool.prefill(pool.add(), [1, 2, 3])
    one.prefill([1, 2, 3])

    def fails(binding: object) -> None:
        raise RuntimeError("no memory")

    bare = pool._cache._session
    monkeypatch.setattr(pool._cache, "_session", SimpleNamespace(io_binding=bare.io_binding, run_with_iobinding=fails))
    with pytest.raises(SlmxError, match=r"^onnxruntime .* cannot run this model \(no memory\)$"):
        pool.step([4, 4])
    with pytest.raises(SlmxError, match=r"\(no memory\)$"):
        pool.prefill(1, [7, 8, 9])
    monkeypatch.setattr(pool._cache, "_session", bare)
    expected = one.step(4)
    for logits in pool.step([4, 4]):
        assert_close(logits, expected)


def resident_bytes() -> int:
    """The private memory of this process that is in use."""
    fields = dict(
        line.split(":") for line in Path("/proc/self/status").read_text("utf-8").splitlines() if "RssAnon" in line
    )
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_slot_takes_memory_for_what_is_filled_only() -> None:
    """256 rows of nano have buffers of 256 MiB. A short story uses only the first page of each head."""
    opened = load()
    session = Session.open(opened.bundle.model_path(opened.variant), opened.bundle.config)
    session.prefill([1, 2])
    before = resident_bytes()
    pool = Pool(session, 256)
    assert sum(value.nbytes for value in pool._cache._values) == 256 * 2**20
    pool.prefill(pool.add(), [1, 2])
    for _ in range(255):
        pool.add(0, 2)
    pool.step([3] * 256)
    assert resident_bytes() - before < 70 * 2**20
    pool.remove(3)
    session.fork()
    assert resident_bytes() - before < 70 * 2**20


def test_a_copy_moves_filled_positions_only(session: Session) -> None:
    pool = Pool(session, 3)
    pool.prefill(pool.add(), [1, 2, 3, 4, 5])
    pool.add(0, 2)
    for value in pool._cache._values:
        filled = np.abs(value).sum(axis=(1, 3)) > 0
        assert filled.sum(axis=1).tolist() == [5, 2, 0]
    fork = session.fork(0)
    fork.prefill([1, 2, 3])
    twin = fork.fork(1)._cache
    assert isinstance(twin, SharedCache)
    assert (np.abs(twin._values[0][0]).sum(axis=(0, 2)) > 0).tolist() == [True] + [False] * 63


def test_the_best_prefix_is_the_longest(session: Session) -> None:
    pool = Pool(session, 3)
    assert pool.best_prefix([1]) == (0, 0)
    for ids in ([1, 2, 3], [1, 2, 4, 5], [9]):
        pool.prefill(pool.add(), ids)
    assert pool.best_prefix([1, 2, 4, 6]) == (1, 3)
    assert pool.best_prefix([1, 2, 3]) == (0, 3)
    assert pool.best_prefix([9, 9, 9]) == (2, 1)


def test_bundles_open_at_any_path(tiny_checkpoint: Path, tmp_path: Path) -> None:
    moved = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "a é%20#b")
    opened = Bundle.open(moved)
    assert Session.open(opened.model_path("fp32"), opened.config).prefill([1]).shape == (opened.config.vocab_size,)
    assert load(moved).generate("Once", max_tokens=2, seed=0).full_text.startswith("Once")
