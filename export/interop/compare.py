"""Compares the greedy tokens of other runtimes with those of slmx, for `slmx verify --runtimes`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

from export.checks.greedy import greedy_tokens
from export.formats.suppress_output import suppress_output
from export.interop.registry import CannotRunError, Runtime
from runtimes.beginnings import shared_length
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.console.plain_text import as_plain_text

PROMPTS = ("Once upon a time", "One day, a little girl went to the park.")
NEW_TOKENS = 32
MAX_REASON = 240  # characters of another library's error message
# Read whole, a prompt gives other last digits than read in parts or with the logits of its last position only.
ROUNDING = "; no failure: 8-bit rounding depends on the positions that a runtime computes together"

Outcome = Literal["equal", "different", "error", "skipped"]


@dataclass(frozen=True)
class Row:
    """What one runtime wrote with one variant.

    Attributes:
        runtime: The name of the runtime.
        variant: The variant.
        outcome: "equal" if all tokens are ours, "different" if one is not, "error" if the runtime could not open or run
            the variant, "skipped" if the bundle has no description for this runtime, or a shape that it does not run.
        note: The number of tokens, the first difference, or the reason.
    """

    runtime: str
    variant: str
    outcome: Outcome
    note: str

    @property
    def failed(self) -> bool:
        """Whether the row is a failure. Another token of a quantized variant is none, because rounding decides it."""
        return self.outcome == "error" or (self.outcome == "different" and VARIANTS[self.variant].is_float)


@dataclass(frozen=True)
class RuntimeCheck:
    """What `compare_runtimes` found.

    Attributes:
        versions: Versions of the packages of the runtimes.
        rows: One row for each runtime and variant.
    """

    versions: dict[str, str]
    rows: list[Row]

    @property
    def failed(self) -> bool:
        """Whether a row is a failure."""
        return any(row.failed for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Returns the content for `verification.json`."""
        return {"versions": self.versions, "rows": [asdict(row) | {"failed": row.failed} for row in self.rows]}

    def lines(self) -> list[str]:
        """Returns the rows as aligned lines of text, with a heading."""
        cells = [("runtime", "variant", "greedy tokens, compared with those of slmx")]
        for row in self.rows:
            cells.append((row.runtime, row.variant, f"{'FAILED: ' if row.failed else ''}{row.outcome}: {row.note}"))
        return [f"{runtime:<12} {variant:<12} {result}" for runtime, variant, result in cells]


def onnx_variants(bundle: Bundle) -> list[str]:
    """Returns the variants that other runtimes can read; SlmxError if the bundle has none."""
    names = [name for name in bundle.variants if VARIANTS[name].is_onnx]
    if not names:
        raise SlmxError(f"{bundle.path}: no ONNX graph for other runtimes; export it again with --int8")
    return names


def compare_runtimes(bundle: Bundle, runtimes: Sequence[Runtime], log: Log) -> RuntimeCheck:
    """Continues two prompts with every ONNX variant of a bundle, in slmx and in other runtimes.

    Each runtime opens copies of the checked files in a temporary folder. So the bundle stays as it is, and it can be an
    archive.

    Args:
        bundle: The bundle.
        runtimes: The runtimes, which are installed.
        log: Called with a line of progress before each variant.

    Returns:
        One row for each runtime and variant.

    Raises:
        SlmxError: The bundle has no ONNX graph, a file is not the one that the manifest lists, or slmx cannot run it.
    """
    tokenizer, room = bundle.tokenizer(), bundle.config.block_size
    prompts = [[tokenizer.begin, *tokenizer.encode(text)][: max(1, room // 2)] for text in PROMPTS]
    names, rows = [runtime.name for runtime in runtimes], []
    for name in onnx_variants(bundle):
        log(f"{name}: writing {NEW_TOKENS} tokens in slmx, {', '.join(names)}")
        session = Session.open(bundle.model_bytes(name), bundle.config, name=bundle.model_location(name))
        expected = [greedy_tokens(session, prompt, min(NEW_TOKENS, room - len(prompt))) for prompt in prompts]
        rows += [_row(bundle, name, runtime, prompts, expected) for runtime in runtimes]
    versions = {}
    for runtime in runtimes:
        with suppress(PackageNotFoundError):  # a build for another processor has another name
            versions[runtime.package] = version(runtime.package)
    return RuntimeCheck(versions, sorted(rows, key=lambda row: names.index(row.runtime)))


def _row(bundle: Bundle, variant: str, runtime: Runtime, prompts: list[list[int]], expected: list[list[int]]) -> Row:
    if runtime.settings not in bundle.manifest.files:
        return Row(runtime.name, variant, "skipped", f"{runtime.settings} is not in this bundle")
    with tempfile.TemporaryDirectory() as folder, suppress_output():
        try:
            greedy = runtime.load()(bundle, variant, Path(folder))
            written = [greedy(prompt, len(ids)) for prompt, ids in zip(prompts, expected, strict=True)]
        except CannotRunError as error:
            return Row(runtime.name, variant, "skipped", str(error))
        except Exception as error:  # each library raises its own types
            return Row(runtime.name, variant, "error", _reason(error, folder))
    for number, (ours, theirs) in enumerate(zip(expected, written, strict=True), 1):
        if ours != theirs:
            place = f"token {shared_length(ours, theirs) + 1} after prompt {number} is another"
            rounding = "" if VARIANTS[variant].is_float else ROUNDING
            return Row(runtime.name, variant, "different", place + rounding)
    return Row(runtime.name, variant, "equal", f"{' and '.join(str(len(ids)) for ids in expected)} tokens")


def _reason(error: Exception, folder: str) -> str:
    """Returns the message of another library in one short line that is safe to print, with names below the folder."""
    kind = "" if isinstance(error, SlmxError) else f"{type(error).__name__}: "
    words = f"{kind}{error}".replace(f"{folder}/", "").split()
    return shorten(as_plain_text(" ".join(words)), MAX_REASON, placeholder=" ...")
