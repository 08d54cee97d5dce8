"""What raters saved is read back: who won, how sure that is, how far they agree; any other file is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.evaluation.intervals import share
from benchmarks.evaluation.rating.answers import measure, read_raters
from benchmarks.evaluation.rating.page import FORMAT, to_html
from benchmarks.evaluation.rating.questions import DIGEST, KEY, Key, _digest, key_of
from benchmarks.evaluation.rating.read_back import read_back
from benchmarks.evaluation.rating.table import ratings_table
from benchmarks.evaluation.stories import Ending
from slm.console.errors import SlmxError, UsageError
from tests.benchmarks.evaluation.rating.sheets import HOSTILE, ONE, OTHER, PAIRS, TRUE, endings, saved


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return key_of(tmp_path, endings(), PAIRS)


def preferring(key: Key, model: str, count: int | None = None) -> dict[str, str]:
    """The answers of somebody who prefers one model."""
    return {question.id: "a" if question.a == model else "b" for question in key.questions[:count]}


def test_the_page_has_the_texts_escaped_and_no_name_of_a_model(key: Key) -> None:
    page = to_html(key, endings())
    assert ONE not in page
    assert OTHER not in page
    assert TRUE not in page
    assert "</script><script>" not in page
    assert page.count("<script>") == 1
    assert "&lt;/script&gt;&lt;script&gt;document.title" in page
    assert "<img" not in page
    assert HOSTILE[2][:11] in page  # a template in a story is text
    assert "Once &lt;i&gt;there&lt;/i&gt; was cat 0." in page
    assert not re.search(r'(?:src|href)="(?!data:,)', page[: page.index("<article")])


def test_sides_order_and_names_are_random_and_every_opening_is_asked_once() -> None:
    keys = [Key.make(endings(80), PAIRS) for _ in range(2)]
    for key in keys:
        assert sorted(question.opening for question in key.questions) == list(range(79))
        assert key.same == (1,)
        assert {(question.a, question.b) for question in key.questions} == {(ONE, OTHER), (OTHER, ONE)}
    first, second = ([(question.opening, question.a) for question in key.questions] for key in keys)
    assert first != second
    assert [number for number, _ in first] != sorted(number for number, _ in first)
    assert not {question.id for question in keys[0].questions} & {question.id for question in keys[1].questions}


def test_a_sheet_that_is_made_again_has_the_same_key(key: Key, tmp_path: Path) -> None:
    assert key_of(tmp_path, endings(), PAIRS) == key
    with pytest.raises(SlmxError, match="belongs to a sheet of other endings; give another --out"):
        key_of(tmp_path, endings(9), PAIRS)
    with pytest.raises(SlmxError, match="other endings"):
        key_of(tmp_path, endings(), [(OTHER, ONE)])


def test_models_that_wrote_the_same_need_no_sheet(tmp_path: Path) -> None:
    same = [Ending("Once.", " The end.", True)]
    with pytest.raises(SlmxError, match="wrote the same endings"):
        key_of(tmp_path, {ONE: same, OTHER: same}, PAIRS)
    assert not (tmp_path / KEY).exists()


def test_one_rater_who_always_prefers_one_model(key: Key, tmp_path: Path) -> None:
    (rater,) = read_raters([saved(tmp_path / "a.json", key, preferring(key, ONE))], key)
    found = measure(key, [rater])
    (pair,) = found["pairs"]
    assert (pair["won"], pair["lost"], pair["no difference"], pair["same text"], pair["not answered"]) == (
        7,
        0,
        0,
        1,
        0,
    )
    assert pair["share won"] == share(7, 7).to_json()
    assert found["agreement"] == {"measure": None, "value": None, "questions": 7}
    assert "| nano int8 | micro int8 | 7 | 0 | 0 | 1 | 0 | 100.0 % (64.6 to 100.0) | differs |" in ratings_table(found)


def test_several_raters_decide_by_majority_and_a_question_counts_once(key: Key, tmp_path: Path) -> None:
    ours, theirs = preferring(key, ONE), preferring(key, OTHER, 4)
    ties = dict.fromkeys(list(ours)[:2], "same")
    files = [
        saved(tmp_path / "a.json", key, ours, "r1"),
        saved(tmp_path / "b.json", key, theirs, "r2"),
        saved(tmp_path / "c.json", key, theirs | ties, "r3"),
    ]
    found = measure(key, read_raters(files, key))
    (pair,) = found["pairs"]
    assert (pair["won"], pair["lost"], pair["no difference"]) == (3, 2, 2)
    assert found["answers"] == 7 + 4 + 4
    assert found["agreement"]["measure"] == "Fleiss' kappa"
    assert found["agreement"]["questions"] == 4
    assert "cannot be told from chance" in ratings_table(found)
    two = measure(key, read_raters(files[:2], key))
    assert two["agreement"] == {
        "measure": "Cohen's kappa",
        "value": pytest.approx(two["agreement"]["value"]),
        "questions": 4,
    }
    assert two["agreement"]["value"] <= 0  # they never agree; 0 if all their sides happen to be the same


def test_the_side_of_a_question_counts_once(key: Key, tmp_path: Path) -> None:
    asked = [question.id for question in key.questions]
    given = dict(zip(asked, ["a", "a", "a", "b", "same"], strict=False))
    files = [saved(tmp_path / f"{number}.json", key, given, f"r{number}") for number in range(2)]
    against = saved(tmp_path / "c.json", key, {asked[0]: "b"}, "r2")
    found = measure(key, read_raters([*files, against], key))
    assert found["side A preferred"] == share(3, 4).to_json()
    assert "Of the questions with a preferred side, 75.0 % (" in ratings_table(found)
    tie = measure(key, read_raters([files[0], against], key))
    assert tie["side A preferred"] == share(2, 3).to_json()


def test_questions_that_nobody_answered_are_counted(key: Key, tmp_path: Path) -> None:
    found = measure(key, read_raters([saved(tmp_path / "a.json", key, preferring(key, OTHER, 3))], key))
    assert found["pairs"][0]["not answered"] == 4
    assert found["pairs"][0]["lost"] == 3


def test_the_command_writes_the_figures_beside_the_key(key: Key, tmp_path: Path) -> None:
    file = saved(tmp_path / "a.json", key, preferring(key, ONE))
    shown = read_back([file], None, tmp_path, as_json=False)
    assert (tmp_path / "ratings.md").read_text("utf-8") == f"{shown}\n"
    found = json.loads(read_back([file], None, tmp_path, as_json=True))
    assert found == json.loads((tmp_path / "ratings.json").read_text("utf-8"))


BAD = {
    "empty": (b"", "Expecting value"),
    "text": (b"hello", "Expecting value"),
    "bytes": (b"\xff\xfe\x00", "codec can't decode"),
    "list": (b"[]", "not an object"),
    "other": (b'{"format": "slmx ratings 2"}', f"format is not '{FORMAT}'"),
    "deep": (b"[" * 100_000, "levels"),
    "twice": (b'{"format": "x", "format": "y"}', "twice"),
    "large": (b" " * (2**22 + 1), "more than"),
}


@pytest.mark.parametrize("name", BAD)
def test_another_file_is_one_line(key: Key, tmp_path: Path, name: str) -> None:
    content, said = BAD[name]
    path = tmp_path / f"{name}.json"
    path.write_bytes(content)
    with pytest.raises(SlmxError, match=said) as error:
        read_raters([path], key)
    assert str(error.value).startswith(f"{path}: not a file that a rating sheet saves: ")
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"answers": {"0123": "a"}}, "answers has '0123', which the sheet does not ask"),
        ({"answers": {"\x1b[31m": "a"}}, "answers has '.x1b.31m'"),
        ({"answers": []}, "answers is not an object"),
        ({"rater": 7}, "rater is not a text"),
        ({"rater": "a\nb"}, "rater is not a text"),
        ({"sheet": "0" * 16}, "it answers the sheet 0000000000000000, and rating-key.json is of"),
        ({"answers": {}}, "no question is answered"),
    ],
)
def test_a_changed_file_is_one_line(key: Key, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    path = saved(tmp_path / "a.json", key, preferring(key, ONE), changes=changes)
    with pytest.raises(SlmxError, match=said) as error:
        read_raters([path], key)
    assert str(error.value).isprintable()


def test_an_answer_that_is_no_side_is_one_line(key: Key, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", key, {key.questions[0].id: "both"})
    with pytest.raises(SlmxError, match="is not one of a, same, b"):
        read_raters([path], key)


def test_wrong_use_is_said(key: Key, tmp_path: Path) -> None:
    file = saved(tmp_path / "a.json", key, preferring(key, ONE))
    twice = saved(tmp_path / "b.json", key, preferring(key, OTHER))
    with pytest.raises(UsageError, match=r"b.json and .*a.json are of the same rater"):
        read_back([file, twice], None, tmp_path, as_json=False)
    with pytest.raises(UsageError, match="repeat --ratings before each file"):
        read_back([file], "b.json", tmp_path, as_json=False)
    with pytest.raises(UsageError, match="--ratings needs --out DIR"):
        read_back([file], None, None, as_json=False)
    with pytest.raises(SlmxError, match="not found; give the --out"):
        read_back([file], None, tmp_path / "elsewhere", as_json=False)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"sheet": 1}', '{"pairs": [[1, 2, 3]]}', '{"same": []}', '{"sheet": "0000000000000000"}']
)
def test_a_damaged_key_is_one_line(key: Key, tmp_path: Path, content: str) -> None:
    good = json.loads((tmp_path / KEY).read_text("utf-8"))
    changed = json.loads(content)
    (tmp_path / KEY).write_text(json.dumps(good | changed if changed else changed), "utf-8")
    with pytest.raises(SlmxError, match=r"damaged: .*; make the sheet again"):
        Key.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"same": []}, "1 pairs, and same has 0 numbers"),
        ({"same": [-1]}, "same.0 is not a whole number"),
        ({"same": [1e999]}, "same.0 is not a whole number"),
        ({"pairs": [["a"]]}, "a pair is not a list of two models"),
        ({"pairs": ["ab"]}, "a pair is not a list of two models"),
        ({"questions": [5]}, "questions.0 is not an object"),
        ({"questions": [{"id": "x", "opening": 0, "a": "a", "b": "b"}] * 2}, "a question is there twice"),
    ],
)
def test_a_key_with_its_digest_that_contradicts_itself_is_one_line(
    key: Key, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    values = {name: value for name, value in json.loads((tmp_path / KEY).read_text("utf-8")).items() if name != DIGEST}
    content = json.dumps(values | changes).replace("Infinity", "1e999")
    whole = json.loads(content) | {DIGEST: _digest(json.loads(content))}
    (tmp_path / KEY).write_text(json.dumps(whole).replace("Infinity", "1e999"), "utf-8")
    with pytest.raises(SlmxError) as caught:
        Key.read(tmp_path)
    assert f"rating-key.json: damaged: {said}" in str(caught.value)


def test_a_file_of_answers_that_is_not_there_is_one_line(key: Key, tmp_path: Path) -> None:
    with pytest.raises(SlmxError, match=r"nothing\.json: cannot read \(No such file"):
        read_raters([tmp_path / "nothing.json"], key)
