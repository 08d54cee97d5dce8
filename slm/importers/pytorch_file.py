"""Reads a file of `torch.save`: nanoGPT's ckpt.pt, llama2.c's .pt, or a plain state dictionary.

Only tensors and plain values are read (`weights_only=True`). Nothing else is unpickled, because that can run code.
"""

from __future__ import annotations

import pickle
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.checkpoint import refuse_infinite
from slm.console.errors import SlmxError, UsageError
from slm.console.notice import Log
from slm.importers.foreign import ForeignModel, with_context
from slm.importers.imported_tokenizer import ImportedTokenizer
from slm.importers.names import BUFFERS, GPT2, HEAD, LAYER, LLAMA, LLAMA2C, WPE, WTE, Names, recognize
from slm.importers.torch_file_check import check_torch_file
from slm.presets import SMALLEST_VOCABULARY, GPTConfig
from slm.storage.read_errors import reason_of

PREFIXES = ("_orig_mod.", "module.", "transformer.", "model.")
# Several names may have the same numbers, such as the token table and the head, but not many.
MOST_COPIES = 4
PLAIN = (bool, int, float, str)
NANOGPT_ARGS = ("n_layer", "n_embd", "block_size")


def read_pytorch(
    source: Path, read_tokenizer: Callable[[], ImportedTokenizer], given: Mapping[str, Any], log: Log
) -> ForeignModel:
    """Reads a file of torch.save.

    Args:
        source: The file.
        read_tokenizer: Returns the tokenizer, which the file does not hold, or raises SlmxError if none was given. It
            is called when the weights are known to be usable.
        given: What the user says of the shape: `n_head`, `block_size`, or any field of `GPTConfig`. It comes before
            what the file says.
        log: Called with one line about what the file does not tell.

    Raises:
        SlmxError: The file holds something other than tensors and plain values, or its weights are not of a model that
            slmx computes.
    """
    stored = load_tensors_only(source)
    args = stored.get("model_args")
    weights = stored.get("model", stored.get("state_dict", stored))
    if not isinstance(weights, Mapping) or not isinstance(args, Mapping | None):
        raise SlmxError(f"{source}: holds no weights of a model; save one with torch.save(model.state_dict(), FILE)")
    tensors = float_tensors(weights, source)
    names = recognize(tensors, str(source))
    gelu = "gelu"
    if names is GPT2 and _is_conv1d(_weight(tensors, "h.0.attn.c_attn.weight", source)):
        tensors, gelu = _as_linear(tensors), "gelu_tanh"
    plain = {name: value for name, value in (args or {}).items() if isinstance(value, PLAIN)}
    shape = _shape(names, tensors, plain, given, gelu, source)
    tokenizer = read_tokenizer()
    if names is GPT2 and "activation" not in given:
        kind, other = ("exact", "gelu_tanh") if gelu == "gelu" else ("tanh", "gelu")
        log(
            f"took the {kind} form of GELU, which the weights do not tell; if the model was trained with another "
            f'activation, import it again with --shape FILE, a file that holds {{"activation": "{other}"}}'
        )
    block_size = given.get("block_size")
    return ForeignModel(
        where=source,
        kind="gpt2" if names is GPT2 else "llama",
        config=with_context(shape, block_size if isinstance(block_size, int) else None, source),
        names=names,
        tensors=tensors,
        tokenizer=tokenizer,
        interleaved=names is LLAMA2C,
        record={"file": source.name},
        has_tokenizer=False,
    )


def load_tensors_only(source: Path) -> Mapping[str, Any]:
    """Reads a file of torch.save that holds tensors and plain values; SlmxError if it holds anything else."""
    try:
        check_torch_file(source)
        stored = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        path = shlex.quote(str(source))
        raise SlmxError(
            f"{source}: holds more than tensors and plain values, and reading that can run code. On a machine that "
            "trusts it, where the class of the model can be imported, this writes a file that slmx reads: "
            'python -c "import sys, torch; '
            "c = torch.load(sys.argv[1], map_location='cpu', weights_only=False); c = c if isinstance(c, dict) else "
            "{'model': c.state_dict()}; torch.save({k: c[k] for k in ('model', 'model_args') if k in c} or c, "
            f"'weights.pt')\" {path}"
        ) from None
    except Exception as error:  # torch's readers raise many kinds of exceptions for a damaged file
        raise SlmxError(f"{source}: not a whole file of torch.save ({reason_of(error)}); copy it again") from None
    if not isinstance(stored, Mapping):
        raise SlmxError(f"{source}: holds no weights of a model; save one with torch.save(model.state_dict(), FILE)")
    return stored


