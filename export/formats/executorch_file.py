"""Writes the model as a program of executorch, PyTorch's runtime for phones.

The program takes input_ids int64 [1, sequence] and then the past keys and values [1, kv_heads, past, head_dim], the key
of a layer before its value. The past may be empty. It returns logits [1, sequence, vocab], and the present keys and
values in the same order. XNNPACK computes what it can, in float32, and executorch's own operators the rest.
"""

from __future__ import annotations

from pathlib import Path

import torch

from export.formats.suppress_output import suppress_output
from export.formats.torch_files import CachedGPT
from slm.model import GPT

EXECUTORCH_FILE = "mobile/model.pte"


def export_executorch(model: GPT, path: Path) -> None:
    """Writes a .pte file. It needs the package executorch."""
    from executorch.backends.xnnpack.partition.config import ALL_PARTITIONER_CONFIGS
    from executorch.backends.xnnpack.partition.config.generic_node_configs import GeluConfig
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    config = model.config
    # XNNPACK computes the exact GELU, also for models of the tanh form. executorch's own operator knows both.
    configs = [known for known in ALL_PARTITIONER_CONFIGS if known is not GeluConfig]
    sequence = torch.export.Dim("sequence_length", max=config.block_size)
    past = torch.export.Dim("past_sequence_length", min=0, max=config.block_size)
    shapes = {"input_ids": {1: sequence}, "past": [{2: past} for _ in range(2 * config.n_layer)]}
    cache = [torch.zeros(1, config.kv_heads, 4, config.head_dim) for _ in range(2 * config.n_layer)]
    inputs = (torch.ones(1, 3, dtype=torch.int64), cache)
    with suppress_output():
        program = torch.export.export(CachedGPT(model).eval(), inputs, dynamic_shapes=shapes)
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner(configs)])
        path.write_bytes(lowered.to_executorch().buffer)
