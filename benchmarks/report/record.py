"""What a benchmark run writes down: one record type, kept as JSON with every raw sample."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from runtimes.system.timing import Samples
from slm.errors import SlmxError

FORMAT_VERSION = 1
MEASURED, FAILED, SKIPPED = "measured", "failed", "skipped"


@dataclass(frozen=True)
class Case:
    """One thing to measure: a side, which is a variant or a peer, on a model shape under given settings.

    `depth` tokens are in the context before the prompt of `prompt_tokens`, and `new_tokens` are decoded behind both, in
    each of `batch` rows.
    """

    preset: str
    side: str
    threads: int
    prompt_tokens: int
    depth: int
    new_tokens: int
    batch: int = 1


@dataclass(frozen=True)
class Result:
    """What was measured of a case in a fresh process; seconds and bytes, a sample for each round.

    `first_token_seconds` runs from the prompt to the first token chosen, `decode_seconds` is all further steps
    together, `token_seconds` each of them, in all rounds, empty for a side that cannot tell. `peak_bytes` is the peak
    of the process's resident memory, `interpreter_bytes` of an empty Python, `imports_bytes` after the side's libraries
    are loaded. `weight_bytes` are read once a step. `agreement` is the share of leading greedy tokens that are the
    float model's. `bits_per_byte` is on the report's text, `loss` relative to the float model's. `note` says why a case
    failed or was skipped, and what to do.
    """

    case: Case
    status: str = MEASURED
    note: str = ""
    load_seconds: float | None = None
    first_token_seconds: list[float] = field(default_factory=list)
    decode_seconds: list[float] = field(default_factory=list)
    token_seconds: list[float] = field(default_factory=list)
    interpreter_bytes: int | None = None
    imports_bytes: int | None = None
    peak_bytes: int | None = None
    disk_bytes: int | None = None
    weight_bytes: int | None = None
    agreement: float | None = None
    bits_per_byte: float | None = None
    loss: float | None = None

    @property
    def decode(self) -> Samples | None:
        """Decoded tokens a second, all rows of the batch together, a sample for each round."""
        steps = (self.case.new_tokens - 1) * self.case.batch
        return Samples([steps / seconds for seconds in self.decode_seconds]) if self.decode_seconds else None

    @property
    def prefill(self) -> Samples | None:
        """Prompt tokens a second, a sample for each round."""
        tokens = self.case.prompt_tokens * self.case.batch
        return Samples([tokens / seconds for seconds in self.first_token_seconds]) if self.first_token_seconds else None

    def percentile(self, share: int) -> float | None:
        """Seconds per output token that `share` of a hundred steps do not exceed."""
        if len(self.token_seconds) < 2:
            return None
        return statistics.quantiles(self.token_seconds, n=100, method="inclusive")[share - 1]


@dataclass(frozen=True)
class Model:
    """A preset's model as it was measured: its real size, and what its training and its text say of it.

    `trained` is False for random weights, which decode as fast and have no quality. `perplexity` is per token on the
    report's text, `bleu` of greedy continuations of its stories.
    """

    parameters: int
    trained: bool
    training_seconds: float | None = None
    bits_per_byte: float | None = None
    perplexity: float | None = None
    bleu: float | None = None


@dataclass(frozen=True)
class Report:
    """A whole run. `bandwidth` is the measured read bandwidth in bytes a second, by number of threads as text."""

    created: str
    command: str
    machine: dict[str, str]
    bandwidth: dict[str, float]
    text: str | None
    models: dict[str, Model]
    results: list[Result]
    warnings: list[str] = field(default_factory=list)
    format_version: int = FORMAT_VERSION

    def ceiling_share(self, result: Result) -> float | None:
        """Decode steps a second relative to how often this many threads could read the weights; None if unknown."""
        bandwidth, decode = self.bandwidth.get(str(result.case.threads)), result.decode
        if not bandwidth or not result.weight_bytes or decode is None:
            return None
        return decode.median / result.case.batch / (bandwidth / result.weight_bytes)

    def to_json(self) -> str:
        """The report as JSON, a line for each result."""
        whole = asdict(self)
        results = ",\n".join(json.dumps(result) for result in whole.pop("results"))
        return f'{json.dumps(whole, indent=1)[:-2]},\n "results": [\n{results}\n]\n}}\n'

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a report; SlmxError for a file that is none, or of another version."""
        try:
            found = json.loads(path.read_text("utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise SlmxError(f"{path}: not a benchmark report ({error}); write one with slmx bench") from error
        version = found.get("format_version") if isinstance(found, dict) else None
        if not isinstance(version, int):
            raise SlmxError(f"{path}: not a benchmark report (no format_version); write one with slmx bench")
        if version != FORMAT_VERSION:
            raise SlmxError(
                f"{path}: report format {version}, this slmx reads {FORMAT_VERSION}; measure again with this slmx"
            )
        try:
            return cls.from_dict(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SlmxError(f"{path}: not a whole benchmark report ({error!r}); measure again") from error

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Report:
        """A report from its JSON object; KeyError, TypeError or ValueError for one that is not whole or not sound."""
        rest = {key: found[key] for key in (entry.name for entry in fields(cls)) if key not in ("models", "results")}
        if not all(isinstance(text, str) for text in (*rest["machine"].values(), *rest["warnings"])):
            raise TypeError("machine and warnings must be text")
        models = {name: Model(**model) for name, model in found["models"].items()}
        return cls(models=models, results=[result_from_dict(result) for result in found["results"]], **rest)


def result_from_dict(found: Mapping[str, Any]) -> Result:
    """A result from its JSON object; KeyError, TypeError or ValueError for one that is not whole or not sound."""
    result = Result(**{**found, "case": Case(**found["case"])})
    for name, value in asdict(result.case).items():
        if type(value) is not (str if name in ("preset", "side") else int):
            raise TypeError(f"{name} of a case is {value!r}")
    if result.status not in (MEASURED, FAILED, SKIPPED):
        raise ValueError(f"status {result.status!r} of a case")
    for seconds in (*result.first_token_seconds, *result.decode_seconds, *result.token_seconds):
        if not seconds > 0:
            raise ValueError(f"a sample of {seconds!r} seconds")
    return result
