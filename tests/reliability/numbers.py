"""Numbers that cannot be computed with are found before they are used, and int8 loses none by saturation."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper, numpy_helper

from export.checks.saturation import count_saturation
from export.formats.float16 import LARGEST, store_float16
from export.formats.fused import export_onnx
from export.formats.quantize import quantize_int8
from export.formats.recipes import RECIPE_NAMES, get_recipe
from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.denormals import count_denormals
from slm.importers.importer import ImportSettings, import_model
from slm.model import GPT
from tests.reliability.formats import FROZEN
from tests.reliability.outcome import Check, Outcome

BAD = (float("nan"), float("inf"), float("-inf"))
BEYOND_FLOAT16 = (np.nextafter(np.float32(LARGEST), np.float32(np.inf)), -70000.0, 3e38)
DEPTHS = (16, 128, 1024, 4096)
ROWS, WIDTH, MOST = (1, 8), 32, 255  # of products of unsigned 8-bit numbers
PLACES = {True: 1, False: 20}  # the places in each tensor that get a bad number, in the short form and the whole one


def refusal(act: Callable[[], object], name: str) -> str | None:
    """Returns what is wrong if an action is not refused in one line that holds a name."""
    try:
        act()
    except SlmxError as error:
        told = str(error)
        return None if name in told and "\n" not in told else f"refused with {told!r}, which does not name {name}"
    return f"{name} was accepted"


def spoilt(model: GPT, places: int) -> Iterator[tuple[str, int, float]]:
    """Yields a tensor, a place in it and a value, while the model has this value there."""
    dice = random.Random(0)
    for name, tensor in model.state_dict().items():
        flat = tensor.view(-1)
        for place in dice.sample(range(flat.numel()), min(places, flat.numel())):
            before = float(flat[place])
            for value in BAD:
                flat[place] = value
                yield name, place, value
            flat[place] = before


def bad_weights(found: Checkpoint, work: Path, places: int, outcome: Outcome) -> None:
    """Puts NaN and infinity into each tensor of a checkpoint and of a file of torch.save."""
    folder, file = work / "checkpoint", work / "weights.pt"
    folder.mkdir()
    settings = ImportSettings(
        str(file), work / "imported", FROZEN / "checkpoint-1", n_head=found.model.config.n_head, force=True
    )
    torch.save(found.model.state_dict(), file)
    import_model(settings, lambda line: None)  # without a bad number nothing is refused
    for name, place, value in spoilt(found.model, places):
        save_checkpoint(folder, found.preset, found.model, found.tokenizer, found.merges, found.record)
        torch.save(found.model.state_dict(), file)
        actions: dict[str, Callable[[], object]] = {
            "export": lambda: load_checkpoint(folder),
            "import": lambda: import_model(settings, lambda line: None),
        }
        for what, act in actions.items():
            outcome.tried += 1
            if (wrong := refusal(act, name)) is not None:
                outcome.failures.append(f"{what}, {value} at {place} of {name}: {wrong}")


def denormals(model: GPT, outcome: Outcome) -> None:
    """Puts denormal numbers into each tensor and counts them."""
    for name, tensor in model.state_dict().items():
        there = tensor.clone().view(-1)
        expected = min(there.numel(), 7)
        there[:expected] = torch.tensor([1e-39, -1e-45] * 4)[:expected]
        outcome.tried += 1
        if (counted := count_denormals(there)) != expected:
            outcome.failures.append(f"{name}: {counted} denormal weights counted, not {expected}")


def beyond_float16(graph: Path, work: Path, outcome: Outcome) -> None:
    """Puts the largest number of float16, and larger ones, into each matrix and table."""
    model = onnx.load(graph)
    source, target = work / "beyond.onnx", work / "half.onnx"
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) != 2:
            continue
        before = tensor.SerializeToString()
        values = numpy_helper.to_array(tensor).copy()
        for value in (LARGEST, *BEYOND_FLOAT16):
            values[-1, -1] = value
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            onnx.save_model(model, source)
            outcome.tried += 1
            if value == LARGEST:
                store_float16(source, target)
            elif (wrong := refusal(lambda: store_float16(source, target), tensor.name)) is not None:
                outcome.failures.append(f"--fp16, {value} in {tensor.name}: {wrong}")
        tensor.ParseFromString(before)


def saturation(graph: Path, work: Path, outcome: Outcome) -> None:
    """Counts the weights that each recipe of int8 cuts, and multiplies the largest unsigned numbers."""
    for name in RECIPE_NAMES:
        quantize_int8(graph, work / "int8.onnx", get_recipe(name))
        found = count_saturation(graph, work / "int8.onnx")
        outcome.tried += 1
        outcome.figures[f"{name}, share of weights at the ends"] = found.at_ends / found.weights
        if found.clipped:
            outcome.failures.append(f"{name} cuts {found.clipped} of {found.weights} weights")
    for depth in DEPTHS:
        session = ort.InferenceSession(product(depth).SerializeToString(), providers=["CPUExecutionProvider"])
        for rows in ROWS:
            (sums,) = session.run(None, {"a": np.full((rows, depth), MOST, np.uint8)})
            outcome.tried += 1
            if not (sums == MOST * MOST * depth).all():
                outcome.failures.append(
                    f"a product of {rows} x {depth} unsigned numbers is not exact on this processor"
                )


def product(depth: int) -> onnx.ModelProto:
    """Returns a model that multiplies `a`, uint8 [rows, depth], by weights of the largest number."""
    weights = numpy_helper.from_array(np.full((depth, WIDTH), MOST, np.uint8), "b")
    a = helper.make_tensor_value_info("a", TensorProto.UINT8, ["rows", depth])
    sums = helper.make_tensor_value_info("sums", TensorProto.INT32, ["rows", WIDTH])
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["sums"])], "product", [a], [sums], [weights]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def run(quick: bool, log: Log) -> Outcome:
    """Tries all of them on the frozen checkpoint."""
    outcome = Outcome(0, "numbers in weights")
    found = load_checkpoint(FROZEN / "checkpoint-1")
    with tempfile.TemporaryDirectory() as name, torch.no_grad():
        work = Path(name)
        graph = work / "model.onnx"
        export_onnx(found.model, graph)
        log("NaN and infinity in a checkpoint and in a file that is imported")
        bad_weights(found, work, PLACES[quick], outcome)
        log("denormal weights, numbers beyond float16, saturation of int8")
        denormals(found.model, outcome)
        beyond_float16(graph, work, outcome)
        saturation(graph, work, outcome)
    return outcome


CHECKS = {
    "numbers": Check(
        "NaN, infinity and numbers beyond float16 in weights are refused by name, denormal ones are counted, and int8 "
        "cuts no weight and saturates in no product",
        run,
    )
}
