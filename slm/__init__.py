"""The language model: presets, tokenizer, corpus, GPT, training, checkpoints, evaluation, command line."""

__version__ = "0.1.0"
