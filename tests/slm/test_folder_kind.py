"""A path of the wrong kind is refused. The message names its kind and the command that accepts it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from slm.cli import COMMANDS, LazyGroup
from slm.console.errors import SlmxError
from slm.folder_kind import ADVICE, OTHERWISE, PRETRAINED, Kind, find_checkpoint, find_kind, wrong_kind
from tests.bundles import Slmx

WANTED = (Kind.MODEL, Kind.RUN, Kind.CHECKPOINT, Kind.HUGGING_FACE, Kind.BUNDLE, Kind.TEXT, Kind.PROMPTS)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


@pytest.fixture
def places(tiny_checkpoint: Path, tmp_path: Path) -> dict[Kind, Path]:
    """A path of every kind, with a space, an é, a % and a # in it."""
    home = tmp_path / "my é %20 # files"
    found: dict[Kind, Path] = {
        kind: home / kind.name.lower() for kind in Kind if kind not in (Kind.TEXT, Kind.PROMPTS, Kind.MODEL)
    }
    shutil.copytree(tiny_checkpoint, found[Kind.CHECKPOINT])
    shutil.copytree(tiny_checkpoint, found[Kind.RUN] / "step-0000250")
    write(found[Kind.HUGGING_FACE] / "config.json", {"model_type": "gpt2"})
    shutil.copytree(tiny_checkpoint, found[Kind.BUNDLE])
    write(found[Kind.BUNDLE] / "config.json", {"model_type": "gpt2"})
    write(found[Kind.BUNDLE] / "manifest.json", {"format_version": 3, "variants": {}})
    write(found[Kind.DATA_SET] / "dataset.json", {"format_version": 2})
    write(found[Kind.REPORT] / "report.json", {"format_version": 2})
    write(found[Kind.REPORT] / "files.json", {"files": {}})
    write(found[Kind.FOLDER] / "notes.json", {"a": "b"})
    write(found[Kind.FILE], {"a": "b"})
    found[Kind.FOREIGN] = home / "foreign.pt"
    found[Kind.FOREIGN].write_bytes(b"PK\3\4 a file of torch.save")
    with zipfile.ZipFile(found[Kind.PACKED], "w") as packed:
        packed.write(found[Kind.BUNDLE] / "manifest.json", "manifest.json")
    found[Kind.EMPTY].mkdir()
    return found


def test_every_kind_is_found(places: dict[Kind, Path]) -> None:
    assert {kind: find_kind(path) for kind, path in places.items()} == {kind: kind for kind in places}


@pytest.mark.parametrize("content", ["", "nonsense", "[]", "{}", pytest.param("[" * 100_000, id="deep"), "{'a'}"])
def test_a_damaged_file_is_no_error(content: str, places: dict[Kind, Path]) -> None:
    for kind, name in ((Kind.BUNDLE, "manifest.json"), (Kind.REPORT, "files.json")):
        (places[kind] / name).write_text(content)
        assert find_kind(places[kind]) is not kind
    for kind in (Kind.CHECKPOINT, Kind.HUGGING_FACE):
        (places[kind] / "config.json").write_text(content)
    assert find_kind(places[Kind.CHECKPOINT]) is Kind.CHECKPOINT, "the other files show what it is"
    assert find_kind(places[Kind.HUGGING_FACE]) is Kind.FOLDER


@pytest.mark.parametrize("wanted", WANTED)
def test_the_message_says_what_the_path_is_and_what_takes_it(wanted: Kind, places: dict[Kind, Path]) -> None:
    for kind, path in places.items():
        if kind is wanted:
            continue
        line = str(wrong_kind(path, wanted))
        assert line.startswith(f"{path}: ")
        assert kind.value in line
        assert wanted.value.removeprefix("a ") in line
        assert "\n" not in line
        assert "{" not in line


def test_the_message_is_as_a_shell_reads_it(places: dict[Kind, Path]) -> None:
    path = places[Kind.HUGGING_FACE]
    line = f"{path}: a Hugging Face folder, not a slmx checkpoint; slmx import '{path}' --out NEW makes one"
    assert str(wrong_kind(path, Kind.CHECKPOINT)) == line
    empty = places[Kind.EMPTY]
    line = f"{empty}: no bundle here (an empty folder); slmx list shows what is here, and "
    line += f"slmx export --checkpoint RUN --out '{empty}' makes one"
    assert str(wrong_kind(empty, Kind.BUNDLE)) == line


def test_a_missing_checkpoint_is_near_one_that_ships_or_is_here(tmp_path: Path) -> None:
    assert "nanno: no slmx checkpoint here (did you mean nano?): no such file or folder; " in str(
        wrong_kind(Path("nanno"), Kind.CHECKPOINT)
    )
    (tmp_path / "mine").mkdir()
    line = str(wrong_kind(tmp_path / "mime", Kind.CHECKPOINT))
    assert f"mime: no slmx checkpoint here (did you mean {tmp_path / 'mine'}?): no such file or folder; " in line


