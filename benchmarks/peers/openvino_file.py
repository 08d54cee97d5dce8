"""Writes a checkpoint as an OpenVINO model. It is traced from PyTorch, and the runtime keeps the KV cache.

Each cache input becomes a state. The CPU plugin of OpenVINO joins cache and attention into one operator only if a
Gather by `beam_idx` follows the state, and if the state starts empty, [1, heads, 0, head_dim] (optimum-intel,
optimum/exporters/openvino/stateful.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as ops
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import Tensor, nn

from export.formats.suppress_output import suppress_output
from export.formats.torch_files import CachedGPT
from runtimes.bundle.shape import cache_names
from slm.model import GPT
from slm.presets import GPTConfig

# The input with the number of the row that each row continues.
BEAM = "beam_idx"


class _LastLogits(nn.Module):
    """CachedGPT with one argument for each part of the cache, and logits only of the last position."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.inner = CachedGPT(model)

    def forward(self, input_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        logits, present = self.inner(input_ids, list(past))
        return logits[:, -1:], *present


def write_openvino(model: GPT, path: Path) -> None:
    """Writes `path`, an .xml file, and next to it a .bin file with the float32 weights."""
    config = model.config
    cache = [torch.zeros(1, config.kv_heads, 4, config.head_dim) for _ in range(2 * config.n_layer)]
    with suppress_output(), torch.inference_mode():
        example = (torch.ones(1, 3, dtype=torch.int64), *cache)
        graph = ov.convert_model(_LastLogits(model).eval(), example_input=example)
    past, present = cache_names(config.n_layer)
    for port, name in zip(graph.inputs, ("input_ids", *past), strict=True):
        port.get_tensor().set_names({name})
    for port, name in zip(graph.outputs, ("logits", *present), strict=True):
        port.get_tensor().set_names({name})
    _make_stateful(graph, config, past, present)
    ov.save_model(graph, path, compress_to_fp16=False)


def _make_stateful(graph: ov.Model, config: GPTConfig, past: list[str], present: list[str]) -> None:
    cache = ov.PartialShape([1, config.kv_heads, -1, config.head_dim])
    graph.reshape({port: cache if port.any_name in past else ov.PartialShape([1, -1]) for port in graph.inputs})
    beam = ops.parameter([-1], dtype=np.int32, name=BEAM)
    beam.output(0).get_tensor().add_names({BEAM})
    axis = ops.constant(np.int64(0))
    for name in past:
        port = graph.input(name)
        readers = port.get_target_inputs()
        chosen = ops.gather(port, beam, axis)
        for reader in readers:
            reader.replace_source_output(chosen.output(0))
    graph.add_parameters([beam])
    graph.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(graph, dict(zip(past, present, strict=True)))
    empty = ops.constant(np.zeros((1, config.kv_heads, 0, config.head_dim), np.float32))
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            node.set_arguments([empty])
    graph.validate_nodes_and_infer_types()
