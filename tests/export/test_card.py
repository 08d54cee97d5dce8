"""The model card in a bundle, and what it says of the source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from export.card import model_card
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.manifest import MAX_FILE_BYTES, MadeFrom, Manifest
from runtimes.bundle.store import Bundle
from runtimes.bundle.summary import HEADINGS, variant_lines, variant_rows
from runtimes.bundle.variants import VARIANTS
from slm.provenance import licence_of, source_of
from tests import bundles


def test_the_model_card_is_whole_markdown(tiny_checkpoint: Path) -> None:
    lines = (bundles.tiny_bundle(tiny_checkpoint) / "README.md").read_text("utf-8").splitlines()
    start = lines.index(f"| {' | '.join(HEADINGS)} |")
    assert [line.count("|") for line in lines[start : start + 4]] == [6, 6, 6, 6]
    assert [line.split()[1] for line in lines[start + 2 : start + 4]] == ["fp32", "int8"]
    assert [
        line.split("|")[1].strip() for line in lines if line.startswith(("| source", "| licence", "| trained"))
    ] == [
        "source",
        "licence of the source",
        "trained on",
    ]


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, {}),
        ("MIT", {"license": "mit"}),
        ("TinyStories (Eldan & Li, 2023), CDLA-Sharing-1.0", {"license": "cdla-sharing-1.0"}),
        ("mit; stories of my own, CC-BY-4.0", {"license": ["mit", "cc-by-4.0"]}),
        ("MIT; mit", {"license": "mit"}),
        ("mit, Apache-2.0", {"license": ["mit", "apache-2.0"]}),
        ("mit, with one exception", {"license": "other", "license_name": "mit, with one exception"}),
        ("mit; my own", {"license": "other", "license_name": "mit; my own"}),
        ('"quoted": - [x] # é', {"license": "other", "license_name": '"quoted": - [x] # é'}),
        ("other", {"license": "other", "license_name": "other"}),
    ],
)
def test_a_hub_reads_the_header_of_the_card(licence: str | None, expected: dict[str, object]) -> None:
    from huggingface_hub import ModelCard

    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    card = ModelCard(model_card(replace(manifest, checkpoint=replace(manifest.checkpoint, licence=licence)), TRAINED))
    rest = {"library_name": "slmx", "pipeline_tag": "text-generation", "tags": ["onnx", "slmx", "story"]}
    assert card.data.to_dict() == expected | rest  # type: ignore[no-untyped-call]
    assert card.text.lstrip().startswith("# slmx nano")


@pytest.mark.parametrize("name", ["nano", "micro"])
def test_the_card_of_a_shipped_bundle_has_its_licence(name: str) -> None:
    from huggingface_hub import ModelCard

    assert ModelCard.load(SHIPPED_BUNDLES / name / "README.md").data.license == ["cdla-sharing-1.0", "apache-2.0"]


def test_each_reading_of_the_text_has_a_column_of_its_own(tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(bundles.tiny_bundle(tiny_checkpoint)).manifest
    fp32, int8 = variant_rows(manifest)
    quality = manifest.variants["int8"].figures.quality
    assert quality is not None
    assert quality.decode is not None
    assert int8[3].startswith(f"{quality.windows.bits_per_byte:.4f} ")
    assert int8[4].startswith(f"{quality.decode.bits_per_byte:.4f} ")
    assert fp32[4] == "as in windows"


def test_the_rows_of_every_variant_fit_80_columns(tiny_checkpoint: Path) -> None:
    manifest = Bundle.open(bundles.tiny_bundle_of_all(tiny_checkpoint)).manifest
    large = {name: replace(entry, bytes=MAX_FILE_BYTES // 3) for name, entry in manifest.files.items()}
    lines = variant_lines(replace(manifest, files=large))
    assert len(lines) == 1 + len(VARIANTS)
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("name", "title"),
    [(None, "# slmx nano"), ("mine", "# mine"), ("Märchen #2", "# Märchen \\#2"), ("<b>_x_|", "# &lt;b&gt;\\_x\\_\\|")],
)
def test_the_title_is_what_the_person_calls_the_model(name: str | None, title: str) -> None:
    manifest = replace(Bundle.open(SHIPPED_BUNDLES / "nano").manifest, name=name)
    assert Manifest.read(manifest.to_bytes(), "here").name == name
    assert title in model_card(manifest, TRAINED).splitlines()


def test_a_validation_text_is_told_from_one_that_the_model_learned_from() -> None:
    made_from = MadeFrom("0" * 64, False, f"{source_of(TRAINED)}; before that, c (valid).txt (train), d.txt (valid)")
    held = "b.txt (held out for validation); before that, c (valid).txt, d.txt (held out for validation)"
    assert made_from.shown_source == f"a.txt, {held}"
    manifest = replace(Bundle.open(SHIPPED_BUNDLES / "nano").manifest, checkpoint=made_from)
    assert f"| source | a.txt, {held} |" in model_card(manifest, TRAINED)


def test_the_card_counts_the_tokens_of_every_training() -> None:
    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    first = {"tokens_seen": 1_000_000, "plan": {"seed": 1}}
    second = {"tokens_seen": 234_567, "plan": {"seed": 2}, "init": {"record": first}}
    assert "| trained on | 1,234,567 tokens, seed 2 |" in model_card(manifest, second)
    assert "trained on" not in model_card(manifest, IMPORTED)
    assert "The model was trained elsewhere; its source says what it is for" in model_card(manifest, IMPORTED)


def test_the_card_tells_the_step_of_a_checkpoint_and_how_many_were_planned() -> None:
    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    record = {"tokens_seen": 1_000, "steps_done": 1_250, "plan": {"seed": 1, "steps": 4_000}}
    rows = ["| trained on | 1,000 tokens, seed 1 |", "| step of the checkpoint | 1,250 of 4,000 planned |"]
    assert "\n".join(rows) in model_card(manifest, record)
    assert "planned" not in model_card(manifest, record | {"steps_done": None})


def test_the_card_of_a_fine_tuned_import_tells_of_the_training_before() -> None:
    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    tuned = {"tokens_seen": 1_000, "plan": {"seed": 1}, "init": {"record": IMPORTED}}
    again = {"tokens_seen": 234, "plan": {"seed": 2}, "init": {"record": tuned}}
    for record, row in ((tuned, "1,000 tokens, seed 1"), (again, "1,234 tokens, seed 2")):
        card = model_card(manifest, record)
        assert f"| trained on | {row}, after the training of its source |" in card
        assert "The model was trained elsewhere first; its source says what it is for" in card
        assert "knows nothing else" not in card


TRAINED = {"data": [{"file": "a.txt", "split": "train"}, {"file": "b.txt", "side": "valid"}], "licence": "MIT"}
IMPORTED = {"imported": {"model_type": "llama", "file": "s.gguf", "name": "SmolLM2"}, "licence": "apache-2.0"}


@pytest.mark.parametrize(
    ("record", "source", "licence"),
    [
        (TRAINED, "a.txt (train), b.txt (valid)", "MIT"),
        (IMPORTED, "imported from SmolLM2, s.gguf (a model of type llama)", "apache-2.0"),
        (
            TRAINED | {"init": {"record": IMPORTED}},
            "a.txt (train), b.txt (valid); before that, imported from SmolLM2, s.gguf (a model of type llama)",
            "MIT; apache-2.0",
        ),
        (TRAINED | {"init": {"record": TRAINED}, "licence": "not stated"}, None, "MIT"),
        (TRAINED | {"teachers": [{"preset": "a", "licence": "MIT"}, {"preset": "b", "licence": "X"}]}, None, "MIT; X"),
        (TRAINED | {"teachers": [{"preset": "a"}], "licence": None}, None, None),
        (TRAINED | {"teachers": [{"licence": "X; MIT; Y"}, {"licence": "Y; Z"}]}, None, "MIT; X; Y; Z"),
        ({}, None, None),
        ({"untrained": True, "init": "strange"}, None, None),
    ],
)
def test_source_and_licence_travel_also_through_fine_tuning(
    record: dict[str, Any], source: str | None, licence: str | None
) -> None:
    assert licence_of(record) == licence
    if source or not record.get("data"):
        assert source_of(record) == source


def test_the_card_names_the_teachers() -> None:
    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    taught = TRAINED | {
        "teachers": [{"preset": name, "config_sha256": "0123456789abcdef"} for name in ("micro", "a|b")]
    }
    row = "| teachers (it learned their predictions) | micro (0123456789ab), a\\|b (0123456789ab) |"
    assert row in model_card(manifest, taught)
    assert row in model_card(manifest, TRAINED | {"init": {"record": taught}})
    assert "teachers" not in model_card(manifest, TRAINED)


def test_the_card_names_optimum_only_for_a_shape_that_it_runs() -> None:
    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    assert "optimum" in model_card(manifest, TRAINED)
    odd = replace(manifest, shape=replace(manifest.shape, head_size=2 * manifest.shape.head_dim))
    assert "The folder is also one for onnxruntime-genai.\n" in model_card(odd, TRAINED)


def test_the_card_says_which_variant_a_model_was_trained_for() -> None:
    manifest = Bundle.open(SHIPPED_BUNDLES / "nano").manifest
    tuned = TRAINED | {"plan": {"seed": 1, "qat": "int4"}}
    assert "| trained for | int4, in which the validation was read |" in model_card(manifest, tuned)
    assert "trained for" not in model_card(manifest, TRAINED | {"plan": {"qat": ["int3"]}})
