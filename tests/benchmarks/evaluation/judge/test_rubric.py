"""The answer of a judge is read strictly, and its question names no model."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.judge.rubric import AXES, INSTRUCTIONS, SCHEMA, messages, parse_scores

SCORES = st.fixed_dictionaries({axis: st.integers(1, 10) for axis in AXES})


@given(SCORES, st.sampled_from(["{}", " \n{}\n", "```json\n{}\n```", "```\n{}\n```\n"]))
def test_every_set_of_scores_is_read_as_it_is(scores: dict[str, int], around: str) -> None:
    assert parse_scores(around.replace("{}", json.dumps(scores))) == scores


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "Expecting value"),
        ("I think that the grammar is 7.", "Expecting value"),
        ("Here it is: {}", "Expecting value"),
        ("[7, 7, 7, 7, 7, 7]", "not an object"),
        (json.dumps(dict.fromkeys(list(AXES)[1:], 7)), "grammar is missing"),
        (json.dumps(dict.fromkeys(AXES, 7) | {"grammar": 11}), "grammar is not a whole number from 1 to 10"),
        (json.dumps(dict.fromkeys(AXES, 7) | {"plot": 0}), "plot is not"),
        (json.dumps(dict.fromkeys(AXES, 7) | {"plot": "8"}), "plot is not"),
        (json.dumps(dict.fromkeys(AXES, 7) | {"plot": 7.5}), "plot is not"),
        (json.dumps(dict.fromkeys(AXES, 7) | {"plot": True}), "plot is not"),
        (json.dumps(dict.fromkeys(AXES, 7) | {"total": 42}), "'total' was not asked for"),
        (json.dumps(dict.fromkeys(AXES, 7))[:-5], "Unterminated"),
        ('{"grammar": 1, "grammar": 9}', "twice"),
        ("[" * 100_000, "levels"),
        ("\ud800", "Expecting value"),
    ],
)
def test_anything_else_is_nonsense(answer: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_scores(answer)


def test_the_example_in_the_instructions_has_the_form_that_the_schema_asks_for() -> None:
    example = INSTRUCTIONS[INSTRUCTIONS.index("{") :]
    assert list(parse_scores(example.replace("N", "5"))) == SCHEMA["required"] == list(SCHEMA["properties"])


def test_the_question_has_both_texts_and_keeps_them_apart() -> None:
    system, user = messages("Once there was a cat. ", " It slept.\n")
    assert system["role"] == "system"
    assert user == {"role": "user", "content": "Once there was a cat.\n***\nIt slept."}
