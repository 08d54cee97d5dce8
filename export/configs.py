"""The small JSON files that other runtimes need to read a bundle.

`config.json`, `generation_config.json` and `tokenizer_config.json` describe the model for Hugging Face transformers and
the libraries that are built on it: as a Llama if it has rotary positions, as a GPT-Neo if it has windows, and otherwise
as a GPT-2. `genai_config.json` describes the ONNX graph for onnxruntime-genai, whose model type
"phi" is a plain decoder with position ids, an attention mask and one KV cache for each layer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from export.interop.registry import GENAI_FILE
from slm.presets import GPTConfig
from slm.storage.file_names import CONFIG_FILE
from slm.tokenizers.tokenizer import Tokenizer


def write_configs(folder: Path, config: GPTConfig, tokenizer: Tokenizer, model_file: str | None) -> None:
    """Writes the files.

    Args:
        folder: The folder of the bundle.
        config: The shape of the model.
        tokenizer: The tokenizer, which names the tokens that begin and end a story.
        model_file: The graph that onnxruntime-genai runs, relative to the folder; None if it can run none.
    """
    ids = {
        "bos_token_id": tokenizer.begin,
        "eos_token_id": tokenizer.end_of_text,
        "pad_token_id": tokenizer.end_of_text,
    }
    begin, end = tokenizer.settings.specials[-1], tokenizer.settings.end
    files: dict[str, dict[str, Any]] = {
        CONFIG_FILE: _hugging_face(config, ids),
        "generation_config.json": {
            **ids,
            "max_length": config.block_size,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.block_size,
            "model_input_names": ["input_ids", "attention_mask"],
            "bos_token": begin,
            "eos_token": end,
            "unk_token": end,
            "pad_token": end,
            "clean_up_tokenization_spaces": False,
        },
    }
    if model_file is not None:
        files[GENAI_FILE] = _genai(config, ids, model_file)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8", newline="\n")


# The names of transformers for the activation functions.
ACTIVATIONS = {"gelu_tanh": "gelu_new", "gelu": "gelu", "relu": "relu", "silu": "silu"}


def _hugging_face(config: GPTConfig, ids: dict[str, int]) -> dict[str, Any]:
    describe = {"GPT-2": _gpt2, "GPT-Neo": _gpt_neo, "Llama": _llama}
    return describe[config.family](config) | {
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied,
        "use_cache": True,
        **ids,
        "torch_dtype": "float32",
    }


def _gpt2(config: GPTConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner or None,
        "activation_function": ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
    }


def _gpt_neo(config: GPTConfig) -> dict[str, Any]:
    return {
        "model_type": "gpt_neo",
        "architectures": ["GPTNeoForCausalLM"],
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "num_layers": config.n_layer,
        "num_heads": config.n_head,
        "intermediate_size": config.inner,
        "activation_function": ACTIVATIONS[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "attention_types": [[["local" if window else "global"], 1] for window in config.windows],
        "window_size": max(config.windows),
    }


def _llama(config: GPTConfig) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": ACTIVATIONS[config.activation],
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        **({"attention_bias": True, "mlp_bias": True} if config.bias else {}),
    }


def _genai(config: GPTConfig, ids: dict[str, int], model_file: str) -> dict[str, Any]:
    return {
        "model": {
            "type": "phi",
            **ids,
            "context_length": config.block_size,
            "vocab_size": config.vocab_size,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": model_file,
                "head_size": config.head_dim,
                "hidden_size": config.n_embd,
                "num_attention_heads": config.n_head,
                "num_hidden_layers": config.n_layer,
                "num_key_value_heads": config.kv_heads,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "position_ids": "position_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "max_length": config.block_size,
            "past_present_share_buffer": True,
        },
    }
