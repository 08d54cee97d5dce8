"""Writes the .ort format of onnxruntime's mobile builds, and the list of operators that such a build needs."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnxruntime as ort
from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

from export.formats.suppress_output import suppress_output

WARNING, ERROR = 2, 3  # onnxruntime's log levels; it warns that num_logits_to_keep can be overridden
OPERATORS_SUFFIX = ".required_operators.config"


def export_mobile(source: Path, target: Path) -> None:
    """Writes an ONNX model as .ort, and beside it the operators that a minimal build of onnxruntime must include.

    onnxruntime's optimizations are applied, except those for one kind of processor. A file that was made on x86 then
    runs on ARM. The list of operators is for `build.sh --include_ops_by_config`.

    Args:
        source: The ONNX file.
        target: The .ort file to write. The list has the same stem and ends in `OPERATORS_SUFFIX`.
    """
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "in").mkdir()
        shutil.copyfile(source, work / "in" / f"{target.stem}.onnx")
        ort.set_default_logger_severity(ERROR)
        try:
            with suppress_output():
                convert_onnx_models_to_ort(work / "in", work / "out", [OptimizationStyle.Fixed])
        finally:
            ort.set_default_logger_severity(WARNING)
        shutil.copyfile(work / "out" / target.name, target)
        (config,) = (work / "out").glob("*.config")
        lines = config.read_text("utf-8").splitlines()
        operators = [line for line in lines if not line.startswith("#")]
        target.with_name(target.stem + OPERATORS_SUFFIX).write_text("\n".join(operators) + "\n", "utf-8", newline="\n")
