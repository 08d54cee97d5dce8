"""The names of files in checkpoints, training runs, data sets, bundles and folders of Hugging Face."""

from __future__ import annotations

CONFIG_FILE = "config.json"  # of a checkpoint, a bundle and a folder of Hugging Face
WEIGHTS_FILE = "model.safetensors"
RANKS_FILE = "tokenizer.tiktoken"
JSON_FILE = "tokenizer.json"
RECORD_FILE = "training.json"
RUN_FILE = "run.json"
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.json"
