"""The lines of a file or a pipe, the parts of a file, and what a line asks for."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.prompts_file.lines import MOST_STORIES, OWN_SEEDS, default_fields, first_seed, read_line
from runtimes.prompts_file.reader import LONGEST_LINE, Line, PromptsReader, Shard
from runtimes.requests.errors import RequestError
from runtimes.types import Settings
from slm.console.errors import SlmxError, UsageError

SETTINGS = Settings(logit_bias={}, stop=(), ban_words=(), logprobs=False, temperature=0.5, seed=3)
DEFAULTS = default_fields(SETTINGS, 1)


def all_lines(path: Path, shard: Shard | None = None) -> list[Line]:
    reader = PromptsReader(path, shard, path.parent)
    lines = list(iter(reader.take, None))
    reader.close()
    return lines


def asked(**fields: Any) -> Any:  # noqa: ANN401  # the parts of a request
    line = read_line(Line(7, json.dumps(fields).encode()), True, DEFAULTS)
    assert line.request is not None, line.error
    return line.request


def refused(content: bytes, is_json: bool = True) -> str:
    line = read_line(Line(7, content), is_json, DEFAULTS)
    assert line.request is None
    return line.error


def test_lines_have_their_numbers_and_no_breaks(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n two \nthree")
    assert all_lines(path) == [Line(1, b"one"), Line(2, b""), Line(3, b" two "), Line(4, b"three")]


def test_a_file_in_utf_16_is_refused_with_what_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "é p.txt"
    path.write_text("One day\nOnce", "utf-16")
    with pytest.raises(SlmxError, match=r"é p\.txt: UTF-16 text; convert it with iconv -f UTF-16 -t UTF-8 FILE > NEW$"):
        PromptsReader(path, None, tmp_path)


@given(st.lists(st.sampled_from([b"a", b"", b"x" * 10]), max_size=30), st.integers(1, 8), st.booleans())
def test_the_parts_of_a_file_are_all_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], count: int, ended: bool
) -> None:
    path = tmp_path_factory.mktemp("p") / "p.txt"
    path.write_bytes(b"\n".join(lines) + b"\n" * (ended and bool(lines)))
    parts = [all_lines(path, Shard(number, count)) for number in range(1, count + 1)]
    assert [line for part in parts for line in part] == all_lines(path)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "1.0/4"])
def test_a_wrong_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--shard takes I/N, such as 1/4"):
        Shard.read(text)


def test_a_line_that_is_too_long_does_not_stay_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"a\n" + b"x" * (3 * LONGEST_LINE) + b"\nb\n")
    first, long, last = all_lines(path)
    assert (first.content, last) == (b"a", Line(3, b"b"))
    assert LONGEST_LINE < len(long.content) <= LONGEST_LINE + 2
    assert "longer than 1,048,576 bytes" in refused(long.content, is_json=False)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_an_input_without_line_breaks_that_does_not_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtimes.prompts_file.reader.ENDLESS_LINE", 2 * LONGEST_LINE)
    with pytest.raises(SlmxError, match=r"^/dev/zero: has a line of more than 2,097,152 bytes; put each prompt"):
        PromptsReader(Path("/dev/zero"), None, tmp_path)


def test_the_lines_of_a_pipe_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    more = threading.Event()

    def feed() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(b"one\n")
            more.wait(60)
            pipe.write(b"two\n")

    feeder = threading.Thread(target=feed)
    feeder.start()
    reader = PromptsReader(path, None, tmp_path)
    assert reader.take() == Line(1, b"one")
    assert reader.take(wait=False) is None
    assert reader.stop is None
    more.set()
    assert reader.take() == Line(2, b"two")
    assert reader.take() is None
    assert reader.stop == 2
    feeder.join()


@pytest.mark.parametrize(
    ("name", "first", "is_json"),
    [
        ("p.txt", b'{"prompt": "a"}', False),
        ("p.jsonl", b"a", True),
        ("p", b'{"prompt": broken', True),
        ("p", b'"a story"', True),
        ("p", b'"Hello," she said.', False),
        ("p", b"Once", False),
        ("p", b"", False),
    ],
)
def test_the_ending_or_else_the_first_line_says_what_a_line_is(
    tmp_path: Path, name: str, first: bytes, is_json: bool
) -> None:
    (tmp_path / name).write_bytes(first + b"\nb\n")
    assert PromptsReader(tmp_path / name, None, tmp_path).is_json is is_json


def test_a_line_has_the_options_of_the_command_line_unless_it_has_others() -> None:
    assert asked(prompt="A").sampling.temperature == 0.5
    assert asked(prompt="A", temperature=None).sampling.temperature == 0.5
    assert asked(prompt="A", temperature=0.7).sampling.temperature == 0.7
    assert asked(prompt="A").sampling.seed is None
    assert asked(prompt="A", seed=9).sampling.seed == 9
    assert default_fields(Settings(**{**SETTINGS, "logprobs": True}), 1)["logprobs"] == 0
    with pytest.raises(RequestError, match=r"^n must be a whole number from 1 to 64"):
        default_fields(SETTINGS, 65)


def test_a_line_can_have_an_id() -> None:
    names: list[dict[str, object]] = [{"id": "x"}, {"id": 5}, {"id": None}, {}, {"id": [1]}, {"id": "x", "n": 0}]
    found = [read_line(Line(7, json.dumps({"prompt": "A", **name}).encode()), True, DEFAULTS) for name in names]
    assert [line.id for line in found] == ["x", 5, 7, 7, 7, "x"]
    assert [bool(line.error) for line in found] == [False, False, False, False, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON: "),
        (b"[1]", "the line must be a JSON object, or a JSON string"),
        (b'"caf\xe9"', "not UTF-8 text: byte 5; convert it to UTF-8"),
        (b'{"prompt": "A", "temprature": 1}', "unknown field 'temprature': did you mean temperature?"),
        (b'{"prompt": "A", "stream": true}', "stream: a file has no streams; leave it out"),
        (b'{"prompt": "\\ud800"}', "prompt must be valid Unicode"),
        (b'{"prompt": "A", "seed": NaN}', "not JSON: NaN is no number"),
        (b"[" * 5000, "not JSON: more than 16 levels of brackets"),
        (b'{"prompt": "A", "n": ' + b"9" * 5000 + b"}", "n must be a whole number from 1 to 64, not a number of more"),
    ],
)
def test_a_wrong_line_says_why(content: bytes, message: str) -> None:
    assert refused(content).startswith(message)


@given(
    st.lists(
        st.tuples(st.integers(1, 2**20), st.integers(1, MOST_STORIES)), max_size=20, unique_by=lambda pair: pair[0]
    )
)
def test_no_two_stories_have_the_same_seed(lines: list[tuple[int, int]]) -> None:
    n = 3
    seeds: set[int] = set()
    for number, stories in lines:
        first = first_seed(11, number, n, stories)
        mine = set(range(first, first + stories))
        assert not mine & seeds
        seeds |= mine
    assert 2**20 * n < OWN_SEEDS
