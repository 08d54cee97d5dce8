"""optimum on onnxruntime: its own export of the weights, run by the `generate` method of Hugging Face.

Except for the threads, it has the default settings of onnxruntime. The settings of slmx do not make it faster.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.peers.hugging_face import Generate
from benchmarks.peers.hugging_face_folder import write_hugging_face_folder
from export.formats.suppress_output import suppress_output
from slm.checkpoint import load_checkpoint


def prepare(checkpoint: Path, bundle: Path, folder: Path) -> None:
    """Exports the weights with optimum."""
    with tempfile.TemporaryDirectory() as work, suppress_output():
        from optimum.exporters.onnx import main_export

        write_hugging_face_folder(load_checkpoint(checkpoint), Path(work))
        main_export(
            work,
            folder,
            task="text-generation-with-past",
            library_name="transformers",
            do_validation=False,
            local_files_only=True,
        )


def open_peer(folder: Path, threads: int) -> Generate:
    """Loads the export of optimum into onnxruntime."""
    with suppress_output():
        from optimum.onnxruntime import ORTModelForCausalLM
        from optimum.onnxruntime.modeling import SessionOptions

        torch.set_num_threads(threads)
        options = SessionOptions()
        options.intra_op_num_threads = threads
        model = ORTModelForCausalLM.from_pretrained(folder, session_options=options, local_files_only=True)
    return Generate(model, threads)
