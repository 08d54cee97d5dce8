"""A story that is written in turns. The reader adds lines and the model continues. The last turn can be redone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from runtimes.bundle.chat_template import needs_space
from runtimes.engine.generator import Generator
from runtimes.engine.sampler import system_seed
from runtimes.types import GenerationConfig, SamplingParams
from slm.console.counted import counted
from slm.console.notice import Log
from slm.console.plain_text import as_plain_text

TURN_TOKENS = 64
HELP = """a line is added to the story, an empty line lets the model continue
/retry writes the last turn again; /undo removes it, with the line you typed
Ctrl-C stops the model; at the prompt, Ctrl-C, Ctrl-D and /quit end the story
a turn has at most {turn} (--max-tokens)
the model reads only the beginning and the end of a story longer than {context}
with --seed {seed}, the same lines write the same story"""
HELP_COMMANDS = ("/", "/?", "/h", "/help")
ENDED = "the story has ended; add a line, or write the last turn again with /retry, or end with /quit"

# Receives the next piece of a story's text, as it is.
WriteText = Callable[[str], None]


@dataclass
class InteractiveStory:
    """The beginning of a story and the turns so far. A turn is a line that the reader added, and what the model wrote.

    A turn has at most 64 tokens unless `config` has another limit, and the context slides.
    """

    generator: Generator
    config: GenerationConfig
    sampling: SamplingParams
    beginning: str = ""
    turns: list[tuple[str, str]] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.config = replace(self.config, max_tokens=self.config.max_tokens or TURN_TOKENS, on_full="slide")
        if self.sampling.seed is None:
            self.sampling = replace(self.sampling, seed=system_seed())

    @property
    def help(self) -> str:
        """The keys, the limits of a turn and of the context, and the seed."""
        turn, context = self.config.max_tokens or TURN_TOKENS, self.generator.bundle.config.block_size
        return HELP.format(turn=counted(turn, "token"), context=counted(context, "token"), seed=self.sampling.seed)

    @property
    def text(self) -> str:
        """The whole story."""
        return self.beginning + "".join(added + written for added, written in self.turns)

    def go_on(self, added: str, write: WriteText) -> None:
        """Adds the reader's words and lets the model continue.

        Each attempt draws with the next seed, so the same seed and turns give the same story. A turn that ends early is
        kept. Ctrl-C ends only the turn. An error is raised.

        Args:
            added: The reader's words.
            write: Called with each piece of the model's text.

        Raises:
            SlmxError: As in `Generator.stream` and `Stream`.
        """
        sampling = replace(self.sampling, seed=(self.sampling.seed or 0) + self.attempts)
        self.attempts += 1
        stream = self.generator.stream(self.text + added, self.config, sampling, reuse=True)
        try:
            for piece in stream:
                write(piece)
        except KeyboardInterrupt:
            write(stream.close())
        finally:
            self.turns.append((added, stream.completion.completion_text))

    def retry(self, write: WriteText) -> None:
        """Writes the last turn again, if there is one."""
        if self.turns:
            added, _ = self.turns.pop()
            self.go_on(added, write)

    def undo(self) -> bool:
        """Removes the last turn, and never the beginning; returns False if there is no turn."""
        return bool(self.turns and self.turns.pop())


def write_turns(story: InteractiveStory, lines: Iterable[str], write: WriteText, log: Log) -> None:
    """Writes a story with the reader until /quit, the end of the lines, or Ctrl-C between two turns.

    If the story has a beginning, the model continues it before the first line is read.

    Args:
        story: Holds the turns, also after an error.
        lines: What the reader enters, with or without line breaks. Bytes that were not UTF-8 are lone surrogates.
        write: Called with each piece of the story's text.
        log: Called with each line about the keys and commands, and with an empty line after each turn.

    Raises:
        SlmxError: As in `InteractiveStory.go_on`.
    """
    try:
        _log_lines(story.help, log)
        if story.beginning:
            write(story.beginning)
            story.go_on("", write)
            log("")
        for line in lines:
            if line.rstrip("\r\n") == "/quit":
                break
            _take_line(story, line.removesuffix("\n").removesuffix("\r"), write, log)
            log("")
    except KeyboardInterrupt:
        pass


def _take_line(story: InteractiveStory, added: str, write: WriteText, log: Log) -> None:
    if not _is_text(added):
        log("this line is not UTF-8 text and was left out; enter it again")
    elif added == "/undo":
        if not story.undo():
            log("nothing to undo")
        elif not story.text:
            log("removed; the story is empty now")
        else:
            log("removed; the story is now:")
            _log_lines(story.text, log)
    elif added == "/retry":
        log("again:" if story.turns else "nothing to write again")
        story.retry(write)
    elif added.startswith("/"):
        if added not in HELP_COMMANDS:
            log(f"unknown command {as_plain_text(added.split()[0])}")
        _log_lines(story.help, log)
    else:
        joined = f" {added}" if needs_space(story.text, added) else added
        write(joined)
        story.go_on(joined, write)
        if story.turns[-1] == ("", ""):
            story.undo()
            log(ENDED)


def _log_lines(text: str, log: Log) -> None:
    for line in text.splitlines():
        log(line)


def _is_text(line: str) -> bool:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
