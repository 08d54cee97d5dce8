"""The list of the other runtimes. A runtime is imported only when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from export.formats.suppress_output import suppress_output
from slm.console.errors import SlmxError, UsageError, needs, unknown
from slm.storage.read_errors import reason_of

if TYPE_CHECKING:
    from runtimes.bundle.store import Bundle
    from slm.presets import GPTConfig

GENAI_FILE = "genai_config.json"  # describes a graph for onnxruntime-genai
FATAL_ONLY = 4  # the level of onnxruntime's log at which it prints nothing else

# Continues the ids of a prompt: writes so many most likely ids, and does not stop at the end of a story.
Greedy = Callable[[list[int], int], list[int]]
# Opens a variant of a bundle. The runtime reads its files from the folder, which is empty before.
OpenVariant = Callable[["Bundle", str, Path], Greedy]


class CannotRunError(SlmxError):
    """A runtime does not run models of this shape."""


@dataclass(frozen=True)
class Runtime:
    """A runtime that opens the ONNX graphs of a bundle.

    Attributes:
        name: Its name on the command line.
        package: The package that holds it, as pip names it.
        extra: The extra of slmx that installs this package.
        module: The module with its `open_variant`, an `OpenVariant`.
        settings: The file of a bundle that describes the model for it.
    """

    name: str
    package: str
    extra: str
    module: str
    settings: str

    def load(self) -> OpenVariant:
        """Imports the runtime.

        Raises:
            SlmxError: The package is missing, or it cannot be imported.
        """
        try:
            with needs(self.extra), suppress_output():
                module = import_module(self.module)
        except ImportError as error:
            from slm.console.install import pip_line

            why = f"cannot be imported ({reason_of(error)})"
            raise SlmxError(f"{self.package} {why}: {pip_line(self.extra)}") from error
        return cast(OpenVariant, module.open_variant)


_ALL = (
    Runtime("optimum", "optimum-onnx", "export", "export.interop.optimum", "config.json"),
    Runtime("genai", "onnxruntime-genai", "genai", "export.interop.genai", GENAI_FILE),
)
# The runtimes by name.
RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in _ALL}


def find_runtimes(names: str) -> list[Runtime]:
    """Returns the runtimes that a list of names, separated by commas, stands for; UsageError if a name is unknown."""
    wanted = dict.fromkeys(name.strip() for name in names.split(","))
    for name in wanted:
        if name not in RUNTIMES:
            raise UsageError(unknown("runtime", name, list(RUNTIMES)))
    return [RUNTIMES[name] for name in wanted]


def fits_optimum(config: GPTConfig) -> bool:
    """Returns whether the width of a head is channels / heads, which Hugging Face optimum takes for it."""
    return config.head_dim * config.n_head == config.n_embd
