"""The files that describe a bundle for transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

from export.configs import write_configs
from slm.presets import GPTConfig
from slm.tokenizers.listed import load_listed
from tests.shapes import ARCHITECTURES, LLAMA

hugging_face: Any = transformers  # its classes are not typed


@pytest.mark.parametrize(
    "config",
    [LLAMA, ARCHITECTURES["llama with grouped heads"], replace(LLAMA, bias=True)],
    ids=["llama", "grouped heads", "biases"],
)
def test_transformers_makes_a_llama_of_as_many_weights(
    config: GPTConfig, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    tokenizer = load_listed(tiny_checkpoint).tokenizer
    config = replace(config, vocab_size=tokenizer.vocab_size)
    write_configs(tmp_path, config, tokenizer, None)
    model = hugging_face.LlamaForCausalLM(hugging_face.AutoConfig.from_pretrained(tmp_path))
    assert sum(parameter.numel() for parameter in model.parameters()) == config.parameters
