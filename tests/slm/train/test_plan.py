"""Settings, the plan that is made from them, and its schedule."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm.cli import LazyGroup
from slm.console.errors import SlmxError, UsageError
from slm.data.corpus import TokenStream
from slm.data.prepare import HELD_OUT_SHARE
from slm.presets import GPTConfig, Preset
from slm.storage.json_reader import Fields
from slm.train.plan import QAT_DEFAULTS, Plan, TrainSettings, make_plan

TINY = Preset("tiny", GPTConfig(32, 300, 1, 2, 16), learning_rate=1e-2, batch_size=4)
STREAM = TokenStream(np.zeros(6400, np.uint16), 6400, 1)
SETTINGS = TrainSettings(Path("run"), ("data",))


def plan(**given: Any) -> Plan:  # noqa: ANN401
    return make_plan(replace(SETTINGS, **given), TINY, TINY.config, STREAM)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_layer", 0),
        ("n_embd", -1),
        ("steps", 0),
        ("batch_size", 0),
        ("accumulate", 0),
        ("learning_rate", 0.0),
        ("learning_rate", -1.0),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("dropout", 1.0),
        ("dropout", math.nan),
        ("grad_clip", 0.0),
        ("grad_clip", math.nan),
        ("grad_clip", math.inf),  # no JSON number, so no later command could read the record
        ("steps", 2**63),
        ("eval_every", 0),
        ("eval_tokens", 0),
        ("patience", -1),
        ("seed", -1),
        ("seed", 2**63),
    ],
)
def test_numbers_that_no_run_can_have(name: str, value: object) -> None:
    with pytest.raises(SlmxError, match=f"^--{name.replace('_', '-')} .* is out of range; it is .*[0-9]$"):
        plan(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("optimizer", "sgd"), ("precision", "fp8")])
def test_names_that_no_run_can_have(name: str, value: str) -> None:
    with pytest.raises(SlmxError, match=f"^unknown {name} '{value}': choose one of"):
        plan(**{name: value})


def test_a_run_needs_text_unless_it_is_resumed() -> None:
    with pytest.raises(SlmxError, match=r"^no text to train on: give --text"):
        TrainSettings(Path("run"))
    assert TrainSettings(Path("run"), resume=True).text == ()


def test_a_resumed_run_begins_from_no_other_checkpoint() -> None:
    with pytest.raises(UsageError, match=r"^--resume continues a run from its own checkpoint: drop --init$"):
        TrainSettings(Path("run"), init=Path("checkpoint"), resume=True)


def test_what_is_not_given_is_the_presets() -> None:
    made = plan()
    assert (made.learning_rate, made.batch_size, made.dropout, made.optimizer) == (0.01, 4, 0.1, "muon")
    given = {"learning_rate": 0.5, "batch_size": 7, "dropout": 0.0, "optimizer": "adamw", "steps": 9, "grad_clip": 3.0}
    given |= {"weight_decay": 0.0, "eval_every": 2, "eval_tokens": 64, "patience": 3, "seed": 0, "accumulate": 7}
    assert asdict(plan(**given)) == given | {"warmup": 1, "qat": None}


def test_the_budget_is_twenty_tokens_for_each_parameter() -> None:
    wanted = 20 * TINY.config.parameters
    assert wanted <= plan().steps * 4 * 32 < wanted + 4 * 32


def test_fine_tuning_is_four_epochs_at_a_tenth_of_the_rate() -> None:
    made = plan(init=Path("checkpoint"))
    assert made.steps == 4 * 6400 // (4 * 32)
    assert made.learning_rate == pytest.approx(0.001)
    assert plan(init=Path("checkpoint"), learning_rate=0.3, steps=5).learning_rate == 0.3


def test_a_run_for_a_variant_has_its_own_defaults_and_needs_a_checkpoint() -> None:
    made = asdict(plan(init=Path("checkpoint"), qat="int4"))
    assert made["qat"] == "int4"
    assert {name: made[name] for name in QAT_DEFAULTS} == QAT_DEFAULTS
    assert plan(init=Path("checkpoint"), qat="q8", learning_rate=0.3).learning_rate == 0.3
    with pytest.raises(UsageError, match=r"^--qat q8 trains a finished model for this variant: add --init CHECKPOINT$"):
        plan(qat="q8")


@given(st.integers(2, 3000))
def test_the_rate_warms_up_to_its_peak_and_falls_to_nearly_nothing(steps: int) -> None:
    made = plan(steps=steps)
    rates = [made.learning_rate_at(step) for step in range(steps)]
    peak = rates.index(max(rates))
    assert peak in (made.warmup - 1, made.warmup)
    assert max(rates) <= 0.01 * (1 + 1e-12)
    assert sorted(rates[: peak + 1]) == rates[: peak + 1]
    assert sorted(rates[peak:], reverse=True) == rates[peak:]
    assert 0 < rates[-1] <= 0.01 / (steps - made.warmup)


def test_a_resumed_run_may_repeat_its_numbers_but_not_change_them() -> None:
    made = plan(steps=8)
    made.check(SETTINGS, Path("run/step-8"))
    made.check(replace(SETTINGS, steps=8, seed=1, learning_rate=0.01, optimizer="muon"), Path("run/step-8"))
    changed: dict[str, Any] = {"steps": 9, "seed": 2, "dropout": 0.0, "optimizer": "adamw", "patience": 1}
    for name, value in changed.items():
        with pytest.raises(SlmxError, match=rf"^run/step-8: the run has {name} .*, not {value}; leave the option out"):
            made.check(replace(SETTINGS, **{name: value}), Path("run/step-8"))


def test_a_plan_comes_back_from_json() -> None:
    made = plan()
    assert Plan.read(Fields(json.loads(json.dumps(asdict(made))) | {"more": 1})) == made
    odd: dict[str, Any] = {"steps": "9", "seed": None, "dropout": True, "optimizer": 5, "warmup": 1.5, "qat": "q9"}
    for name, value in odd.items():
        with pytest.raises(ValueError, match=rf"^plan\.{name} is (no|not) "):
            Plan.read(Fields(asdict(made) | {name: value}, "plan"))
    with pytest.raises(ValueError, match=r"^plan\.steps is missing$"):
        Plan.read(Fields({}, "plan"))


def test_sizes_that_are_given_replace_the_presets() -> None:
    wider = replace(SETTINGS, n_embd=24, n_layer=3)
    assert wider.shape(TINY.config) == GPTConfig(32, 300, 3, 2, 24)
    with pytest.raises(UsageError, match="heads do not divide"):
        replace(SETTINGS, n_head=3).shape(TINY.config)


def test_the_defaults_in_the_help_are_those_of_a_plan() -> None:
    command = LazyGroup(name="slmx").get_command(object(), "train")
    assert command is not None
    shown = {option.name: str(getattr(option, "show_default", "")).replace(",", "") for option in command.params}
    made = asdict(plan())
    for name in ("seed", "eval_every", "patience", "accumulate", "weight_decay", "grad_clip", "eval_tokens"):
        assert float(shown[name]) == made[name], name
    assert shown["valid"] == f"1 story in {HELD_OUT_SHARE}"
