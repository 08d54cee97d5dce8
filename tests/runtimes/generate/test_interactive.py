"""A story in turns: words are added, and turns are written again and removed. Nothing is lost."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes import load
from runtimes.engine.arrays import FloatArray
from runtimes.engine.generator import Generator
from runtimes.engine.session import Session
from runtimes.generate.interactive import ENDED, HELP, InteractiveStory, write_turns
from runtimes.generate.output import StoryOutput
from runtimes.types import GenerationConfig, LogitsRules, SamplingParams
from slm.console.errors import SlmxError
from slm.console.word_wrap import WordWrap
from tests import bundles
from tests.bundles import Slmx
from tests.conftest import run_slmx
from tests.runtimes.interrupts import interrupt_after

GREEDY = SamplingParams(temperature=0.0, seed=1)
COMMAND = (sys.executable, "-c", "from slm.cli import main; main()")
CLOSED = ("sh", "-c", 'exec "$@" <&-', "sh", *COMMAND)  # runs a command without standard input


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


@pytest.fixture(scope="module")
def generator(bundle: Path) -> Generator:
    return load(bundle, "fp32")


def in_turns(
    generator: Generator, prompt: str, lines: Iterable[str], sampling: SamplingParams = GREEDY
) -> tuple[str, str, str]:
    """The story, the pieces of its text that were written, and the messages."""
    written: list[str] = []
    messages: list[str] = []
    story = InteractiveStory(generator, GenerationConfig(8), sampling, prompt)
    write_turns(story, lines, written.append, messages.append)
    return story.text, "".join(written), "\n".join(messages)


def test_each_turn_goes_on_from_the_whole_story(generator: Generator) -> None:
    text, written, _ = in_turns(generator, "Once", ["\n", "The dog\n"])
    assert written == text
    story = "Once"
    for added in ("", "", " The dog"):
        story += added
        story += "".join(generator.stream(story, GenerationConfig(8, on_full="slide"), GREEDY))
    assert text == story


def test_words_that_begin_with_a_closing_sign_follow_the_story_without_a_space(generator: Generator) -> None:
    story = InteractiveStory(generator, GenerationConfig(1), GREEDY, "Once")
    write_turns(story, [", said Tom", "\N{HORIZONTAL ELLIPSIS}", "and"], lambda piece: None, lambda line: None)
    assert [added for added, _ in story.turns] == ["", ", said Tom", "\N{HORIZONTAL ELLIPSIS}", " and"]


def test_a_turn_is_written_again_with_another_seed_and_removed(generator: Generator) -> None:
    story = InteractiveStory(generator, GenerationConfig(12), SamplingParams(1.5, 0, 1.0, seed=1))
    story.go_on("Once", lambda piece: None)
    first = story.text
    story.go_on("", lambda piece: None)
    second = story.text
    story.retry(lambda piece: None)
    assert story.text.startswith(first)
    assert story.text != second
    assert story.undo()
    assert story.text == first
    assert story.undo()
    assert not story.undo()
    story.retry(lambda piece: None)
    assert story.text == ""


def test_the_same_seed_and_turns_give_the_same_story(generator: Generator) -> None:
    turns = ["", "/retry", "Tom", "/undo", ""]
    sampling = SamplingParams(1.0, seed=4)
    assert in_turns(generator, "Lily", turns, sampling) == in_turns(generator, "Lily", turns, sampling)


def test_commands_are_answered(generator: Generator) -> None:
    text, written, messages = in_turns(generator, "", ["/undo", "/retry", "/dance", "/quit", "never read"])
    assert (text, written) == ("", "")
    for line in ("nothing to undo", "nothing to write again", HELP.splitlines()[0]):
        assert line in messages
    assert "a turn has at most 8 tokens (--max-tokens)\nthe model reads only the beginning" in messages
    assert max(map(len, messages.splitlines())) <= 80


def test_an_unknown_command_is_named_and_help_is_none(generator: Generator) -> None:
    _, _, messages = in_turns(generator, "", ["/save x", "/help"])
    assert [line for line in messages.splitlines() if "unknown" in line] == ["unknown command /save"]
    assert messages.splitlines().count(HELP.splitlines()[0]) == 3


def test_a_story_that_has_ended_says_so_and_has_no_empty_turn(generator: Generator) -> None:
    story = InteractiveStory(generator, GenerationConfig(8), GREEDY)
    messages: list[str] = []
    write_turns(story, ["Once"], lambda piece: None, messages.append)
    text = story.text
    story.sampling = replace(GREEDY, rules=LogitsRules(logit_bias={generator.tokenizer.end_of_text: 1000.0}))
    write_turns(story, ["", ""], lambda piece: None, messages.append)
    assert messages.count(ENDED) == 2
    assert (story.text, len(story.turns)) == (text, 1)


def test_undo_takes_a_line_with_what_followed_and_never_the_beginning(generator: Generator) -> None:
    text, _, messages = in_turns(generator, "Once", ["The dog", "/undo", "/undo", "/undo"])
    assert text == "Once"
    assert messages.splitlines().count("nothing to undo") == 1
    assert messages.endswith("removed; the story is now:\nOnce\n\nnothing to undo\n")
    again, _, _ = in_turns(generator, "Once", ["/undo", ""])
    assert again == in_turns(generator, "Once", [])[0], "the model continues the beginning anew"
    text, _, messages = in_turns(generator, "", ["Once", "/undo"])
    assert text == ""
    assert messages.endswith("removed; the story is empty now\n")


def test_each_turn_begins_a_line_of_the_terminal(
    generator: Generator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", sys.stdout)
    monkeypatch.setenv("COLUMNS", "30")
    story = InteractiveStory(generator, GenerationConfig(40), SamplingParams(1.0, seed=4), "Once")
    StoryOutput(generator, False, None).write_in_turns(story, io.TextIOWrapper(io.BytesIO(b"\n\n\n")))
    seen = capsys.readouterr().out
    assert max(map(len, seen.splitlines()[-20:])) <= 30
    for added, written in story.turns[1:]:
        wrap = WordWrap()
        turn = wrap.add(added + written) + wrap.flush()
        assert "\n" in turn
        assert f"\n{turn}\n" in seen


def test_a_story_grows_beyond_the_context(generator: Generator) -> None:
    text, _, _ = in_turns(generator, "One day", [""] * 20)
    assert len(generator.tokenizer.encode(text)) > generator.bundle.config.block_size


def test_the_command_keeps_the_story_on_stdout_and_saves_it(bundle: Path, tmp_path: Path) -> None:
    ran = run_slmx(
        *("generate", "Once", "--interactive", "--bundle", bundle, "--max-tokens", "6", "--seed", "1"),
        *("--save", "story.txt"),
        cwd=tmp_path,
        input="\nThe dog\n/quit\n",
    )
    assert ran.returncode == 0
    assert (tmp_path / "story.txt").read_text("utf-8") == ran.stdout
    assert ran.stdout.startswith("Once")
    assert " The dog" in ran.stdout
    assert HELP.splitlines()[0] in ran.stderr
    assert "a turn has at most 6 tokens" in ran.stderr


def test_a_story_without_a_turn_is_not_saved_and_that_is_told(bundle: Path, tmp_path: Path) -> None:
    command = ("generate", "Once", "-i", "--bundle", bundle, "--max-tokens", "6", "--save", "story.txt")
    ran = run_slmx(*command, cwd=tmp_path, input="/undo\n/quit\n")
    assert (ran.returncode, list(tmp_path.iterdir())) == (0, [])
    assert ran.stderr.splitlines()[-1] == "story.txt: not written, because the story has no turn"


def test_what_does_not_go_together_is_one_line(bundle: Path, slmx: Slmx) -> None:
    for flags, named in {("--json",): "--json", ("-n", "2"): "-n", ("--json", "-"): "--json and -"}.items():
        line = slmx.refuses("generate", "-i", "--bundle", bundle, *flags, code=2)
        assert line == f"--interactive reads lines and writes one story as text: drop {named}"
    line = slmx.refuses("generate", "--logprobs", "--bundle", bundle, code=2)
    assert line == "--logprobs shows in JSON only: add --json"


def test_ctrl_c_at_the_prompt_ends_the_story_and_keeps_it(generator: Generator) -> None:
    def lines() -> Iterator[str]:
        yield "The dog"
        raise KeyboardInterrupt

    assert in_turns(generator, "Once", lines()) == in_turns(generator, "Once", ["The dog"])


def test_ctrl_c_in_a_turn_ends_the_turn_only(generator: Generator) -> None:
    pieces: list[str] = []

    def write(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            raise KeyboardInterrupt

    story = InteractiveStory(generator, GenerationConfig(8), GREEDY)
    story.go_on("Once", write)
    assert story.text == "Once" + "".join(pieces)
    story.go_on("", lambda piece: None)
    assert len(story.turns) == 2


def test_ctrl_c_writes_what_a_stop_string_held_back(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generator.generate("Once", max_tokens=8, temperature=0.0)
    interrupt_after(2, Session, monkeypatch)
    written: list[str] = []
    story = InteractiveStory(generator, GenerationConfig(8, stop=whole.completion_text + "!"), GREEDY)
    story.go_on("Once", written.append)
    assert "".join(written) == generator.detokenize(whole.ids[:3]) != ""
    assert story.text == "Once" + "".join(written)


def test_a_line_that_is_not_text_is_left_out_and_the_story_goes_on(generator: Generator) -> None:
    lines = ["The dog", b"caf\xe9".decode("utf-8", "surrogateescape"), "é"]
    text, _, messages = in_turns(generator, "Once", lines)
    assert "this line is not UTF-8 text and was left out; enter it again" in messages
    assert text == in_turns(generator, "Once", ["The dog", "é"])[0]


def test_a_turn_that_fails_is_kept_as_far_as_it_came(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    story = InteractiveStory(generator, GenerationConfig(8), GREEDY, "Once")
    whole = in_turns(generator, "Once", [])[0]
    step, steps = Session.step, iter(range(3))

    def damaged(session: Session, token: int) -> FloatArray:
        logits = step(session, token)
        return logits if next(steps, None) is not None else logits * float("nan")

    monkeypatch.setattr(Session, "step", damaged)
    with pytest.raises(SlmxError, match="no numbers"):
        write_turns(story, [], lambda piece: None, lambda line: None)
    assert whole.startswith(story.text)
    assert len(story.text) > len("Once")


def command(bundle: Path, cwd: Path, *args: str) -> subprocess.Popen[bytes]:
    """`slmx generate -i` that saves to a file, with pipes for its input and output."""
    return subprocess.Popen(
        [
            *COMMAND,
            *("generate", "Once", "-i", "--bundle", bundle, "--max-tokens", "6", "--seed", "1"),
            *("--save", "é story #1.txt", *args),
        ],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"},
    )


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal")
def test_ctrl_c_at_the_prompt_of_the_command_saves_as_quit_does(bundle: Path, tmp_path: Path) -> None:
    with command(bundle, tmp_path) as child:
        assert child.stderr is not None
        assert child.stdout is not None
        assert child.stderr.readline().decode().startswith(HELP[:10])
        while child.stderr.readline().strip():  # the other keys, and then the end of the first turn
            pass
        child.send_signal(signal.SIGINT)
        text, talk = child.stdout.read().decode(), child.stderr.read().decode()
        assert child.wait(60) == 0
    assert text.startswith("Once")
    assert (tmp_path / "é story #1.txt").read_text("utf-8") == text
    assert "Traceback" not in talk


def test_a_byte_that_is_not_utf_8_on_its_input_loses_nothing(bundle: Path, tmp_path: Path) -> None:
    with command(bundle, tmp_path) as child:
        out, talk = child.communicate(b"The dog\ncaf\xe9\nZo\xc3\xab\n", timeout=60)
    assert child.returncode == 0
    text = out.decode()
    assert " The dog" in text
    assert " Zoë" in text
    assert "caf" not in text
    assert "not UTF-8 text" in talk.decode()
    assert (tmp_path / "é story #1.txt").read_text("utf-8") == text


def test_a_closed_input_is_one_line(bundle: Path, tmp_path: Path) -> None:
    advice = {"-i": "-i reads the lines of the story from it, so leave it open", "-": "give the prompt as an argument"}
    for arguments in (("-i", "Once"), ("-",)):
        ran = subprocess.run(
            [*CLOSED, "generate", *arguments, "--bundle", str(bundle)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 1
        assert ran.stderr.startswith(f"slmx: standard input is closed: {advice[arguments[0]]}")
        assert len(ran.stderr.splitlines()) == 1
