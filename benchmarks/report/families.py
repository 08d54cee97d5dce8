"""The families of runners: slmx, PyTorch, and one for each other runtime. A family has a name and a colour."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.report.record import TORCH_RUNNERS
from runtimes.bundle.variants import VARIANTS


@dataclass(frozen=True)
class Colour:
    """A colour in hexadecimal, for light and for dark pages. Each has a contrast of 4.5 or more to its ground."""

    light: str
    dark: str


@dataclass(frozen=True)
class Family:
    """Runners of one runtime.

    Attributes:
        name: Its name in sentences.
        colour: Its colour in charts. Text beside each mark says the same, so that nobody has to know the colours.
    """

    name: str
    colour: Colour


SLMX = Family("slmx", Colour("#0072b2", "#56b4e9"))
PYTORCH = Family("PyTorch", Colour("#3d444d", "#d0d7de"))
LLAMA_CPP = Family("llama.cpp", Colour("#c24f00", "#f28e3c"))
# The hues of Okabe and Ito ("Color Universal Design"), which differ also for people who are colour-blind.
PEER_FAMILIES = (
    LLAMA_CPP,
    Family("CTranslate2", Colour("#007d5a", "#2bc79a")),
    Family("onnxruntime-genai", Colour("#a8508c", "#e29ac4")),
    Family("OpenVINO", Colour("#857100", "#f0e442")),
    Family("optimum", Colour("#7d6b5d", "#b9a898")),
    Family("Hugging Face", Colour("#6e7781", "#9aa4ae")),
)
UNKNOWN = Colour("#6e7781", "#9aa4ae")
# Peers that compute with the weights of a variant, and that variant: their quality is the same except for rounding.
SAME_WEIGHTS = {
    "llama.cpp F32": "fp32",
    "optimum": "fp32",
    "onnxruntime-genai fp32": "fp32",
    "onnxruntime-genai int8": "int8",
    "CTranslate2 float32": "fp32",
    "OpenVINO fp32": "fp32",
    "Hugging Face generate": "fp32",
}


def is_ours(runner: str) -> bool:
    """Returns whether a runner is a variant of a bundle."""
    return runner in VARIANTS


def family_of(runner: str) -> Family:
    """Returns the family of a runner. A runner that this module does not know is a family of its own."""
    if is_ours(runner):
        return SLMX
    if runner in TORCH_RUNNERS:
        return PYTORCH
    known = (family for family in PEER_FAMILIES if runner == family.name or runner.startswith(f"{family.name} "))
    return next(known, Family(runner, UNKNOWN))


def title_of(runner: str) -> str:
    """Returns the name of a runner for people: slmx int8, PyTorch eager, llama.cpp Q8_0."""
    if is_ours(runner):
        return f"slmx {runner}"
    return runner.replace("torch ", "PyTorch ", 1) if runner in TORCH_RUNNERS else runner
