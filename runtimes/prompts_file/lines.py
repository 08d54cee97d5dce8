"""Reads one line of a file of prompts: what it asks for, or why it cannot be served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtimes.prompts_file.reader import LONGEST_LINE, Line
from runtimes.requests.completion import CompletionRequest, read_completion
from runtimes.requests.errors import RequestError
from runtimes.requests.fields import LARGEST_SEED, Bounds
from runtimes.requests.kinds import Text, Whole
from runtimes.types import Settings
from slm.storage.json_reader import parse_json

BOUNDS = Bounds(prompts=64, n=64)
# The most stories of a line. Those of a line with more stories than -n have seeds of their own, from here on.
MOST_STORIES = BOUNDS.prompts * BOUNDS.n
OWN_SEEDS = 2**40
LONGEST_ID = 200

LineFields = dict[str, object]


@dataclass(frozen=True)
class PromptLine:
    """What a line asks for.

    Attributes:
        number: Its number, from 1.
        id: The id that it has, or else its number.
        request: How to write its stories; None if it cannot be served.
        error: Why it cannot be served; empty if it can.
    """

    number: int
    id: str | int
    request: CompletionRequest | None = None
    error: str = ""


def default_fields(settings: Settings, n: int) -> LineFields:
    """Returns the options of the command line as fields of a line, without the seed.

    Raises:
        RequestError: A line cannot have such a field.
    """
    rest: LineFields = {name: value for name, value in settings.items() if value is not None}
    rest.pop("seed", None)
    fields = rest | {"n": n, "logit_bias": {str(token): value for token, value in settings["logit_bias"].items()}}
    fields |= {name: [*settings[name]] for name in ("stop", "ban_words")}
    if fields.pop("logprobs"):
        fields["logprobs"] = 0
    read_completion({"prompt": "", **fields}, BOUNDS)
    return fields


def read_line(line: Line, is_json: bool, defaults: LineFields) -> PromptLine:
    """Reads a line that is not blank.

    Args:
        line: The line.
        is_json: Whether it is JSON; else it is a prompt.
        defaults: The fields that hold where the line has none.
    """
    name: str | int = line.number
    try:
        if len(line.content) > LONGEST_LINE:
            raise RequestError(f"the line is longer than {LONGEST_LINE:,} bytes; shorten it")
        fields = _fields(line.content, is_json)
        given_id = fields.pop("id", None)
        if given_id is not None:
            name = _id(given_id)
        # A field that is null is as good as missing.
        given = {key: value for key, value in fields.items() if value is not None or key not in defaults}
        request = read_completion({**defaults, **given}, BOUNDS)
        if request.stream:
            raise RequestError("stream: a file has no streams; leave it out", "stream")
    except UnicodeDecodeError as error:
        return PromptLine(line.number, name, error=f"not UTF-8 text: byte {error.start + 1}; convert it to UTF-8")
    except RequestError as error:
        return PromptLine(line.number, name, error=str(error))
    except ValueError as error:
        return PromptLine(line.number, name, error=f"not JSON: {error}")
    return PromptLine(line.number, name, request)


def _fields(content: bytes, is_json: bool) -> LineFields:
    if not is_json:
        return {"prompt": content.decode("utf-8")}
    value = parse_json(content)
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, Mapping):
        raise RequestError("the line must be a JSON object, or a JSON string")
    return dict(value)


def _id(value: object) -> str | int:
    if isinstance(value, str):
        return Text(LONGEST_ID).read("id", value)
    return Whole(-LARGEST_SEED, LARGEST_SEED, "or a text").read("id", value)


def first_seed(seed: int, line: int, n: int, stories: int) -> int:
    """Returns the seed of the first story of a line that has no seed. The next stories have the next seeds.

    No two stories have the same seed.

    Args:
        seed: The seed of the run.
        line: The number of the line, from 1.
        n: The stories of a prompt by the command line.
        stories: The stories of this line.
    """
    if stories <= n:
        return seed + (line - 1) * n
    return seed + OWN_SEEDS + (line - 1) * MOST_STORIES
