"""The readers of `slmx import`, with small whole files of each kind."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.peers.gguf_file import write_gguf
from slm.checkpoint import Checkpoint, load_checkpoint
from slm.importers.importer import ImportSettings, import_model
from slm.importers.llama2c_tokenizer import FIRST, llama2c_tokenizer
from slm.importers.names import GPT2, LLAMA2C
from slm.model import GPT
from slm.presets import as_architecture
from slm.storage.file_names import JSON_FILE, WEIGHTS_FILE
from tests.reliability.model_readers import small_checkpoint
from tests.reliability.reader import Make, Reader

HUGGING_FACE = {"model_type": "gpt2", "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 1}


def _imported(home: Path, source: Path, file: Path, seed: bytes, is_json: bool = False, **options: Any) -> Reader:  # noqa: ANN401
    """The reader of a file of a source that is imported as a whole."""
    file.write_bytes(seed)

    def read(content: bytes) -> object:
        file.write_bytes(content)
        return import_model(ImportSettings(str(source), home / "out", force=True, **options), lambda line: None)

    return Reader([seed], read, is_json)


def _original(home: Path) -> Checkpoint:
    return load_checkpoint(small_checkpoint(home / "checkpoint"))


def _torch_file(home: Path) -> Reader:
    original = _original(home)
    args = {"n_layer": 1, "n_head": 1, "n_embd": 8, "block_size": 8}
    path = home / "ckpt.pt"
    state = GPT2.divide(original.model.state_dict(), original.model.config)
    torch.save({"model": {f"_orig_mod.transformer.{name}": t for name, t in state.items()}, "model_args": args}, path)
    reader = _imported(home, path, path, path.read_bytes(), tokenizer=original.folder)
    torch.save({"model": state, "model_args": args}, home / "old", _use_new_zipfile_serialization=False)
    return Reader([*reader.seeds, (home / "old").read_bytes()], reader.read)


def _gguf(home: Path) -> Reader:
    path = home / "model.gguf"
    write_gguf(_original(home), path, "F32")
    return _imported(home, path, path, path.read_bytes())


def _llama2c(home: Path) -> Reader:
    original = _original(home)
    config = as_architecture(original.model.config, "llama")
    state = LLAMA2C.divide(GPT(config).state_dict(), config)
    parts = ("attention_norm", "ffn_norm", "", "", *(f"attention.{n}" for n in ("wq", "wk", "wv", "wo")))
    order = [f"layers.0.{part}.weight" for part in (*parts, *(f"feed_forward.w{n}" for n in (1, 2, 3)))]
    order[2:4] = ["norm.weight", "tok_embeddings.weight"]
    head = struct.pack("<Ii7iB", 0x616B3432, 1, 8, config.inner, 1, 1, 1, config.vocab_size, 8, True).ljust(256, b"\0")
    seed = head + b"".join(state[name].detach().contiguous().numpy().tobytes() for name in order)
    path = home / "model.bin"
    return _imported(home, path, path, seed, tokenizer=original.folder)


def _llama2c_tokenizer(home: Path) -> Reader:
    path = home / "tokenizer.bin"
    tokens = [*FIRST, "t", "h", "th", " the", "he", "e", " "]
    entries = [struct.pack("<fi", -float(n), len(raw)) + raw for n, raw in enumerate(t.encode() for t in tokens)]

    def read(content: bytes) -> object:
        path.write_bytes(content)
        return llama2c_tokenizer(path)

    return Reader([struct.pack("<i", 9) + b"".join(entries)], read)


def _hugging_face(name: str, is_json: bool) -> Make:
    """The reader of a file of a Hugging Face folder."""

    def make(home: Path) -> Reader:
        original, folder = _original(home), home / "folder"
        folder.mkdir()
        state = GPT2.divide(original.model.state_dict(), original.model.config)
        turned = {n: t.t() if ".c_" in n and t.dim() == 2 else t for n, t in state.items()}
        save_file({f"transformer.{n}": t.detach().contiguous() for n, t in turned.items()}, folder / WEIGHTS_FILE)
        tokens = {"vocab_size": original.tokenizer.vocab_size, "eos_token_id": original.tokenizer.end_of_text}
        (folder / "config.json").write_text(json.dumps(HUGGING_FACE | tokens), "utf-8")
        (folder / JSON_FILE).write_bytes((original.folder / JSON_FILE).read_bytes())
        return _imported(home, folder, folder / name, (folder / name).read_bytes(), is_json)

    return make


FOREIGN_READERS: dict[str, Make] = {
    "import-pt": _torch_file,
    "import-gguf": _gguf,
    "import-bin": _llama2c,
    "import-tokenizer-bin": _llama2c_tokenizer,
    "import-config": _hugging_face("config.json", is_json=True),
    "import-tokenizer-json": _hugging_face(JSON_FILE, is_json=True),
    "import-weights": _hugging_face(WEIGHTS_FILE, is_json=False),
}