def float_tensors(weights: Mapping[Any, object], source: Path) -> dict[str, Tensor]:
    """Returns the weights of a state dictionary in float32, without the prefixes that wrappers put before names.

    Args:
        weights: The state dictionary.
        source: The file, for messages.

    Raises:
        SlmxError: A value is no float tensor, a tensor holds NaN or infinity, is larger than what is stored, or two
            have one name.
    """
    tensors: dict[str, Tensor] = {}
    left = MOST_COPIES * source.stat().st_size
    for key, value in weights.items():
        if not isinstance(key, str):
            raise SlmxError(f"{source}: a weight has no name; save the model's state_dict() alone")
        name = key
        while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
            name = name.removeprefix(prefix)
        if name.endswith(BUFFERS):
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point() or not _is_plain(value):
            raise SlmxError(f"{source}: {name[:80]!a} is no float tensor; save the model's state_dict() alone")
        left -= value.numel() * value.element_size()
        if left < 0:
            raise SlmxError(f"{source}: {name[:80]!a} is larger than what is stored; save the weights as they are")
        if name in tensors:
            raise SlmxError(f"{source}: holds {name[:80]!a} twice, with different prefixes; save one model alone")
        tensors[name] = value.float()
        refuse_infinite(source, name, tensors[name], "use weights from before the training went wrong")
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    """Returns whether a tensor has its numbers in memory: none of a sparse layout or without numbers."""
    return tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_nested


def _weight(tensors: Mapping[str, Tensor], name: str, source: Path) -> Tensor:
    """Returns a weight; SlmxError if there is none, or only a number."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dim() == 0:
        raise SlmxError(f"{source}: holds no weight {name}; copy it again, whole")
    return tensor


def _is_conv1d(qkv: Tensor) -> bool:
    """Returns whether matrices are [in, out], as in transformers' GPT-2. Those of nanoGPT are [out, in]."""
    return qkv.dim() == 2 and qkv.shape[1] == 3 * qkv.shape[0]


def _as_linear(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the matrices of a block turned around."""
    in_blocks = {name for name, tensor in tensors.items() if LAYER.search(f".{name}") and tensor.dim() == 2}
    return {name: tensor.t() if name in in_blocks else tensor for name, tensor in tensors.items()}


def _shape(
    names: Names,
    tensors: Mapping[str, Tensor],
    args: Mapping[str, Any],
    given: Mapping[str, Any],
    gelu: str,
    source: Path,
) -> GPTConfig:
    """Finds the shape from the weights, from the arguments that the program saved, and from what the user says."""
    stated = args.get("n_head", args.get("n_heads"))
    if stated is not None and given.get("n_head", stated) != stated:
        raise UsageError(f"{source}: has {str(stated)[:20]} heads, as its model_args say; leave out --n-head")
    unknown = [name for name in ("rope_theta", "norm_eps") if names is LLAMA and name not in given]
    if unknown:
        raise UsageError(
            f"{source}: the weights do not tell {' and '.join(unknown)}; add --shape FILE, a file with for example "
            '{"rope_theta": 10000.0, "norm_eps": 1e-6} (rope_theta and rms_norm_eps in the config.json of the model)'
        )
    table = _weight(tensors, names.weights[WTE][0], source)
    if table.dim() != 2:
        raise SlmxError(f"{source}: {names.weights[WTE][0]} is no table; it has {table.dim()} dimensions")
    if len(table) < SMALLEST_VOCABULARY:
        raise SlmxError(
            f"{source}: its token table has {len(table)} rows, fewer than {SMALLEST_VOCABULARY}, so its vocabulary is "
            "of single characters (nanoGPT's meta.pkl), which slmx cannot import; slmx prepare input.txt "
            "--out data/mine and slmx train --text data/mine --out runs/mine make a new model of its text"
        )
    up = _weight(tensors, names.weights["h.{}.mlp.c_fc.weight"][0].format(0), source)
    found: dict[str, Any] = {
        "vocab_size": table.shape[0],
        "n_embd": table.shape[1],
        "n_layer": names.layers(tensors),
        "n_inner": up.shape[0],
        "bias": names is GPT2 and any(name.endswith(".bias") for name in tensors),
        "tied": (head := tensors.get(names.weights[HEAD][0])) is None or torch.equal(head, table),
    }
    if names is GPT2:
        found |= {"block_size": len(_weight(tensors, WPE, source)), "n_head": args.get("n_head")}
        # nanoGPT has exact GELU, transformers' GPT-2 the tanh form.
        found["activation"] = gelu
    else:
        found |= {"gated": True, "norm": "rmsnorm", "activation": "silu", "rope_theta": 10000.0}
        found |= {"n_head": args.get("n_heads"), "block_size": args.get("max_seq_len")}
        found["norm_eps"] = args.get("norm_eps", 1e-5)
    for name in NANOGPT_ARGS:
        if name in args and args[name] != found[name]:
            raise SlmxError(
                f"{source}: its model_args say {name} {str(args[name])[:20]}, its weights {found[name]}; "
                "the file is of no one model"
            )
    found |= {name: value for name, value in given.items() if value is not None and name != "block_size"}
    if found["n_head"] is None:
        raise UsageError(f"{source}: the weights do not tell the number of attention heads; add --n-head N")
    if names is not GPT2 and isinstance(found["n_head"], int) and found["n_head"] > 0:
        parts = names.weights["h.{}.attn.c_attn.weight"][:2]
        queries, keys = (_weight(tensors, part.format(0), source) for part in parts)
        found.setdefault("head_size", max(1, len(queries) // found["n_head"]))
        found.setdefault("n_kv_head", len(keys) // found["head_size"])
    if found["block_size"] is None:
        found["block_size"] = given.get("block_size")
    if found["block_size"] is None:
        raise UsageError(f"{source}: the weights do not tell the context; add --block-size N")
    return GPTConfig.from_dict(found, str(source))
