"""A story told together: the reader adds lines, the model goes on; any turn can be tried again or taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from runtimes.engine.generator import GenerationConfig, Generator
from runtimes.engine.sampler import SamplingParams

TURN_TOKENS = 64
HELP = "a line goes on with your words, an empty one without; /retry, /undo, /quit"

Show = Callable[[str], None]


@dataclass
class Telling:
    """The turns so far, each what the reader added and what the model wrote."""

    generator: Generator
    limits: GenerationConfig
    sampling: SamplingParams
    turns: list[tuple[str, str]] = field(default_factory=list)
    attempts: int = 0

    @property
    def text(self) -> str:
        """The whole story."""
        return "".join(added + written for added, written in self.turns)

    def go_on(self, added: str, show: Show) -> None:
        """Add the reader's words and let the model write on; Ctrl-C ends the turn and keeps what it wrote.

        A seed gives the same story for the same turns: each attempt draws with the next one.
        """
        seed = None if self.sampling.seed is None else self.sampling.seed + self.attempts
        self.attempts += 1
        stream = self.generator.stream(self.text + added, self.limits, replace(self.sampling, seed=seed), reuse=True)
        written = []
        try:
            for piece in stream:
                written.append(piece)
                show(piece)
        except KeyboardInterrupt:
            pass
        self.turns.append((added, "".join(written)))

    def retry(self, show: Show) -> None:
        """Write the last turn anew, if there is one."""
        if self.turns:
            added, _ = self.turns.pop()
            self.go_on(added, show)

    def undo(self) -> bool:
        """Take the last turn back; False if there is none."""
        return bool(self.turns and self.turns.pop())


def tell(
    generator: Generator,
    prompt: str,
    limits: GenerationConfig,
    sampling: SamplingParams,
    lines: Iterable[str],
    show: Show,
    say: Show,
) -> str:
    """Tell a story with the reader, whose lines come from `lines`, until /quit or their end; its whole text.

    `show` gets the story piece by piece, `say` a word about each command. A turn has 64 tokens unless `limits` says
    otherwise, and the context slides.
    """
    limits = replace(limits, max_tokens=limits.max_tokens or TURN_TOKENS, on_full="slide")
    telling = Telling(generator, limits, sampling)
    if prompt:
        show(prompt)
        telling.go_on(prompt, show)
    say(HELP)
    for line in lines:
        added = line.removesuffix("\n").removesuffix("\r")
        if added == "/quit":
            break
        if added == "/undo":
            say("taken back:\n" + telling.text if telling.undo() else "nothing to take back")
        elif added == "/retry":
            say("\nagain:" if telling.turns else "nothing to try again")
            telling.retry(show)
        elif added.startswith("/"):
            say(HELP)
        else:
            joined = f" {added}" if added and telling.text and not telling.text[-1].isspace() else added
            show(joined)
            telling.go_on(joined, show)
        say("")
    return telling.text
