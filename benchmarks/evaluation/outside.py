"""What reads the endings after the models have written them: a judge, people, and an outside model."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.evaluation import OF_ENDINGS
from benchmarks.evaluation.judge.endpoint import Endpoint, Judge
from benchmarks.evaluation.judge.journal import JOURNAL, Journal
from benchmarks.evaluation.judge.rubric import SHA256
from benchmarks.evaluation.judge.suite import Cost, ask, cost_of, figures, waiting
from benchmarks.evaluation.rating.page import to_html
from benchmarks.evaluation.rating.questions import key_of
from benchmarks.evaluation.reading import Advance
from benchmarks.evaluation.run import PAGE, TRUE, Evaluation, save, without_nan
from benchmarks.evaluation.scorer.kinds import check_scorer, hash_of, open_scorer
from benchmarks.evaluation.scorer.suite import SCORER, measure
from benchmarks.evaluation.stories import Ending
from slm.console.errors import UsageError, require
from slm.console.plain_text import is_plain_text
from slm.storage.disk import write_file

JUDGE = "judge"
PATH_OF_REQUESTS = "/chat/completions"
# Called with what the judge costs; raises an exception if that is not wanted.
Agree = Callable[[Cost], None]
Endings = dict[str, list[Ending]]


class Progress(Protocol):
    """Shows how far the work is."""

    def begin(self, name: str, steps: int) -> Advance:
        """Shows a part of the work; returns what counts its steps."""

    def say(self, line: str) -> None:
        """Shows a line."""


Bars = Callable[[], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Outside:
    """Who reads the endings.

    Attributes:
        judge: The judge; None for none.
        price: The prices of a million tokens that go to the judge and that come from it.
        sheet: The file of the page for people; None for none.
        scorer: The outside model; None for none.
    """

    judge: Endpoint | None = None
    price: tuple[float, float] | None = None
    sheet: Path | None = None
    scorer: Path | None = None

    @property
    def asked(self) -> bool:
        """Whether anyone reads the endings."""
        return not (self.judge is None and self.sheet is None and self.scorer is None)

    def read(self, found: Evaluation, out: Path | None, bars: Bars, agree: Agree) -> None:
        """Lets everyone read the endings, and saves the figures.

        Args:
            found: The evaluation, with its endings.
            out: Its folder. A judge and a page need one.
            bars: Shows progress while its context is open.
            agree: Asks whether the judge may be asked.

        Raises:
            SlmxError: The judge fails, or `out` has the answers of another one.
        """
        endings = {name: [Ending(**row) for row in rows] for name, rows in found.endings.items()}
        if self.sheet is not None and out is not None:
            key = key_of(out, endings, opponents(found))
            write_file(self.sheet, to_html(key, endings).encode("utf-8", "replace"))
        if self.scorer is not None:
            self._score(self.scorer, found, endings, out, bars)
        if self.judge is not None and out is not None:
            settings = {"url": self.judge.url, "model": self.judge.model, "rubric": SHA256}
            with Journal(out / JOURNAL, settings) as journal:
                self._ask(self.judge, waiting(endings, journal, found.settings["seed"]), journal, bars, agree)
                for name, ours in endings.items():
                    found.results.setdefault(name, {})[JUDGE] = without_nan(figures(ours, journal, self.judge.model))
            save(out, found)

    def _score(self, path: Path, found: Evaluation, endings: Endings, out: Path | None, bars: Bars) -> None:
        sha256 = hash_of(path)
        open_ = [name for name in endings if found.results.get(name, {}).get(SCORER, {}).get("sha256") != sha256]
        if open_:
            scorer = open_scorer(path)
            with bars() as shown:
                advance = shown.begin(f"{path.name} reads", sum(len(endings[name]) for name in open_))
                for name in open_:
                    found.results.setdefault(name, {})[SCORER] = without_nan(
                        measure(scorer, path, sha256, endings[name], advance)
                    )
                    save(out, found)

    def _ask(self, endpoint: Endpoint, endings: Sequence[Ending], journal: Journal, bars: Bars, agree: Agree) -> None:
        if endings:
            agree(cost_of(endings, self.price))
            with bars() as shown, Judge(endpoint, shown.say) as judge:
                ask(endings, judge, journal, shown.begin(f"scores of {endpoint.model}", len(endings)))


def opponents(found: Evaluation) -> list[tuple[str, str]]:
    """Returns each model with the one that people compare it with: that of --against, or else the true stories."""
    other = found.settings["opponent"] or TRUE
    return [(name, other) for name in found.settings["hashes"] if name != other]


def with_endings(suites: tuple[str, ...], sheet: Path | None, scorer: Path | None) -> tuple[str, ...]:
    """Returns the suites, with `stories` if a page needs endings or a scorer needs their variety."""
    written = any(suite in OF_ENDINGS for suite in suites)
    needed = scorer is not None or (sheet is not None and not written)
    return (*suites, "stories") if needed and "stories" not in suites else suites


def outside(
    suites: Iterable[str],
    out: Path | None,
    url: str | None,
    model: str | None,
    key_env: str,
    price: str | None,
    sheet: Path | None,
    scorer: Path | None,
) -> Outside:
    """Reads the options.

    Args:
        suites: The suites that were asked for.
        out: The folder of the result.
        url: The address of the judge's API.
        model: The judge's name there.
        key_env: The name of the environment variable with its key.
        price: Two prices, of a million tokens in and out.
        sheet: The file of the page for people.
        scorer: The outside model.

    Raises:
        SlmxError: The outside model is neither a GGUF file nor a Hugging Face folder.
        UsageError: An option is missing, or wrong.
    """
    if sheet is not None:
        _check_sheet(sheet, out)
    if scorer is not None:
        check_scorer(scorer)  # before the models write for minutes
    if JUDGE not in suites:
        if url is not None or model is not None:
            raise UsageError("--judge-url and --judge-model are for --suite judge; add it")
        return Outside(sheet=sheet, scorer=scorer)
    if url is None or model is None:
        raise UsageError("the suite judge needs --judge-url URL and --judge-model NAME")
    require("evaluate", "openai")
    if out is None:
        raise UsageError("the suite judge needs --out DIR, where every answer is kept")
    _check_url(url)
    if not model or not is_plain_text(model):
        raise UsageError("--judge-model: not a name of printable characters")
    key = os.environ.get(key_env) or None
    if key is not None and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise UsageError(f"the key in {key_env} has spaces around it or characters that no key has; set it again")
    endpoint = Endpoint(url, model, key, key_env)
    return Outside(endpoint, None if price is None else _prices(price), sheet, scorer)


def _check_sheet(sheet: Path, out: Path | None) -> None:
    if out is None:
        raise UsageError("--rating-sheet needs --out DIR, where the key stays that says which ending is of which model")
    if sheet.suffix not in (".html", ".htm"):
        raise UsageError(f"--rating-sheet {sheet}: give a name that ends with .html")
    if sheet.resolve() == (out / PAGE).resolve():
        raise UsageError(f"--rating-sheet {sheet}: the page of the evaluation has this name; choose another")
    if sheet.is_dir() or not (sheet.parent.is_dir() or sheet.parent == out):
        raise UsageError(f"--rating-sheet {sheet}: it is a folder, or its folder does not exist; make that first")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or True)
    except ValueError:
        is_address = False
    if not is_address or not is_plain_text(url) or any(char.isspace() for char in url):
        raise UsageError(f"--judge-url {ascii(url)[1:-1]}: not an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise UsageError("--judge-url: it holds a name or a password; put the key into a variable, see --judge-key-env")
    if parts.path.rstrip("/").endswith(PATH_OF_REQUESTS):
        raise UsageError(f"--judge-url: leave out {PATH_OF_REQUESTS} at its end")


def _prices(text: str) -> tuple[float, float]:
    try:
        of_input, of_output = (float(part) for part in text.split(","))
    except ValueError:
        of_input = of_output = math.nan
    if not (0 <= of_input < math.inf and 0 <= of_output < math.inf):
        raise UsageError(f"--judge-price {ascii(text)[1:-1]}: give two prices of a million tokens, such as 0.15,0.60")
    return of_input, of_output
