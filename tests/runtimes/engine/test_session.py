"""The session over a real graph: its cache is appended to in place, rewound and never shared."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.formats.fused import export_onnx
from export.formats.portable import export_portable
from runtimes.bundle.store import Bundle
from runtimes.engine.arrays import FloatArray
from runtimes.engine.cache import SharedCache
from runtimes.engine.session import ONE_THREAD_BYTES, Session, default_threads, float_threads
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.folder_kind import PRETRAINED
from slm.presets import PRESETS
from tests import bundles
from tests.shapes import ARCHITECTURES

TOLERANCE = 5e-5


@pytest.fixture(scope="module", params=["tiny", pytest.param("shipped nano", marks=pytest.mark.slow)])
def checkpoint(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Path:
    return tiny_checkpoint if request.param == "tiny" else PRETRAINED / "nano"


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    shipped = checkpoint == PRETRAINED / "nano"
    return Bundle.open(bundles.shipped_bundle() if shipped else bundles.tiny_bundle(checkpoint))


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> Session:
    return Session.open(bundle.model_path("fp32"), bundle.config)


@pytest.fixture(scope="module")
def ids(session: Session) -> list[int]:
    config = session.config
    drawn: list[int] = np.random.default_rng(0).integers(0, config.vocab_size, config.block_size).tolist()
    return drawn


@pytest.fixture(scope="module")
def expected(checkpoint: Path, ids: list[int]) -> FloatArray:
    """Logits of the whole context, by PyTorch."""
    with torch.inference_mode():
        logits: FloatArray = load_checkpoint(checkpoint).model(torch.tensor([ids]))[0].numpy()
    return logits


def assert_close(ours: FloatArray, theirs: FloatArray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


def test_prefill_equals_step_by_step_and_pytorch(session: Session, ids: list[int], expected: FloatArray) -> None:
    session.rewind(0)
    whole = session.score(ids)
    assert whole.shape == (len(ids), session.config.vocab_size)
    assert whole.dtype == np.float32
    session.rewind(0)
    assert_close(np.stack([session.step(i).copy() for i in ids]), whole)
    assert_close(whole, expected)


@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(1, 63), max_size=8), steps=st.sets(st.integers(0, 8)))
def test_chunks_behind_a_filled_cache(
    session: Session, ids: list[int], expected: FloatArray, cuts: set[int], steps: set[int]
) -> None:
    session.rewind(0)
    borders = [0, *sorted(cuts), len(ids)]
    for number, (start, end) in enumerate(itertools.pairwise(borders)):
        assert session.length == start
        if number in steps:
            logits = np.stack([session.step(i).copy() for i in ids[start:end]])
        else:
            logits = session.score(ids[start:end])
        assert_close(logits, expected[start:end])


def test_a_prefill_gives_the_last_of_the_logits_and_computes_no_others(session: Session, ids: list[int]) -> None:
    for length in (1, 2, 40):
        session.reset()
        every = session.score(ids[:length])
        session.reset()
        assert_close(session.prefill(ids[:length]), every[-1])
        assert_close(session.prefill(ids[length : length + 3]), session_after(session, ids[: length + 3]))
    cache = session._cache
    assert isinstance(cache, SharedCache)
    row = np.array(ids[:5], np.int64)
    computed = cache.append(row, 0, last_only=True).base
    assert computed is not None
    assert computed.shape == (1, 1, session.config.vocab_size)


def test_a_graph_that_cannot_leave_logits_out_gives_the_last_too(bundle: Bundle, ids: list[int]) -> None:
    older, newer = (Session.open(bundle.model_path("fp32"), bundle.config) for _ in range(2))
    assert isinstance(older._cache, SharedCache)
    older._cache._keeps = False
    assert_close(older.prefill(ids[:7]), newer.prefill(ids[:7]))


def session_after(session: Session, ids: list[int]) -> FloatArray:
    """The logits after ids, each appended by a step."""
    fork = session.fork()
    fork.reset()
    for i in ids:
        logits = fork.step(i)
    return logits.copy()


@settings(max_examples=25, deadline=None)
@given(first=st.integers(1, 60), kept=st.integers(0, 60), seed=st.integers(0, 2**32 - 1))
def test_what_was_rewound_is_not_read_again(session: Session, ids: list[int], first: int, kept: int, seed: int) -> None:
    kept = min(kept, first)
    other = np.random.default_rng(seed).integers(0, session.config.vocab_size, 4).tolist()
    session.rewind(0)
    whole = session.score([*ids[:kept], *other])
    session.rewind(0)
    session.prefill(ids[:first])
    session.rewind(kept)
    assert session.length == kept
    assert_close(session.score(other[:2]), whole[kept : kept + 2])
    assert_close(session.step(other[2]), whole[kept + 2])
    assert_close(session.step(other[3]), whole[kept + 3])


def test_the_context_window_is_a_limit_and_hitting_it_harms_nothing(
    session: Session, ids: list[int], expected: FloatArray
) -> None:
    size = session.config.block_size
    session.rewind(0)
    with pytest.raises(SlmxError, match=rf"^{size + 1} tokens do not fit the context of {size}; shorten"):
        session.prefill([*ids, 0])
    session.prefill(ids[:-1])
    with pytest.raises(SlmxError, match=rf"^{size + 1} tokens do not fit"):
        session.prefill([0, 0])
    with pytest.raises(SlmxError, match=r"^no tokens to read: give at least one$"):
        session.prefill([])
    assert session.length == size - 1
    assert_close(session.step(ids[-1]), expected[-1])
    with pytest.raises(SlmxError, match=f"^the context of {size} tokens is full"):
        session.step(0)
    assert session.length == size
    for length in (-1, size + 1):
        with pytest.raises(SlmxError, match=f"cannot rewind to {length}: {size} positions are cached"):
            session.rewind(length)
    session.rewind(size - 1)
    assert_close(session.step(ids[-1]), expected[-1])


def test_two_sessions_do_not_disturb_each_other(bundle: Bundle, ids: list[int], expected: FloatArray) -> None:
    one, two = (Session.open(bundle.model_path("fp32"), bundle.config) for _ in range(2))
    backwards = ids[::-1]
    alone = np.stack([two.step(i).copy() for i in backwards])
    two.rewind(0)
    for position in range(0, len(ids), 2):
        pair = slice(position, position + 2)
        first = one.score(ids[pair])
        second = [two.step(i).copy() for i in backwards[pair]]
        assert_close(first, expected[pair])
        assert_close(np.stack(second), alone[pair])


def test_the_cache_stays_where_it_is_and_fills_in_place(bundle: Bundle, ids: list[int]) -> None:
    fresh = Session.open(bundle.model_path("fp32"), bundle.config)
    cache = fresh._cache
    assert isinstance(cache, SharedCache)
    addresses = [value.ctypes.data for value in cache._values]
    assert len(set(addresses)) == 2 * bundle.config.n_layer
    fresh.prefill(ids[:5])
    for i in ids[5:9]:
        fresh.step(i)
    assert [value.ctypes.data for value in cache._values] == addresses
    outputs: list[ort.OrtValue] = cache._binding.get_outputs()
    assert [value.data_ptr() for value in outputs[1:]] == addresses
    for value in cache._values:
        filled = np.abs(value).sum(axis=(0, 1, 3)) > 0
        assert filled.tolist() == [True] * 9 + [False] * (bundle.config.block_size - 9)


def test_logits_of_a_prefill_outlive_later_runs(session: Session, ids: list[int], expected: FloatArray) -> None:
    session.rewind(0)
    first = session.score(ids[:6])
    session.prefill(ids[6:12])
    session.step(ids[12])
    assert_close(first, expected[:6])


@pytest.mark.parametrize("wrong", [-1, -(10**30), 10**9, 10**30, "vocab_size"])
@pytest.mark.parametrize("verb", ["prefill", "score", "read", "step"])
def test_an_id_outside_the_vocabulary_leaves_the_session_usable(
    session: Session, ids: list[int], expected: FloatArray, verb: str, wrong: int | str
) -> None:
    size = session.config.vocab_size
    token = size if isinstance(wrong, str) else wrong
    session.rewind(0)
    session.prefill(ids[:4])
    message = f"^no token has the id {token}; ids go from 0 to {size - 1}$"
    with pytest.raises(SlmxError, match=message):
        session.step(token) if verb == "step" else getattr(session, verb)([*ids[:4], token, 2])
    assert session.ids == ids[:4]
    assert_close(session.step(ids[4]), expected[4])


def test_an_array_of_ids_is_checked_too(session: Session) -> None:
    session.reset()
    for wrong in (-1, session.config.vocab_size):
        with pytest.raises(SlmxError, match=f"no token has the id {wrong};"):
            session.prefill(np.array([1, wrong, 2]))


def test_a_model_may_be_given_as_bytes(bundle: Bundle, ids: list[int], expected: FloatArray) -> None:
    session = Session.open(bundle.model_bytes("fp32"), bundle.config)
    assert_close(session.score(ids[:9]), expected[:9])
    with pytest.raises(SlmxError, match=r"^fp32 of é%#: not a model that slmx opens"):
        Session.open(b"not a model", bundle.config, name="fp32 of é%#")


def test_an_absurd_number_of_threads_is_refused(bundle: Bundle) -> None:
    for threads in (0, -3, 257, 10**9):
        with pytest.raises(SlmxError, match=f"^threads must be 1 to 256, not {threads}$"):
            Session.open(bundle.model_path(bundle.choose()), bundle.config, threads)


def test_default_threads_are_one_for_small_models_and_never_above_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtimes.engine.session.usable_cores", lambda: 8)
    assert default_threads(ONE_THREAD_BYTES - 1) == 1
    assert default_threads(ONE_THREAD_BYTES) == 4
    assert [float_threads(PRESETS[name].config) for name in ("nano", "micro", "small", "medium")] == [1, 4, 4, 4]
    monkeypatch.setattr("runtimes.engine.session.usable_cores", lambda: 2)
    assert default_threads(10 * ONE_THREAD_BYTES) == 2


def idle_cpu_seconds(path: Path, threads: int) -> float:
    """Processor time that a fresh process uses in half a second after a step."""
    code = (
        "import sys, time; from pathlib import Path; from runtimes.engine.session import Session; "
        "from slm.presets import get_preset; "
        "session = Session.open(Path(sys.argv[1]), get_preset('nano').config, int(sys.argv[2])); "
        "session.prefill([0, 1]); "
        "before = time.process_time(); [(session.step(1), time.sleep(0.05)) for _ in range(10)]; "
        "print(time.process_time() - before)"
    )
    command = [sys.executable, "-c", code, str(path), str(threads)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(ran.stdout)


@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 26), reason="onnxruntime can limit it from 1.26 on"
)
@pytest.mark.slow
def test_threads_that_wait_use_no_processor_time() -> None:
    _, graph = bundles.nano_graph()
    assert idle_cpu_seconds(graph, threads=2) < 0.15, "default spinning takes about 0.4 seconds"


def test_a_file_that_is_no_model_is_named(bundle: Bundle, tmp_path: Path) -> None:
    whole = bundle.model_path(bundle.choose()).read_bytes()
    for content, said in (
        (b"", "onnxruntime .* cannot open this model"),
        (b"not a model", "not a model that slmx opens"),
        (whole[:1000], "not a model that slmx opens .a field that is longer than its message"),
        (whole[:100], "not a model that slmx opens"),
        (whole + b"\x08", "not a model that slmx opens .it is cut off"),
    ):
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        with pytest.raises(SlmxError, match=rf"model\.onnx: {said}") as caught:
            Session.open(path, bundle.config)
        assert "\n" not in str(caught.value)


def test_names_that_are_no_text_are_one_line(bundle: Bundle, tmp_path: Path) -> None:
    whole = bytes(bundle.model_bytes("fp32"))
    for name in (b"input_ids", b"slmx.shape"):
        with pytest.raises(
            SlmxError, match=r"^fp32: a name in it is no UTF-8 text; copy it again, or export it again$"
        ):
            Session.open(whole.replace(name, b"\xff" * len(name)), bundle.config, name="fp32")


@pytest.mark.slow
def test_windows_need_an_onnxruntime_that_computes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bundles.random_model(ARCHITECTURES["neo"])
    fused, portable = tmp_path / "fused é.onnx", tmp_path / "portable.onnx"
    export_onnx(model, fused)
    export_portable(model, portable)
    monkeypatch.setattr(ort, "__version__", "1.23.2")
    Session.open(portable, model.config)
    with pytest.raises(SlmxError) as refused:
        Session.open(fused, model.config)
    assert str(refused.value) == (
        f"{fused}: onnxruntime 1.23.2 computes attention windows wrongly; install onnxruntime 1.24 or later, "
        "or use --variant portable if the bundle holds it"
    )
    monkeypatch.setattr(ort, "__version__", "1.24.0")
    Session.open(fused, model.config)
