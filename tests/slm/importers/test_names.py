"""What a program calls the weights of a model leads to the same weights and back."""

from __future__ import annotations

import pytest
import torch

from slm.importers.names import GGUF_GPT2, GGUF_LLAMA, GPT2, GPT_NEO, LLAMA, LLAMA2C, Names
from tests.bundles import random_model
from tests.shapes import ARCHITECTURES

WITH_POSITIONS = ("gpt2", "gpt2 of other options", "neo")
ROTARY = ("llama", "llama with grouped heads")
CASES = [(names, arch) for names in (GPT2, GPT_NEO, GGUF_GPT2) for arch in WITH_POSITIONS]
CASES += [(names, arch) for names in (LLAMA, LLAMA2C, GGUF_LLAMA) for arch in ROTARY]


@pytest.mark.parametrize(("names", "arch"), CASES, ids=[f"{names.program}, {arch}" for names, arch in CASES])
def test_divided_weights_come_back(names: Names, arch: str) -> None:
    config = ARCHITECTURES[arch]
    state = random_model(config).state_dict()
    divided = names.divide(state, config)
    assert names.layers(divided) == config.n_layer
    back = names.collect(divided, config, (), "a model")
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)