def test_a_file_of_another_program_is_not_of_a_data_set_two_folders_above(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{}")
    (tmp_path / "models").mkdir()
    weights = tmp_path / "models" / "x.safetensors"
    weights.write_bytes(b"")
    assert "data set" not in str(wrong_kind(weights, Kind.CHECKPOINT))


def test_the_tokenizer_of_llama2c_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.bin").write_bytes(b"x")
    assert find_kind(tmp_path / "tokenizer.bin") is Kind.FILE


def test_control_characters_of_a_path_are_in_no_command(tmp_path: Path) -> None:
    empty = tmp_path / "a\x1bb"
    empty.mkdir()
    for path in (empty, Path("a\nb")):
        told = str(wrong_kind(path, Kind.BUNDLE))
        assert told.startswith(f"{path}: no bundle here (")
        assert told.endswith("slmx export --checkpoint RUN --out NEW makes one")


def test_a_missing_packed_bundle_leads_to_the_command_that_makes_one() -> None:
    line = "a b.slmx: no bundle here (no such file or folder); slmx pack BUNDLE --out 'a b.slmx' makes one"
    assert str(wrong_kind(Path("a b.slmx"), Kind.BUNDLE)) == line


@pytest.mark.parametrize("option", ["--prompt-file", "--prompts"])
def test_prompts_are_not_read_from_a_folder_or_a_bundle(slmx: Slmx, places: dict[Kind, Path], option: str) -> None:
    more = ["--out", "o.jsonl"] if option == "--prompts" else []
    for kind in (Kind.BUNDLE, Kind.PACKED, Kind.RUN, Kind.HUGGING_FACE, Kind.FOLDER):
        path = places[kind]
        line = slmx.refuses("generate", option, path, *more)
        assert line == str(wrong_kind(path, Kind.PROMPTS))
        assert kind.value in line


def test_a_folder_that_is_no_report_is_named(slmx: Slmx, places: dict[Kind, Path]) -> None:
    run = places[Kind.RUN]
    line = f"{run}: a training run, not a report of slmx bench; name the folder that it wrote"
    assert slmx.refuses("compare", run, run) == line


def test_a_packed_bundle_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "b"
    for content, kind in {
        b"PK\3\4" + bytes(26) + b"manifest.json": Kind.PACKED,
        b"PK\3\4" + bytes(26) + b"manifest.jso": Kind.FILE,
        b"PK\3\4" + bytes(25) + b"manifest.json": Kind.FILE,
        b"": Kind.FILE,
    }.items():
        path.write_bytes(content)
        assert find_kind(path) is kind
    path.unlink()
    os.mkfifo(path)
    assert find_kind(path) is Kind.FILE, "a pipe is not read"


def test_a_bundle_without_its_manifest_is_not_taken_for_a_hugging_face_folder(places: dict[Kind, Path]) -> None:
    bundle = places[Kind.BUNDLE]
    (bundle / "manifest.json").unlink()
    (bundle / "training.json").unlink()
    assert find_kind(bundle) is Kind.FOLDER


def test_a_file_of_a_wanted_folder_leads_to_it(places: dict[Kind, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = places[Kind.CHECKPOINT]
    weights = folder / "model.safetensors"
    assert str(wrong_kind(weights, Kind.CHECKPOINT)).endswith(f"name its folder, {shlex.quote(str(folder))}")
    monkeypatch.chdir(folder)
    assert str(wrong_kind(Path("model.safetensors"), Kind.CHECKPOINT)).endswith("name its folder, .")


def test_a_file_of_a_folder_of_another_kind_leads_to_what_takes_the_folder(
    places: dict[Kind, Path], slmx: Slmx, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, bundle = places[Kind.CHECKPOINT], places[Kind.BUNDLE]
    advice = f"it is of a slmx checkpoint: slmx export --checkpoint {shlex.quote(str(folder))} --out NEW makes one"
    weights = folder / "model.safetensors"
    assert slmx.refuses("generate", "--bundle", weights) == f"{weights}: a file, not a bundle; {advice}"
    named = f"name its folder, {shlex.quote(str(folder))}"
    assert str(wrong_kind(weights, Kind.MODEL)) == f"{weights}: a file, not a checkpoint, run or bundle; {named}"
    graph = bundle / "onnx" / "model.onnx"
    graph.parent.mkdir()
    graph.write_bytes(b"graph")
    named = f"name its folder, {shlex.quote(str(bundle))}"
    assert slmx.refuses("generate", "--bundle", graph) == f"{graph}: a file, not a bundle; {named}"
    folder = places[Kind.HUGGING_FACE]
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(b"weights")
        for command in NEEDS_CHECKPOINT.values():
            assert slmx.refuses(*command(folder / name)).endswith(
                f"it is of a Hugging Face folder: slmx import {shlex.quote(str(folder))} --out NEW makes one"
            )
    monkeypatch.chdir(graph.parent)
    assert str(wrong_kind(Path("model.onnx"), Kind.BUNDLE)).endswith(named)


@pytest.mark.parametrize(
    ("name", "option"), [("ckpt.pt", "DIR"), ("a.PTH", "DIR"), ("stories15M.bin", "DIR"), ("a.gguf", "")]
)
def test_a_model_of_another_program_leads_to_its_import(slmx: Slmx, name: str, option: str) -> None:
    Path("s.txt").write_text("A story.\n", "utf-8")
    Path("out").mkdir()
    path = Path("out", name)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "weights")
    command = f"slmx import {path}{f' --tokenizer {option}' if option else ''} --out NEW makes"
    kind = f"{path}: a model of another program, not"
    for arguments in NEEDS_CHECKPOINT.values():
        assert slmx.refuses(*arguments(path)) == f"{kind} a slmx checkpoint; {command} one"
    for arguments in NEEDS_BUNDLE.values():
        assert slmx.refuses(*arguments(path)) == f"{kind} a bundle; {command} a checkpoint to export"
    line = slmx.refuses("evaluate", path, "--suite", "pairs")
    assert line == f"{kind} a checkpoint, run or bundle; {command} a checkpoint"


@pytest.mark.parametrize("advice", sorted({*ADVICE.values(), *OTHERWISE.values()}))
def test_advice_names_commands_and_options_that_exist(advice: str) -> None:
    for command, rest in re.findall(r"slmx (\w+)([^:;,]*)", advice):
        assert command in COMMANDS
        found = LazyGroup().get_command(None, command)
        assert found is not None
        options = {name for option in found.params for name in option.opts}
        assert set(re.findall(r"--[\w-]+", rest)) <= options, command


def test_a_run_leads_to_its_best_and_else_to_its_newest(places: dict[Kind, Path]) -> None:
    run = places[Kind.RUN]
    assert find_checkpoint(run) == run / "step-0000250"
    shutil.copytree(run / "step-0000250", run / "step-0000500")
    assert find_checkpoint(run) == run / "step-0000500"
    shutil.copytree(run / "step-0000250", run / "step-10000000")
    shutil.copytree(run / "step-0000250", run / "step-old")
    assert find_checkpoint(run) == run / "step-10000000"
    shutil.copytree(run / "step-0000250", run / "best")
    assert find_checkpoint(run) == run / "best"
    assert find_checkpoint(places[Kind.CHECKPOINT]) == places[Kind.CHECKPOINT]


def test_a_run_without_a_checkpoint_is_a_run(tmp_path: Path) -> None:
    write(tmp_path / "run" / "run.json", {"data": "there"})
    assert find_kind(tmp_path / "run") is Kind.RUN
    with pytest.raises(SlmxError, match=r"run: a training run, not a .*; it holds no checkpoint yet: slmx "):
        find_checkpoint(tmp_path / "run")


NEEDS_CHECKPOINT: dict[str, Callable[[Path], list[str | Path]]] = {
    "average": lambda path: ["average", path, path, "--text", "s.txt", "--out", "new"],
    "train --init": lambda path: ["train", "--init", path, "--text", "s.txt", "--out", "new"],
    "export": lambda path: ["export", "--checkpoint", path],
}
NEEDS_BUNDLE: dict[str, Callable[[Path], list[str | Path]]] = {
    "generate": lambda path: ["generate", "Once", "--bundle", path],
    "verify": lambda path: ["verify", path],
    "info": lambda path: ["info", path],
    "bench": lambda path: ["bench", path, "--quick", "--out", "new"],
}
NEEDS_TEXT: dict[str, Callable[[Path], list[str | Path]]] = {
    "train": lambda path: ["train", "--text", path, "--out", "new"],
    "prepare": lambda path: ["prepare", path, "--out", "new"],
}


KINDS = (Kind.CHECKPOINT, Kind.HUGGING_FACE, Kind.BUNDLE, Kind.DATA_SET, Kind.REPORT)


def check(slmx: Slmx, places: dict[Kind, Path], arguments: Callable[[Path], list[str | Path]], wanted: Kind) -> None:
    """Runs a command on every kind except the wanted one. Each gives one line and writes no file."""
    Path("s.txt").write_text("A story.\n", "utf-8")
    for kind in KINDS:
        if kind is not wanted and kind in places:
            assert slmx.refuses(*arguments(places[kind])) == str(wrong_kind(places[kind], wanted))
    assert not [path for path in Path("new").rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", NEEDS_CHECKPOINT)
def test_commands_that_need_a_checkpoint(slmx: Slmx, places: dict[Kind, Path], command: str) -> None:
    check(slmx, places, NEEDS_CHECKPOINT[command], Kind.CHECKPOINT)


@pytest.mark.parametrize("command", NEEDS_BUNDLE)
def test_commands_that_need_a_bundle(slmx: Slmx, places: dict[Kind, Path], command: str) -> None:
    check(slmx, places, NEEDS_BUNDLE[command], Kind.BUNDLE)


@pytest.mark.parametrize("command", NEEDS_TEXT)
def test_commands_that_need_a_text(slmx: Slmx, places: dict[Kind, Path], command: str) -> None:
    del places[Kind.DATA_SET]  # training takes one
    check(slmx, places, NEEDS_TEXT[command], Kind.TEXT)


def test_import_needs_a_hugging_face_folder(slmx: Slmx, places: dict[Kind, Path]) -> None:
    check(slmx, places, lambda path: ["import", path, "--out", "new"], Kind.HUGGING_FACE)


def test_a_tokenizer_is_taken_from_a_run_and_not_from_another_kind(slmx: Slmx, places: dict[Kind, Path]) -> None:
    stories = Path("s.txt")
    stories.write_text("\n<|endoftext|>\n".join(f"A story number {number}." for number in range(400)), "utf-8")
    path = places[Kind.HUGGING_FACE]
    line = slmx.refuses("prepare", stories, "--out", "new", "--tokenizer", path)
    assert line == str(wrong_kind(path, Kind.CHECKPOINT))
    assert slmx("prepare", stories, "--out", "new", "--tokenizer", places[Kind.RUN]).code == 0


def test_a_shipped_checkpoint_is_found_by_its_name_unless_there_is_such_a_path(
    places: dict[Kind, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(Path("nano")) == PRETRAINED / "nano"
    for name in ("large-1024", "../nano", "./micro/.."):
        with pytest.raises(SlmxError, match="no slmx checkpoint here"):
            find_checkpoint(Path(name))
    shutil.copytree(places[Kind.CHECKPOINT], "nano")
    assert find_checkpoint(Path("nano")) == Path("nano")


def test_a_path_that_hides_a_shipped_checkpoint_is_named(
    slmx: Slmx, places: dict[Kind, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    export = ("export", "--checkpoint", "nano", "--out", "new")
    for kind in (Kind.EMPTY, Kind.HUGGING_FACE):
        shutil.copytree(places[kind], "nano")
        advice = f"it hides the checkpoint of the same name: name that one by its path, {PRETRAINED / 'nano'}"
        assert slmx.refuses(*export).endswith(advice)
        shutil.rmtree("nano")
    shutil.copytree(places[Kind.CHECKPOINT], "nano")
    taken = f"nano: this folder is taken, not the checkpoint of the same name, which is {PRETRAINED / 'nano'}\n"
    assert slmx(*export).stderr.startswith(taken)
    stories = Path("s.txt")
    stories.write_text("\n<|endoftext|>\n".join(f"A story number {number}." for number in range(400)), "utf-8")
    assert taken in slmx("prepare", stories, "--out", "data", "--tokenizer", "nano").stderr


def test_what_is_evaluated_is_a_checkpoint_a_run_or_a_bundle(slmx: Slmx, places: dict[Kind, Path]) -> None:
    for kind in (Kind.HUGGING_FACE, Kind.DATA_SET, Kind.FOLDER, Kind.EMPTY):
        path = places[kind]
        line = slmx.refuses("evaluate", path, "--suite", "pairs")
        assert line == str(wrong_kind(path, Kind.MODEL))
        assert "checkpoint, run or bundle" in line


def test_what_is_no_run_cannot_be_resumed(slmx: Slmx, places: dict[Kind, Path]) -> None:
    for kind in (Kind.CHECKPOINT, Kind.HUGGING_FACE, Kind.BUNDLE, Kind.DATA_SET, Kind.FOLDER, Kind.FILE):
        path = places[kind]
        assert slmx.refuses("train", "--resume", "--out", path) == str(wrong_kind(path, Kind.RUN))
    part = next(places[Kind.RUN].iterdir())
    named = f"name its folder, {shlex.quote(str(part.parent))}"
    assert slmx.refuses("train", "--resume", "--out", part).endswith(named)
    only_best = places[Kind.RUN] / "best"
    part.rename(only_best)
    assert "no step-N is left" in slmx.refuses("train", "--resume", "--out", only_best.parent)
