"""What `slmx generate` writes: stories to standard output and to a file, figures to standard error."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from runtimes.engine.batch import Batch
from runtimes.engine.generator import Generator
from runtimes.engine.stream import Stream
from runtimes.generate.interactive import InteractiveStory, write_turns
from runtimes.generate.live_rate import LiveRate
from runtimes.prompts_file.reader import LONGEST_LINE
from runtimes.types import Completion
from slm.console.counted import count_stories, counted
from slm.console.errors import SlmxError
from slm.console.notice import log_line
from slm.console.terminal import is_terminal, need_stdout, styled
from slm.console.word_wrap import WordWrap, folded
from slm.storage.disk import check_creatable, write_errors, write_file

BETWEEN = "\n\n---\n\n"
SIGN = "> "  # before each line that the reader enters


class StoryOutput:
    """Writes stories. On a terminal, lines break between words. Elsewhere the text is as the model wrote it.

    Args:
        generator: What writes the stories.
        as_json: Whether stories are written as JSON objects instead of text.
        save: A file that gets the text too, or None.

    Raises:
        SlmxError: Standard output is closed.
    """

    def __init__(self, generator: Generator, as_json: bool, save: Path | None) -> None:
        need_stdout()
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        self._generator, self._as_json, self._save = generator, as_json, save
        self._wrap = WordWrap() if sys.stdout.isatty() else None

    def write_stream(self, stream: Stream) -> Completion:
        """Writes a story while the model writes it, until it ends or Ctrl-C, and its figures."""
        try:
            if self._as_json:
                _read(stream, lambda piece: None)
            else:
                self._show(stream)
        finally:
            story = stream.completion
            self._save_stories([story])
        if not self._as_json:
            self._end("")
        elif _has_begun(story):
            self._end(story_json(self._generator, story))
        _report(self._generator, [story], 1)
        self._tell_unsaved(_has_begun(story), "the story had not begun")
        return story

    def write_batch(self, batch: Batch) -> list[Completion]:
        """Writes stories as soon as they and those before them have ended, and their figures.

        After Ctrl-C, those that have not begun are left out. All are returned.
        """
        written: list[Completion] = []
        try:
            for story in filter(_has_begun, batch.run()):
                if self._as_json:
                    self._end(story_json(self._generator, story))
                else:
                    self._write(BETWEEN * bool(written) + story.full_text)
                    self._flush()
                written.append(story)
        finally:
            self._save_stories(batch.completions)
        if written and not self._as_json:
            self._end("")
        stories = batch.completions
        _report(self._generator, written, len(stories))
        self._tell_unsaved(any(map(_has_begun, stories)), "no story had begun")
        return stories

    def write_in_turns(self, story: InteractiveStory, lines: io.TextIOWrapper) -> None:
        """Writes a story with the reader, who enters lines."""

        def log(line: str) -> None:
            self._end_line()
            log_line(folded(line))

        try:
            write_turns(story, _asked(lines), self._write, log)
        finally:
            self._flush()
            if story.turns:
                self._save_text(story.text)
        self._end("")
        self._tell_unsaved(bool(story.turns), "the story has no turn")

    def _show(self, stream: Stream) -> None:
        prompt = stream.completion.prompt
        terminal = is_terminal()
        self._write(prompt, (lambda part: styled(part, bold=True)) if terminal else str)
        with LiveRate(terminal) as live:

            def write(piece: str) -> None:
                self._write(piece)
                live.add(len(stream.ids))

            try:
                _read(stream, write)
            except SlmxError:
                if prompt or stream.ids:
                    self._end("")
                raise
            finally:
                self._flush()

    def _write(self, text: str, style: Callable[[str], str] = str) -> None:
        sys.stdout.write(style(text) if self._wrap is None else self._wrap.add(text, style))
        sys.stdout.flush()

    def _flush(self) -> None:
        if self._wrap is not None:
            sys.stdout.write(self._wrap.flush())
            sys.stdout.flush()

    def _end_line(self) -> None:
        """Ends the line that is being written, because a line for people follows it on the terminal."""
        if self._wrap is not None:
            sys.stdout.write(self._wrap.end_line())
            sys.stdout.flush()

    def _end(self, text: str) -> None:
        self._flush()
        print(text, flush=True)

    def _save_stories(self, stories: list[Completion]) -> None:
        """Writes the stories that have begun to the file."""
        texts = [story.full_text for story in stories if _has_begun(story)]
        if texts:
            self._save_text(BETWEEN.join(texts))

    def _save_text(self, text: str) -> None:
        if self._save is None:
            return
        try:
            _write_text(self._save, text)
        except (OSError, SlmxError):
            if not self._as_json:
                self._end("")  # the line of the error follows on a terminal
            raise

    def _tell_unsaved(self, saved: bool, why: str) -> None:
        if self._save is not None and not saved:
            log_line(folded(f"{self._save}: not written, because {why}"))


def _has_begun(story: Completion) -> bool:
    """Returns whether a story has a token, or ended without one by itself."""
    return bool(story.ids) or story.stats.finish_reason != "interrupted"


def check_new_file(path: Path) -> None:
    """Raises OSError unless a file can be written here, and SlmxError if there is one, or a folder. Makes none."""
    path = path.resolve()
    if path.is_file():
        raise SlmxError(f"{path}: exists already; choose another --save, or delete the file")
    if path.is_dir():
        raise SlmxError(f"{path}: a folder; give --save the name of a file, such as {path / 'story.txt'}")
    if not path.exists():  # else it is a device or a pipe
        check_creatable(path)


def story_json(generator: Generator, story: Completion) -> str:
    """Returns a story, its figures, and where it comes from as a JSON object."""
    record: dict[str, object] = {
        "prompt": story.prompt,
        "text": story.full_text,
        "ids": story.ids,
        "variant": generator.variant,
    }
    if story.logprobs:
        record["logprobs"] = [round(value, 5) for value in story.logprobs]
    record["bundle"] = str(generator.bundle.path)
    record |= asdict(story.stats) | {"tokens_per_second": round(story.stats.tokens_per_second, 1)}
    return json.dumps(record, ensure_ascii=False)


def _read(stream: Stream, write: Callable[[str], None]) -> None:
    """Reads a story until it ends or Ctrl-C."""
    try:
        for piece in stream:
            write(piece)
    except KeyboardInterrupt:
        write(stream.close())


def _asked(lines: io.TextIOWrapper) -> Iterator[str]:
    """Yields lines. On a terminal, a sign asks for each. SlmxError if a line is too long."""
    asks = lines.isatty()
    while True:
        if asks and sys.stderr is not None:
            print(SIGN, end="", file=sys.stderr, flush=True)
        line = lines.readline(LONGEST_LINE + 1)
        if not line:
            return
        if len(line) > LONGEST_LINE:
            raise SlmxError(f"standard input: a line is longer than {LONGEST_LINE:,} characters; shorten it")
        yield line


def _write_text(path: Path, text: str) -> None:
    content = f"{text}\n".encode()
    if path.exists() and not path.is_file():
        with write_errors(path):
            path.write_bytes(content)  # a device or a pipe
    else:
        write_file(path, content)


def _report(generator: Generator, stories: list[Completion], asked: int) -> None:
    """Prints the figures of the stories that were written, of those that were asked for."""
    where = f"{generator.variant}, {counted(generator.threads, 'thread')}"
    if stories:
        where = f"{generator.variant}, seed {stories[0].stats.seed}, {counted(generator.threads, 'thread')}"
    if asked == 1:
        first = stories[0].stats
        speed = (
            f"{first.tokens_per_second:,.0f} tokens/s, " if first.tokens_per_second else ""
        )  # of one token there is none
        figures = (
            f"{counted(first.tokens, 'token')}, {speed}"
            f"{1000 * first.time_to_first_token:.1f} ms to the first, stopped by {first.stop}"
        )
    else:
        tokens = sum(story.stats.tokens for story in stories)
        seconds = [story.stats.time_to_first_token + story.stats.decode_seconds for story in stories]
        speed = f", {tokens / max(seconds):,.0f} tokens/s together" if tokens else ""
        number = f"{len(stories):,} of {count_stories(asked)}" if len(stories) < asked else count_stories(asked)
        stops = Counter(story.stats.stop for story in stories if story.stats.stop != "end of text")
        others = "".join(f", {count:,} stopped by {stop}" for stop, count in stops.items())
        figures = f"{number}, {counted(tokens, 'token')}{speed}{others}"
    line = f"{figures} ({where})"
    log_line(styled(line, dim=True) if is_terminal() else line)
