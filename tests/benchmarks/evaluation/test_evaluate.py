"""`slmx evaluate`: what it prints, keeps, continues and refuses."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation import run as evaluation
from benchmarks.evaluation.text import StoryText
from runtimes.bundle.location import SHIPPED_BUNDLES
from slm.checkpoint import load_checkpoint
from slm.console.errors import SlmxError
from slm.data.corpus import encode_stories
from slm.data.prepare import PrepareSettings, prepare
from slm.train.evaluate import evaluate
from tests.bundles import Slmx, copy_of, tiny_bundle, tiny_bundle_of_all
from tests.runs import QUIET

pytestmark = pytest.mark.slow

BRIEF = ("--count", "3", "--words", "5", "--max-tokens", "300")


def figures(slmx: Slmx, *arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(slmx("evaluate", *arguments, "--json").stdout)
    return found


def test_a_checkpoint_has_the_figures_of_training(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, stories: list[str]
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    expected = evaluate(checkpoint.model, encode_stories(stories, checkpoint.tokenizer))
    (result,) = figures(slmx, tiny_checkpoint, "--text", corpus_file)["results"].values()
    assert result["loss"]["windows"]["bits per byte"]["value"] == pytest.approx(expected.bits_per_byte, abs=1e-4)
    assert result["loss"]["windows"]["tokens"] == expected.tokens
    printed = slmx("evaluate", tiny_checkpoint, "--text", corpus_file).stdout
    assert f"| windows | {expected.bits_per_byte:.4f} ± " in printed


def test_the_validation_split_of_a_data_set_is_read(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path
) -> None:
    dataset = prepare(PrepareSettings((str(corpus_file),), "nano", tmp_path / "set", tokenizer=tiny_checkpoint), QUIET)
    checkpoint = load_checkpoint(tiny_checkpoint)
    expected = evaluate(checkpoint.model, dataset.valid)
    (result,) = figures(slmx, tiny_checkpoint, "--text", tmp_path / "set")["results"].values()
    assert result["loss"]["windows"]["tokens"] == expected.tokens
    assert result["loss"]["windows"]["bits per byte"]["value"] == pytest.approx(expected.bits_per_byte, abs=1e-4)


def test_every_suite_of_every_variant_and_the_same_again(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, training = tmp_path / "a folder \u00e9", tmp_path / "training.txt"
    corpus = corpus_file.read_text("utf-8")
    training.write_text(f"{corpus}\n<|endoftext|>\n{'A dog ran home. ' * 60}\n", "utf-8")
    options: list[str | Path] = [
        tiny_bundle(tiny_checkpoint),
        "--variant",
        "all",
        "--against",
        "fp32",
        "--text",
        corpus_file,
    ]
    options += [
        "--training",
        training,
        "--suite",
        "loss,stories,novelty",
        *BRIEF,
    ]
    found = figures(slmx, *options, "--out", out)
    names = [name for name in found["results"] if name != evaluation.TRUE]
    assert [name.split()[-1] for name in names] == ["int8", "fp32"]
    assert all({"loss", "stories", "novelty"} <= set(found["results"][name]) for name in names)
    assert {"stories", "novelty"} == set(found["results"][evaluation.TRUE])
    assert [name.split()[1] for name in found["differences"]] == ["int8"]
    report = (out / "evaluation.md").read_text("utf-8")
    for heading in ("## Loss", "## Differences", "## Stories", "## Novelty"):
        assert heading in report
    assert "\n    slmx evaluate " in report
    told = slmx("evaluate", *options, "--out", out).stderr.splitlines()
    assert f"the page: {out / 'evaluation.html'}" in told
    count = len(StoryText.read([str(corpus_file)]).stories)
    assert f"left out of --training: {count} stories that --text has too" in told
    page = (out / "evaluation.html").read_text("utf-8")
    assert page.count("<details") == len(found["endings"][evaluation.TRUE])
    assert f"{tiny_bundle(tiny_checkpoint).name} int8 predicts the text with " in page
    monkeypatch.setattr(evaluation, "measure_loss", None)  # nothing is measured again
    monkeypatch.setattr(evaluation, "write_endings", None)
    assert figures(slmx, *options, "--out", out) == found
    assert "made with another count" in slmx.refuses("evaluate", *options, "--count", "4", "--out", out)


def test_a_text_under_two_names_is_refused(slmx: Slmx, corpus_file: Path) -> None:
    Path("link.txt").symlink_to(corpus_file)
    os.link(corpus_file, Path("data.txt"))
    for other in ("link.txt", "data.txt", f"{corpus_file.parent}/./{corpus_file.name}"):
        line = slmx.refuses("evaluate", "nano", "--text", corpus_file, "--text", other, code=2)
        assert "copies would count as more stories" in line


def test_all_tells_which_variants_it_leaves_out(tiny_checkpoint: Path) -> None:
    assert evaluation.left_out(evaluation.Settings(str(tiny_bundle(tiny_checkpoint)), ("all",), text=("a",))) is None
    with_torch = evaluation.Settings(str(tiny_bundle_of_all(tiny_checkpoint)), ("all",), text=("a",))
    line = evaluation.left_out(with_torch)
    assert line == (
        "left out: torchscript, pt2, which onnxruntime does not run; slmx verify --quality --trust reads them"
    )
    assert evaluation.left_out(replace(with_torch, variants=("int8",))) is None


def test_a_terminal_has_aligned_tables_and_a_pipe_has_markdown(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("evaluate", tiny_checkpoint, "--text", corpus_file, "--max-tokens", "300")
    assert "| model | read in |" in slmx(*options).stdout
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "70")
    lines = slmx(*options).stdout.splitlines()
    assert not [line for line in lines if "|" in line]
    assert any("read in" in line and "bits per byte" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("nano",), "--text FILE is needed", 2),
        (("nano", "--suite", "poems"), "--suite: unknown suite 'poems'", 2),
        (("nano", "--suite", "stories"), "the suite stories needs --text FILE", 2),
        (("nano", "--suite", "novelty", "--text", "a.txt"), "the suite novelty needs --training FILE", 2),
        (("nano", "--suite", "pairs", "--language", "german"), "the suite pairs knows English only", 2),
        (("nano", "--text", "nowhere.txt"), "nowhere.txt: cannot read the text (", 1),
        (("nowhere", "--text", "a.txt"), "nowhere", 1),
        (("nano", "--suite", "pairs", "--bench", "report.json"), "--bench needs --out DIR", 2),
        (("nano", "--suite", "pairs", "--bench", "nowhere.json", "--out", "out"), "nowhere.json: cannot read (", 1),
        (("nano", "--variant", "int3", "--suite", "pairs"), "int3", 1),
        (("nano", "--text", "a.txt", "--text", "a.txt"), "--text has the same value twice", 2),
        (("--ratings", "r.json", "--out", "o", "--suite", "loss"), "no option of a measurement", 2),
        (
            ("nano", "--suite", "stories", "--text", "a.txt", "--out", "o", "--rating-sheet", "o/evaluation.html"),
            "the page of the evaluation has this name",
            2,
        ),
    ],
)
def test_what_is_missing_is_one_line(slmx: Slmx, arguments: tuple[str, ...], message: str, code: int) -> None:
    assert message in slmx.refuses("evaluate", *arguments, code=code)


@pytest.mark.parametrize("content", ["[1]", "{}", '{"settings": {}}', "not JSON", '{"settings": 3}'])
def test_another_result_in_the_folder_is_one_line(slmx: Slmx, tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluation.json").write_text(content)
    assert "evaluation.json" in slmx.refuses("evaluate", "nano", "--suite", "pairs", "--out", tmp_path)
    bundle = copy_of(SHIPPED_BUNDLES / "nano", tmp_path / "bundle")
    line = slmx.refuses_unchanged("evaluate", "nano", "--suite", "pairs", "--out", bundle)
    assert line == f"{bundle}: a bundle, which holds nothing else; give another --out"
    assert (tmp_path / "evaluation.json").read_text() == content


@pytest.mark.parametrize(
    "changes",
    [{"settings": 5}, {"results": []}, {"results": {"a": 5}}, {"endings": {"a": [{"text": "b"}]}}, {"differences": 1}],
)
def test_a_result_of_other_types_with_its_hash_is_one_line(changes: dict[str, object], tmp_path: Path) -> None:
    body = asdict(evaluation.Evaluation({"model": "a"})) | changes
    (tmp_path / evaluation.RESULT).write_text(json.dumps(body | {evaluation.HASH: evaluation._hash(body)}), "utf-8")
    with pytest.raises(
        SlmxError, match=r"evaluation\.json: not a result of slmx evaluate, or of another version of it"
    ):
        evaluation.load_result(tmp_path, {"model": "a"})


def test_a_result_that_was_changed_is_one_line(
    slmx: Slmx, tiny_checkpoint: Path, corpus_file: Path, tmp_path: Path
) -> None:
    options = ("evaluate", tiny_checkpoint, "--text", corpus_file, "--max-tokens", "100", "--out", tmp_path)
    slmx(*options)
    path = tmp_path / "evaluation.json"
    whole = path.read_text("utf-8")
    path.write_text(whole.replace('"perplexity": {', '"perplexity": {"x": 1,', 1), "utf-8")
    assert "evaluation.json: damaged, or changed" in slmx.refuses(*options)
    path.write_text(whole.replace('"differences": {}', '"differences": {}, "more": 1', 1), "utf-8")
    assert "of another version of it" in slmx.refuses(*options)
    path.write_text(whole, "utf-8")
    slmx(*options)


def test_two_models_of_one_name_are_kept_apart(slmx: Slmx, corpus_file: Path, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED_BUNDLES / "nano", tmp_path / "here" / "nano")
    options: list[str | Path] = [
        "--text",
        corpus_file,
        "--suite",
        "loss,stories",
        *BRIEF,
    ]
    twice = ["--variant", "int8", "--variant", "int8"]
    found = figures(slmx, "nano", *twice, "--against", tmp_path / "here" / "nano", *options)
    other = f"nano int8 ({tmp_path / 'here' / 'nano'})"
    assert list(found["settings"]["hashes"]) == ["nano int8", other]
    assert list(found["differences"]) == [f"nano int8 against {other}"]
    assert found["differences"][f"nano int8 against {other}"]["windows"]["contains zero"]
    assert found["endings"][other] == found["endings"]["nano int8"]


def test_another_training_text_is_noticed(slmx: Slmx, corpus_file: Path, tmp_path: Path) -> None:
    training = tmp_path / "training.txt"
    training.write_text("A story.\n", "utf-8")
    options: list[str | Path] = [
        "nano",
        "--text",
        corpus_file,
        "--training",
        training,
        "--suite",
        "novelty",
        "--count",
        "2",
        "--words",
        "5",
    ]
    assert slmx("evaluate", *options, "--out", "out").code == 0
    training.write_text("Another story.\n", "utf-8")
    assert "made with another training hash" in slmx.refuses("evaluate", *options, "--out", "out")


@pytest.mark.parametrize("name", ["evaluation.md", "evaluation.html"])
def test_a_page_of_somebody_else_is_not_replaced(slmx: Slmx, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    assert f"{name}: it would be replaced" in slmx.refuses("evaluate", "nano", "--suite", "pairs", "--out", tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_an_output_that_is_no_folder_is_told_before_the_work(slmx: Slmx, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = slmx.refuses("evaluate", "nano", "--suite", "pairs", "--out", tmp_path / "file")
    assert "cannot be made a folder (File exists); name another one" in said
