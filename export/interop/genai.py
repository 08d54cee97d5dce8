"""onnxruntime-genai on a bundle. Its loop is in C++.

It reads one graph, which genai_config.json names. For another variant it needs a folder of its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnxruntime_genai as genai

from export.interop.registry import FATAL_ONLY, GENAI_FILE, Greedy
from runtimes.bundle.store import Bundle
from runtimes.bundle.variants import VARIANTS
from slm.console.errors import SlmxError
from slm.storage.json_reader import Fields, parse_json
from slm.tokenizers.tokenizer import Tokenizer

MODEL_FILE = "model.onnx"
NEVER_IN_UTF_8 = b"\xff"


def write_folder(bundle: Bundle, variant: str, folder: Path) -> None:
    """Writes the files that onnxruntime-genai reads for one variant of a bundle.

    The configuration is that of the bundle with an end token that no text has, so it does not stop. Without an end
    token, onnxruntime-genai 0.18 stops at id 0. A cache that grows is no shared buffer. Only the description of the
    graph is kept. Other parts can name libraries and files outside the bundle.

    Args:
        bundle: The bundle.
        variant: The variant.
        folder: Where `GENAI_FILE` and `MODEL_FILE` are written.

    Raises:
        SlmxError: The bundle does not have the variant, or its configuration lacks a part.
    """
    try:
        shared = VARIANTS[bundle.choose(variant)].shared_cache
        config = _adapt(Fields(parse_json(bundle.read(GENAI_FILE))), shared, _unused_token(bundle.tokenizer()))
    except ValueError as error:
        raise SlmxError(f"{bundle.store.location(GENAI_FILE)}: {error}; export it again") from None
    (folder / MODEL_FILE).write_bytes(bundle.model_bytes(variant))
    (folder / GENAI_FILE).write_text(json.dumps(config, indent=1), "utf-8", newline="\n")


def _unused_token(tokenizer: Tokenizer) -> int:
    """Returns the id of a byte that UTF-8 never uses, or else the last id."""
    ids = range(tokenizer.vocab_size)
    return next((token for token in ids if tokenizer.token_bytes(token) == NEVER_IN_UTF_8), ids[-1])


def _adapt(stored: Fields, shared_cache: bool, end: int) -> dict[str, Any]:
    model, search = stored.object("model"), stored.object("search")
    decoder = model.object("decoder")
    names = {part: _plain_values(decoder.object(part)) for part in ("inputs", "outputs")}
    options = {"log_id": "onnxruntime-genai", "log_severity_level": FATAL_ONLY}
    graph = {"filename": MODEL_FILE, "session_options": options}
    ends = {"eos_token_id": end, "pad_token_id": end}
    return {
        "model": _plain_values(model) | ends | {"decoder": _plain_values(decoder) | names | graph},
        "search": _plain_values(search) | {"do_sample": False, "past_present_share_buffer": shared_cache},
    }


def _plain_values(fields: Fields) -> dict[str, object]:
    """Returns the values that are neither objects nor lists."""
    values = {name: fields.value(name) for name in fields}
    return {name: value for name, value in values.items() if not isinstance(value, dict | list)}


def open_variant(bundle: Bundle, variant: str, folder: Path) -> Greedy:
    """Opens a variant; see `OpenVariant`. onnxruntime-genai raises its own errors."""
    write_folder(bundle, variant, folder)
    model = genai.Model(str(folder))

    def greedy(prompt: list[int], new_tokens: int) -> list[int]:
        generator = genai.Generator(model, genai.GeneratorParams(model))
        generator.append_tokens(prompt)
        for _ in range(new_tokens):
            generator.generate_next_token()
        ids: list[int] = generator.get_sequence(0).tolist()[len(prompt) :]
        return ids

    return greedy
