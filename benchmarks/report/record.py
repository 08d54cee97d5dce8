"""The record of a benchmark run: dataclasses with every raw sample, written as JSON and read by `reader`."""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import asdict, dataclass, field

from runtimes.system.timing import Samples

FORMAT_VERSION = 2
# The names of the runners that are PyTorch itself.
TORCH_EAGER, TORCH_COMPILED = "torch eager", "torch compiled"
TORCH_RUNNERS = (TORCH_EAGER, TORCH_COMPILED)
MEASURED, FAILED, SKIPPED = "measured", "failed", "skipped"
# Limits of the values in a report. They are far beyond what any machine gives, and they keep the arithmetic finite.
MOST_TOKENS = 2**31
MOST_BYTES = 2**62
SECONDS = (1e-12, 1e12)
BANDWIDTH = (1.0, 1e18)
INCREASE = (-0.999, 1e9)


@dataclass(frozen=True)
class Round:
    """One round of a runner.

    Attributes:
        rows: The new ids, a list for each row.
        first_token_seconds: Time from the prompt to the first id.
        decode_seconds: Time of all further steps together.
        token_seconds: Time of each further step. Empty for a runner that returns all ids at once.
    """

    rows: list[list[int]]
    first_token_seconds: float
    decode_seconds: float
    token_seconds: list[float]

    @classmethod
    def from_stamps(cls, rows: list[list[int]], started: float, stamps: list[float]) -> Round:
        """Builds a round from the clock at its start and after each step, in seconds."""
        steps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
        return cls(rows, stamps[0] - started, stamps[-1] - stamps[0], steps)


@dataclass(frozen=True)
class Case:
    """One measurement: a runner on a model under given settings.

    A runner writes tokens with the model's weights. It is PyTorch, a variant of a bundle, or a peer (another runtime).

    Attributes:
        preset: The name of the model, in most cases a preset.
        runner: The name of the runner.
        threads: The number of threads.
        prompt_tokens: The length of the prompt.
        depth: The number of tokens that are in the context before the prompt.
        new_tokens: The number of tokens decoded after the prompt, in each row. It is at least 2, because the first one
            belongs to the prefill.
        batch: The number of rows.

    Raises:
        ValueError: A count is one that no measurement can have.
    """

    preset: str
    runner: str
    threads: int
    prompt_tokens: int
    depth: int
    new_tokens: int
    batch: int = 1

    def __post_init__(self) -> None:
        least = {"threads": 1, "prompt_tokens": 1, "depth": 0, "new_tokens": 2, "batch": 1}
        for name, smallest in least.items():
            if not smallest <= getattr(self, name) <= MOST_TOKENS:
                raise ValueError(f"{name} of a case is {getattr(self, name)}")


