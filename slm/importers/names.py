"""What each program calls the weights of a decoder."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig

LAYER = re.compile(r"\.(\d{1,6})\.")
WTE, WPE, HEAD = "wte.weight", "wpe.weight", "lm_head.weight"
# Endings of the names of constants that programs stored among the weights: causal masks and rotary frequencies.
BUFFERS = (
    *(".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".attention.mask"),
    *(".inv_freq", "freqs_cos", "freqs_sin"),
)


@dataclass(frozen=True)
class Names:
    """The names of one program.

    Attributes:
        program: The program or format, for messages.
        weights: For each weight of `slm.model.GPT`, the weights of the program that it consists of, one above the
            other. `{}` is the number of a layer. Biases have the same names with `bias` in place of `weight`.
    """

    program: str
    weights: Mapping[str, tuple[str, ...]]

    def layers(self, names: Iterable[str]) -> int:
        """Returns the number of layers that tensors with these names have."""
        first = self.weights["h.{}.attn.c_attn.weight"][0]
        present = set(names)
        count = 0
        while first.format(count) in present:
            count += 1
        return count

    def score(self, names: Iterable[str]) -> int:
        """Returns how many of these names are weights of this program."""
        present = {LAYER.sub(".{}.", name) for name in names}
        return sum(part in present for parts in self.weights.values() for part in parts)

    def collect(
        self, tensors: Mapping[str, Tensor], config: GPTConfig, zero_biases: Collection[str], where: str
    ) -> dict[str, Tensor]:
        """Returns the weights with the names of GPT.

        Args:
            tensors: The program's weights, with matrices as [out, in].
            config: The shape. Its context may be shorter than the table of positions.
            zero_biases: Parts of a block, such as "attn.c_attn", whose biases the program does not have.
            where: The path, for messages.

        Raises:
            SlmxError: A weight is missing, is of another shape, or belongs to no part of the model.
        """
        try:
            with torch.device("meta"):
                wanted = {name: tuple(tensor.shape) for name, tensor in GPT(config).state_dict().items()}
        except RuntimeError:  # a product of sizes has more than 64 bits
            raise SlmxError(f"{where}: the shape of the model is too large for any memory; correct the shape") from None
        state, used = {}, {*self.weights[HEAD]} if config.tied else set()
        for name, shape in wanted.items():
            layer = LAYER.search(name)
            kind = "weight" if name.endswith(".weight") else "bias"
            template = LAYER.sub(".{}.", name).removesuffix(kind) + "weight"
            parts = [part.format(layer[1] if layer else "") for part in self.weights[template]]
            pairs = [(part.removesuffix("weight") + kind, part) for part in parts]
            may_lack = kind == "bias" and template.removeprefix("h.{}.").removesuffix(".weight") in zero_biases
            found = []
            for part, weight in pairs:
                if part in tensors:
                    found.append(tensors[part])
                    used.add(part)
                elif may_lack and weight in tensors:
                    found.append(torch.zeros(len(tensors[weight])))
                else:
                    raise SlmxError(f"{where}: holds no weight {part}; copy or download it again, whole")
            together = " + ".join(part for part, _ in pairs)
            try:
                tensor = torch.cat(found)
            except RuntimeError:
                raise SlmxError(f"{where}: {together} have different widths; correct the shape") from None
            if name == WPE and len(tensor) > config.block_size:
                tensor = tensor[: config.block_size]
            if tuple(tensor.shape) != shape:
                raise SlmxError(
                    f"{where}: {together} is {list(tensor.shape)}, and the shape of the model asks for {list(shape)}; "
                    "correct the shape"
                )
            state[name] = tensor.contiguous()
        if more := next((name for name in tensors if name not in used), None):
            raise SlmxError(
                f"{where}: holds a weight {more[:80]!a}, which slmx does not compute; docs/import.md lists what it does"
            )
        return state

    def divide(self, state: Mapping[str, Tensor], config: GPTConfig) -> dict[str, Tensor]:
        """Returns the weights of a GPT with the names of the program; the inverse of `collect`.

        Args:
            state: The weights of `slm.model.GPT`, with matrices as [out, in].
            config: The shape.
        """
        heads = [config.n_head, config.kv_heads, config.kv_heads]
        sizes = {"attn.c_attn": [count * config.head_dim for count in heads], "mlp.c_fc": [config.inner] * 2}
        found = {}
        for name, tensor in state.items():
            stem, _, kind = name.rpartition(".")
            layer = LAYER.search(name)
            parts = self.weights[f"{LAYER.sub('.{}.', f'{stem}.').removesuffix('.')}.weight"]
            whole = stem.removeprefix(f"h.{layer[1]}.") if layer else stem
            pieces = torch.split(tensor, sizes[whole]) if len(parts) > 1 else [tensor]
            for part, piece in zip(parts, pieces, strict=True):
                found[part.format(layer[1] if layer else "").removesuffix("weight") + kind] = piece.contiguous()
        return found


def _same(*names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in names}


GPT2 = Names(
    "GPT-2 or nanoGPT",
    _same(WTE, WPE, "ln_f.weight", HEAD, "h.{}.ln_1.weight", "h.{}.ln_2.weight")
    | _same("h.{}.attn.c_attn.weight", "h.{}.attn.c_proj.weight", "h.{}.mlp.c_fc.weight", "h.{}.mlp.c_proj.weight"),
)
GPT_NEO = Names(
    "GPT-Neo",
    {
        **GPT2.weights,
        "h.{}.attn.c_attn.weight": tuple(f"h.{{}}.attn.attention.{part}_proj.weight" for part in "qkv"),
        "h.{}.attn.c_proj.weight": ("h.{}.attn.attention.out_proj.weight",),
    },
)
LLAMA = Names(
    "Llama",
    {
        WTE: ("embed_tokens.weight",),
        "h.{}.ln_1.weight": ("layers.{}.input_layernorm.weight",),
        "h.{}.attn.c_attn.weight": tuple(f"layers.{{}}.self_attn.{part}_proj.weight" for part in "qkv"),
        "h.{}.attn.c_proj.weight": ("layers.{}.self_attn.o_proj.weight",),
        "h.{}.ln_2.weight": ("layers.{}.post_attention_layernorm.weight",),
        "h.{}.mlp.c_fc.weight": ("layers.{}.mlp.gate_proj.weight", "layers.{}.mlp.up_proj.weight"),
        "h.{}.mlp.c_proj.weight": ("layers.{}.mlp.down_proj.weight",),
        "ln_f.weight": ("norm.weight",),
        HEAD: (HEAD,),
    },
)
LLAMA2C = Names(
    "llama2.c",
    {
        WTE: ("tok_embeddings.weight",),
        "h.{}.ln_1.weight": ("layers.{}.attention_norm.weight",),
        "h.{}.attn.c_attn.weight": tuple(f"layers.{{}}.attention.w{part}.weight" for part in "qkv"),
        "h.{}.attn.c_proj.weight": ("layers.{}.attention.wo.weight",),
        "h.{}.ln_2.weight": ("layers.{}.ffn_norm.weight",),
        "h.{}.mlp.c_fc.weight": ("layers.{}.feed_forward.w1.weight", "layers.{}.feed_forward.w3.weight"),
        "h.{}.mlp.c_proj.weight": ("layers.{}.feed_forward.w2.weight",),
        "ln_f.weight": ("norm.weight",),
        HEAD: ("output.weight",),
    },
)
GGUF_LLAMA = Names(
    "a GGUF of a Llama",
    {
        WTE: ("token_embd.weight",),
        "h.{}.ln_1.weight": ("blk.{}.attn_norm.weight",),
        "h.{}.attn.c_attn.weight": tuple(f"blk.{{}}.attn_{part}.weight" for part in "qkv"),
        "h.{}.attn.c_proj.weight": ("blk.{}.attn_output.weight",),
        "h.{}.ln_2.weight": ("blk.{}.ffn_norm.weight",),
        "h.{}.mlp.c_fc.weight": ("blk.{}.ffn_gate.weight", "blk.{}.ffn_up.weight"),
        "h.{}.mlp.c_proj.weight": ("blk.{}.ffn_down.weight",),
        "ln_f.weight": ("output_norm.weight",),
        HEAD: ("output.weight",),
    },
)
GGUF_GPT2 = Names(
    "a GGUF of a GPT-2",
    {
        **GGUF_LLAMA.weights,
        WPE: ("position_embd.weight",),
        "h.{}.attn.c_attn.weight": ("blk.{}.attn_qkv.weight",),
        "h.{}.mlp.c_fc.weight": ("blk.{}.ffn_up.weight",),
    },
)
# GPT-Neo is not among them, because its weights do not tell which layers are local.
STATE_DICTS = (GPT2, LLAMA, LLAMA2C)


def recognize(names: Iterable[str], where: str) -> Names:
    """Finds the program whose names a state dictionary uses.

    Raises:
        SlmxError: The names are of none. The message says which one is the nearest and what it lacks.
    """
    names = list(names)
    best = max(STATE_DICTS, key=lambda known: known.score(names))
    template = {LAYER.sub(".{}.", name) for name in names}
    needed = [part for ours, parts in best.weights.items() for part in parts if ours not in (HEAD, WPE)]
    missing = [part for part in needed if part not in template]
    if missing:
        known = ", ".join(program.program for program in STATE_DICTS)
        raise SlmxError(
            f"{where}: its weights have the names of no model that slmx imports ({known}). The nearest is "
            f"{best.program}, but there is no {missing[0].format(0)}"
        )
    return best
