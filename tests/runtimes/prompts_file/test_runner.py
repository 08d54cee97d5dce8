"""Stories of a file: their order, their seeds, going on, and parts that together are one run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimes.bundle.store import Bundle
from runtimes.engine.batcher import Batcher
from runtimes.engine.generator import Generator
from runtimes.prompts_file import runner
from runtimes.prompts_file.reader import Shard
from runtimes.prompts_file.runner import PromptsJob, write_stories
from runtimes.prompts_file.writer import StoriesFile
from runtimes.types import Settings
from slm.console.counted import count_stories
from slm.console.errors import SlmxError, UsageError
from tests import bundles

SETTINGS = Settings(logit_bias={}, stop=(), ban_words=(), logprobs=False, seed=5, max_tokens=8)
BATCHER_STEP = Batcher.step
REPORTS: list[str] = []
PROMPTS = ("Once upon a time", "One day, Lily", "Tom", "The big dog went", "A")


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return Generator(Bundle.open(bundles.tiny_bundle(tiny_checkpoint)), "fp32", threads=1)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def prompts_file(folder: Path, count: int) -> Path:
    """A file of texts, objects, lines that fail and blank lines."""
    path = folder / "p.jsonl"
    lines: list[object] = []
    for number in range(count):
        prompt = PROMPTS[number % len(PROMPTS)]
        kinds: list[object] = [
            prompt,
            {"id": f"s{number}", "prompt": prompt, "max_tokens": 1 + number % 20},
            {"prompt": [prompt, "B"], "n": 2},
            {"prompt": prompt, "temperature": -1},
            {"prompt": [300], "seed": 9, "echo": True},
        ]
        lines.append(kinds[number * 7 % 5])
    path.write_text("".join(json.dumps(line) + "\n" * (1 + (number % 6 == 0)) for number, line in enumerate(lines)))
    return path


def write(generator: Generator, prompts: Path, out: Path, **changes: Any) -> int:  # noqa: ANN401  # fields of a job
    return write_stories(generator, PromptsJob(prompts, out, **{"settings": SETTINGS, **changes}), REPORTS.append)


def test_each_story_is_the_one_that_its_prompt_and_seed_give_alone(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("\n".join(PROMPTS * 3), "utf-8")
    assert write(generator, path, tmp_path / "o.jsonl", n=2) == 0
    found = rows(tmp_path / "o.jsonl")
    assert [(row["id"], row["line"], row["index"]) for row in found] == [
        (line, line, index) for line in range(1, 16) for index in range(2)
    ]
    for place, row in enumerate(found):
        assert row["seed"] == 5 + place
        alone = generator.generate(row["prompt"], seed=row["seed"], max_tokens=8)
        assert (row["prompt"], row["text"]) == (PROMPTS[place // 2 % 5], alone.completion_text)
        assert row["finish_reason"] == alone.stats.finish_reason
        assert row["usage"]["completion_tokens"] == len(alone.ids)
        assert row["usage"]["prompt_tokens"] == alone.stats.prompt_tokens


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["good", "several", "bad", "blank", "long", "score"]), max_size=25).filter(
        lambda kinds: bool({*kinds} - {"blank"})
    ),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_rows_are_in_the_order_of_the_lines_with_any_window(
    generator: Generator, tmp_path_factory: pytest.TempPathFactory, kinds: list[str], slots: int, window: int
) -> None:
    lines = {
        "good": json.dumps({"prompt": "Tom", "id": "x"}),
        "several": json.dumps({"prompt": ["A", "B"], "n": 2, "max_tokens": 3}),
        "bad": "{",
        "blank": " ",
        "long": json.dumps({"prompt": "dog " * 200}),
        "score": json.dumps({"prompt": "Once upon", "echo": True, "logprobs": 1, "max_tokens": 0}),
    }
    count = {"several": 4, "blank": 0}
    folder = tmp_path_factory.mktemp("run")
    (folder / "p.jsonl").write_text("".join(lines[kind] + "\n" for kind in kinds), "utf-8")
    with mock.patch.object(runner, "SLOTS", slots), mock.patch.object(runner, "WINDOW", window):
        failed = write(generator, folder / "p.jsonl", folder / "o.jsonl")
    found = rows(folder / "o.jsonl")
    assert [(row["line"], row["index"]) for row in found] == [
        (line, index) for line, kind in enumerate(kinds, 1) for index in range(count.get(kind, 1))
    ]
    for row in found:
        kind = kinds[row["line"] - 1]
        assert row["id"] == ("x" if kind == "good" else row["line"])
        assert ("error" in row) == (kind in ("bad", "long"))
        if kind == "score":
            assert (row["text"], row["usage"]["completion_tokens"]) == ("Once upon", 0)
            assert len(row["prompt_logprobs"]) == len(row["prompt_ids"]) == row["usage"]["prompt_tokens"]
    assert failed == sum(kind in ("bad", "long") for kind in kinds)


@pytest.mark.parametrize("stops", [(1,), (3, 1, 7), (2, 2, 2, 30)])
def test_a_run_that_was_stopped_anywhere_goes_on_with_the_same_bytes(
    generator: Generator, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    prompts = prompts_file(tmp_path, 40)
    failed = write(generator, prompts, tmp_path / "whole.jsonl")
    out = tmp_path / "o.jsonl"
    with mock.patch.object(runner, "SLOTS", 4):
        for steps in stops:
            left = iter([None] * steps)

            def step(self: Batcher, left: Any = left) -> Any:  # noqa: ANN401
                if next(left, 0) == 0:
                    raise KeyboardInterrupt
                return BATCHER_STEP(self)

            with mock.patch.object(Batcher, "step", step), pytest.raises(KeyboardInterrupt):
                write(generator, prompts, out)
            stopped = out.read_bytes()
            assert (tmp_path / "whole.jsonl").read_bytes().startswith(stopped)
            assert REPORTS[-1] == f"stopped with {count_stories(len(rows(out)))} in {out}; the same command goes on"
        assert write(generator, prompts, out) == failed
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert write(generator, prompts, out) == failed
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("count", [1, 3, 8, 100])
def test_the_parts_one_after_another_are_one_run(generator: Generator, tmp_path: Path, count: int) -> None:
    prompts = prompts_file(tmp_path, 30)
    failed = write(generator, prompts, tmp_path / "whole.jsonl")
    parts = [tmp_path / f"part-{number}.jsonl" for number in range(1, count + 1)]
    found = [write(generator, prompts, part, shard=Shard(i, count)) for i, part in enumerate(parts, 1)]
    assert sum(found) == failed
    assert b"".join(part.read_bytes() for part in parts) == (tmp_path / "whole.jsonl").read_bytes()


def test_another_input_is_refused_and_a_longer_one_goes_on(generator: Generator, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "o.jsonl"
    prompts.write_text("Tom\nAnna", "utf-8")
    write(generator, prompts, out)
    before = out.read_bytes()
    for other in ("Tom\nBen\nSam\n", "Tom\n", ""):
        prompts.write_text(other, "utf-8")
        with pytest.raises(SlmxError, match=r"its stories are of another input: the first 2 lines of .*p\.txt are not"):
            write(generator, prompts, out)
        assert out.read_bytes() == before
    prompts.write_text("Tom\nAnna\nSam\n", "utf-8")
    write(generator, prompts, out)
    assert out.read_bytes().startswith(before)
    assert len(rows(out)) == 3
    prompts.write_text("Ben\n", "utf-8")
    kept = out.read_bytes()
    with mock.patch.object(Batcher, "step", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        write(generator, prompts, out, force=True)
    assert REPORTS[-1] == f"stopped with the stories of the other run in {out}; the same command goes on"
    assert out.read_bytes() == kept
    write(generator, prompts, out, force=True)
    assert [row["prompt"] for row in rows(out)] == ["Ben"]


def test_a_story_that_an_error_ends_is_a_row(generator: Generator, tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("Tom\nAnna\n", "utf-8")

    def step(self: Batcher) -> Any:  # noqa: ANN401
        advanced = BATCHER_STEP(self)
        story = advanced[0][0]
        if story.prompt == "Tom" and story.finish_reason is None:
            story.fail(SlmxError("damaged"))
            self.drop(story)
        return advanced

    with mock.patch.object(Batcher, "step", step):
        assert write(generator, prompts, tmp_path / "o.jsonl") == 1
    first, second = rows(tmp_path / "o.jsonl")
    assert first == {"id": 1, "line": 1, "index": 0, "prompt": "Tom", "error": "damaged"}
    assert second["text"] == generator.generate("Anna", seed=6, max_tokens=8).completion_text


def test_log_probabilities_and_ids_are_those_of_the_story(generator: Generator, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "Tom", "logprobs": 2, "seed": 3, "return_token_ids": true}\n', "utf-8")
    write(generator, path, tmp_path / "o.jsonl")
    (row,) = rows(tmp_path / "o.jsonl")
    alone = generator.generate("Tom", seed=3, max_tokens=8, logprobs=True, top_logprobs=2)
    assert row["ids"] == alone.ids
    assert row["prompt_ids"] == generator.encode("Tom")
    assert row["logprobs"] == pytest.approx(alone.logprobs, abs=1e-4)
    assert [[*map(int, likely)] for likely in row["top_logprobs"]] == [[*likely] for likely in alone.top_logprobs]


@pytest.mark.parametrize("name", ["link.jsonl", "hard.jsonl", "p.jsonl", "of_a_record.jsonl"])
def test_the_prompts_are_never_the_file_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('"Tom"\n', "utf-8")
    (tmp_path / "link.jsonl").symlink_to(prompts)
    (tmp_path / "hard.jsonl").hardlink_to(prompts)
    (tmp_path / "of_a_record.jsonl.run").hardlink_to(prompts)
    with prompts.open() as opened:
        monkeypatch.setattr("sys.stdin", opened)
        for given in (prompts, Path("-")):
            with pytest.raises(UsageError, match="it would replace the file of prompts; choose another --out"):
                PromptsJob(given, tmp_path / name, SETTINGS, force=True)
    PromptsJob(prompts, tmp_path / "o.jsonl", SETTINGS, force=True)


def test_parts_need_a_seed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--shard needs --seed"):
        PromptsJob(tmp_path, tmp_path, Settings(**{**SETTINGS, "seed": None}), shard=Shard(1, 2))


def test_a_random_seed_is_kept(generator: Generator, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "o.jsonl"
    for text in ("Tom\n", "Tom\nAnna\n"):
        prompts.write_text(text, "utf-8")
        write(generator, prompts, out, settings=Settings(**{**SETTINGS, "seed": None}))
    first, second = rows(out)
    assert second["seed"] == first["seed"] + 1


def test_one_run_at_a_time_writes_a_file(generator: Generator, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.txt", tmp_path / "o.jsonl"
    prompts.write_text("Tom\n", "utf-8")
    opened = StoriesFile.open

    def open_meanwhile(self: StoriesFile) -> None:
        code = (
            "import sys; from slm.storage.locks import lock_folder; from pathlib import Path\n"
            "try:\n    lock_folder(Path(sys.argv[1])).__enter__()\nexcept Exception as e: print(e)"
        )
        ran = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
        assert f"{out}: process" in ran.stdout
        assert "wait for it, or choose another --out" in ran.stdout
        opened(self)

    with mock.patch.object(StoriesFile, "open", open_meanwhile):
        write(generator, prompts, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.jsonl", "o.jsonl.run", "p.txt"]
