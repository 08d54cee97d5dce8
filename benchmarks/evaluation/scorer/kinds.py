"""Outside models that read text: a GGUF through llama-cpp-python, or a Hugging Face folder through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtimes.beginnings import shared_length
from runtimes.engine.loss import log_softmax, negative_log_likelihood
from slm.console.errors import SlmxError, require
from slm.console.plain_text import as_plain_text
from slm.storage.file_names import CONFIG_FILE
from slm.storage.hashing import sha256_of, sha256_of_bytes
from slm.storage.read_errors import unreadable

MOST_TOKENS = 1024  # of an opening with its ending; llama.cpp holds the logits of so many
MAGIC = b"GGUF"
HEADS = ("ForCausalLM", "LMHeadModel")  # what transformers calls models that predict the next token
WEIGHTS = ("*.safetensors", "*.bin")
INSTALL = "pip install llama-cpp-python"
DAMAGED = "give another file, or copy it again"
LogitArray = npt.NDArray[np.float32]


class Scorer(Protocol):
    """A model that predicts the next token.

    Attributes:
        context: The most tokens that it reads.
    """

    context: int

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, after those with which the model expects a text to begin."""

    def logits(self, ids: Sequence[int]) -> LogitArray:
        """Returns the logits after each id, float32 [ids, vocabulary]."""


def open_scorer(path: Path) -> Scorer:
    """Opens an outside model.

    Args:
        path: A GGUF file, or a Hugging Face folder.

    Raises:
        SlmxError: It is neither, it does not predict the next token, or its package is not installed.
    """
    check_scorer(path)
    return _Gguf(path) if is_gguf(path) else _HuggingFace(path)


def check_scorer(path: Path) -> None:
    """Checks, without opening it, that an outside model is of a known kind and that its package is installed.

    Args:
        path: A GGUF file, or a Hugging Face folder.

    Raises:
        SlmxError: It is neither, or its package is not installed.
    """
    if not is_gguf(path):
        require("export", "torch", "transformers")
    elif find_spec("llama_cpp") is None:
        raise SlmxError(f"--scorer {path}: reading a GGUF needs llama-cpp-python: {INSTALL}")


def is_gguf(path: Path) -> bool:
    """Returns whether an outside model is a GGUF file; if not, it is a Hugging Face folder.

    Raises:
        SlmxError: It is neither.
    """
    if path.is_dir() and (path / CONFIG_FILE).is_file():
        return False
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return True
    if not path.exists():
        raise SlmxError(f"--scorer {path}: not found")
    raise SlmxError(f"--scorer {path}: neither a GGUF file nor a Hugging Face folder with config.json and weights")


def hash_of(path: Path) -> str:
    """Returns a hash of the file, or of the settings and the weights of the folder."""
    if path.is_file():
        return sha256_of(path)
    files = [path / CONFIG_FILE, *sorted(file for pattern in WEIGHTS for file in path.glob(pattern))]
    return sha256_of_bytes("".join(sha256_of(file) for file in files).encode())


def nats_of(scorer: Scorer, opening: str, ending: str) -> tuple[float, int] | None:
    """Reads an ending after its opening.

    Args:
        scorer: The model.
        opening: The opening, whose tokens are not counted.
        ending: The ending.

    Returns:
        The nats of the ending's tokens, and their number. None if the context cannot hold both.
    """
    before, ids = scorer.encode(opening), scorer.encode(opening + ending)
    if len(ids) > scorer.context:
        return None
    start = max(1, shared_length(before, ids))
    if start >= len(ids):
        return 0.0, 0
    targets = np.array(ids[start:])
    return negative_log_likelihood(log_softmax(scorer.logits(ids[:-1])[start - 1 :]), targets), len(targets)


class _Gguf:
    def __init__(self, path: Path) -> None:
        import llama_cpp

        try:
            self._model: Any = llama_cpp.Llama(
                str(path), n_ctx=MOST_TOKENS, n_batch=MOST_TOKENS, logits_all=True, verbose=False
            )
        except (AssertionError, RuntimeError, ValueError) as error:
            raise unreadable(f"--scorer {path}", error, advice=DAMAGED) from None
        metadata = self._model.metadata
        architecture = str(metadata.get("general.architecture"))
        if "bert" in architecture or "encoder" in architecture:
            raise SlmxError(f"--scorer {path}: a GGUF of the kind {architecture[:40]!a}, which predicts no next token")
        self.context = min(MOST_TOKENS, int(metadata.get(f"{architecture}.context_length", MOST_TOKENS)))
        self._begins = metadata.get("tokenizer.ggml.add_bos_token") != "false"

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._model.tokenize(text.encode("utf-8", "replace"), add_bos=self._begins, special=False)
        return ids

    def logits(self, ids: Sequence[int]) -> LogitArray:
        self._model.reset()
        self._model.eval(list(ids))
        return np.array(self._model.scores[: len(ids)], np.float32)


class _HuggingFace:
    def __init__(self, folder: Path) -> None:
        import torch
        import transformers

        library: Any = transformers
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
        try:
            config = library.AutoConfig.from_pretrained(folder, local_files_only=True)
            kinds = getattr(config, "architectures", None) or []
            if not any(str(kind).endswith(HEADS) for kind in kinds):
                names = as_plain_text(", ".join(map(str, kinds)))[:60] or "no architecture"
                raise SlmxError(f"--scorer {folder}: its config.json names {names}, which predicts no next token")
            self._model = library.AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, dtype=torch.float32
            ).eval()
            self._tokenizer = library.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except SlmxError:
            raise
        except Exception as error:  # transformers raises errors of many kinds for a folder that it cannot read
            raise unreadable(f"--scorer {folder}", error, advice=DAMAGED) from None
        self._torch = torch
        self.context = min(MOST_TOKENS, int(getattr(config, "max_position_embeddings", MOST_TOKENS)))

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text)
        return ids[:-1] if ids and ids[-1] == self._tokenizer.eos_token_id else ids

    def logits(self, ids: Sequence[int]) -> LogitArray:
        with self._torch.inference_mode():
            found: LogitArray = self._model(self._torch.tensor([list(ids)])).logits[0].float().numpy()
        return found