@dataclass(frozen=True)
class Result:
    """The measurements of a case in a fresh process.

    Attributes:
        case: The case.
        status: "measured", "failed" or "skipped".
        note: Why the case failed or was skipped, and what to do.
        load_seconds: Time to load the model.
        first_token_seconds: Time from the prompt to the first token, a sample for each round.
        decode_seconds: Time of all further steps together, a sample for each round.
        token_seconds: Time of each further step, of all rounds. Empty if the runner gives no times.
        interpreter_bytes: Peak memory of an empty Python process.
        imports_bytes: Peak memory after the libraries of the runner are loaded.
        peak_bytes: Peak of the resident memory of the process.
        disk_bytes: Size of the weights on disk.
        weight_bytes: Bytes of weights that one step reads.
        agreement: The share of leading greedy tokens that are equal to those of the float model.
        bits_per_byte: Bits per byte on the report's text, read in whole windows.
        bpb_increase: Increase of the bits per byte relative to the float model's; 0.01 is 1 %.

    Raises:
        ValueError: A figure is impossible.
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
    bpb_increase: float | None = None

    def __post_init__(self) -> None:
        if self.status not in (MEASURED, FAILED, SKIPPED):
            raise ValueError(f"status of a case is {self.status!r}")
        for seconds in (*self.first_token_seconds, *self.decode_seconds, *self.token_seconds):
            if not SECONDS[0] <= seconds <= SECONDS[1]:
                raise ValueError(f"a sample is {seconds} seconds")
        for name in ("interpreter_bytes", "imports_bytes", "peak_bytes", "disk_bytes", "weight_bytes"):
            if not 0 <= (getattr(self, name) or 0) <= MOST_BYTES:
                raise ValueError(f"{name} is {getattr(self, name)}")
        if not INCREASE[0] <= (self.bpb_increase or 0) <= INCREASE[1]:
            raise ValueError(f"bpb_increase is {self.bpb_increase}")

    @property
    def decode(self) -> Samples | None:
        """Decoded tokens per second, all rows of the batch together, a sample for each round; None if not measured."""
        steps = (self.case.new_tokens - 1) * self.case.batch
        return Samples([steps / seconds for seconds in self.decode_seconds]) if self.decode_seconds else None

    @property
    def prefill(self) -> Samples | None:
        """Prompt tokens per second, all rows together, a sample for each round; None if not measured."""
        tokens = self.case.prompt_tokens * self.case.batch
        return Samples([tokens / seconds for seconds in self.first_token_seconds]) if self.first_token_seconds else None

    def percentile(self, share: int) -> float | None:
        """Returns the seconds per token that `share` percent of the steps do not exceed; None if not measured."""
        if len(self.token_seconds) < 2:
            return None
        return statistics.quantiles(self.token_seconds, n=100, method="inclusive")[share - 1]


@dataclass(frozen=True)
class Model:
    """A measured model: its size and its quality.

    Attributes:
        parameters: The number of parameters.
        trained: False for random weights. They decode as fast as trained weights, but they have no quality.
        training_seconds: The duration of the training.
        bits_per_byte: Bits per byte of the float model on the report's text.
        perplexity: Perplexity per token of the float model on the report's text.
        bleu: BLEU of its greedy continuations of the text's stories.
        context_tokens: The length of its context.
    """

    parameters: int
    trained: bool
    training_seconds: float | None = None
    bits_per_byte: float | None = None
    perplexity: float | None = None
    bleu: float | None = None
    context_tokens: int | None = None


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        created: Date and time in ISO 8601.
        command: The command line.
        machine: Facts about the machine, by name.
        bandwidth: Measured read bandwidth in bytes per second, by the number of threads as text.
        text: A description of the text that quality was measured on; None if it was not measured.
        models: The models by name.
        results: A result for each case.
        warnings: Possible disturbances of the measurement.
        format_version: The version of the JSON format.
    """

    created: str
    command: str
    machine: dict[str, str]
    bandwidth: dict[str, float]
    text: str | None
    models: dict[str, Model]
    results: list[Result]
    warnings: list[str]
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for threads, bandwidth in self.bandwidth.items():
            if not BANDWIDTH[0] <= bandwidth <= BANDWIDTH[1]:
                raise ValueError(f"bandwidth of {threads} threads is {bandwidth}")

    def ceiling_share(self, result: Result) -> float | None:
        """Returns the speed of a result as a share of the limit that the memory sets; None if it is unknown.

        The limit is the number of times per second that this many threads can read all weights.
        """
        bandwidth, decode = self.bandwidth.get(str(result.case.threads)), result.decode
        if not bandwidth or not result.weight_bytes or decode is None:
            return None
        return decode.median / result.case.batch / (bandwidth / result.weight_bytes)

    def to_json(self) -> str:
        """Returns the report as JSON, with one line for each result."""
        whole = asdict(self)
        results = ",\n".join(json.dumps(result) for result in whole.pop("results"))
        return f'{json.dumps(whole, indent=1)[:-2]},\n "results": [\n{results}\n]\n}}\n'
