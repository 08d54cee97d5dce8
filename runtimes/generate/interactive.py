"""A story that is written in turns. The reader adds lines and the model continues. The last turn can be redone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from runtimes.engine.generator import Generator
from runtimes.types import GenerationConfig, SamplingParams
from slm.console.counted import counted

TURN_TOKENS = 64
HELP = """a line is added to the story, an empty line lets the model continue
/retry, /undo, /quit; Ctrl-C stops the model
at the prompt, Ctrl-C and Ctrl-D end the story
a turn has at most {turn} (--max-tokens)
the model reads only the beginning and the end of a story longer than {context}"""

Output = Callable[[str], None]


@dataclass
class InteractiveStory:
    """The turns so far. A turn is the text that the reader added and the text that the model wrote.

    A turn has at most 64 tokens unless `config` has another limit, and the context slides.
    """

    generator: Generator
    config: GenerationConfig
    sampling: SamplingParams
    turns: list[tuple[str, str]] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.config = replace(self.config, max_tokens=self.config.max_tokens or TURN_TOKENS, on_full="slide")

    @property
    def help(self) -> str:
        """The keys, and the limits of a turn and of the context."""
        turn, context = self.config.max_tokens or TURN_TOKENS, self.generator.bundle.config.block_size
        return HELP.format(turn=counted(turn, "token"), context=counted(context, "token"))

    @property
    def text(self) -> str:
        """The whole story."""
        return "".join(added + written for added, written in self.turns)

    def go_on(self, added: str, write: Output) -> None:
        """Adds the reader's words and lets the model continue.

        Each attempt draws with the next seed, so the same seed and turns give the same story. A turn that ends early is
        kept. Ctrl-C ends only the turn. An error is raised.

        Args:
            added: The reader's words.
            write: Called with each piece of the model's text.

        Raises:
            SlmxError: As in `Generator.stream` and `Stream`.
        """
        seed = None if self.sampling.seed is None else self.sampling.seed + self.attempts
        self.attempts += 1
        stream = self.generator.stream(self.text + added, self.config, replace(self.sampling, seed=seed), reuse=True)
        try:
            for piece in stream:
                write(piece)
        except KeyboardInterrupt:
            write(stream.close())
        finally:
            self.turns.append((added, stream.completion.completion_text))

    def retry(self, write: Output) -> None:
        """Writes the last turn again, if there is one."""
        if self.turns:
            added, _ = self.turns.pop()
            self.go_on(added, write)

    def undo(self) -> bool:
        """Removes the last turn; returns False if there is none."""
        return bool(self.turns and self.turns.pop())


def write_turns(story: InteractiveStory, prompt: str, lines: Iterable[str], write: Output, report: Output) -> None:
    """Writes a story with the reader until /quit, the end of the lines, or Ctrl-C between two turns.

    Args:
        story: Holds the turns, also after an error.
        prompt: The beginning of the story; may be empty.
        lines: What the reader enters, with or without line breaks. Bytes that were not UTF-8 are lone surrogates.
        write: Called with each piece of the story's text.
        report: Called with a message about each command.

    Raises:
        SlmxError: As in `InteractiveStory.go_on`.
    """
    try:
        report(story.help)
        if prompt:
            write(prompt)
            story.go_on(prompt, write)
            report("")
        for line in lines:
            if line.rstrip("\r\n") == "/quit":
                break
            _take_line(story, line.removesuffix("\n").removesuffix("\r"), write, report)
            report("")
    except KeyboardInterrupt:
        pass


def _take_line(story: InteractiveStory, added: str, write: Output, report: Output) -> None:
    if not _is_text(added):
        report("this line is not UTF-8 text and was left out; enter it again")
    elif added == "/undo":
        report("removed; the story is now:\n" + story.text if story.undo() else "nothing to undo")
    elif added == "/retry":
        report("\nagain:" if story.turns else "nothing to write again")
        story.retry(write)
    elif added.startswith("/"):
        report(story.help)
    else:
        joined = f" {added}" if added and story.text and not story.text[-1].isspace() else added
        write(joined)
        story.go_on(joined, write)


def _is_text(line: str) -> bool:
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
