"""A bundle that is whole, but whose graph does not fit its manifest, does not run, neither alone nor in a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, helper, numpy_helper

from export.formats.portable import export_portable
from runtimes.bundle.shape import SHAPE_KEY
from runtimes.bundle.store import Bundle
from runtimes.engine.cache import LOGITS_TO_KEEP
from runtimes.engine.session import Session
from slm.console.errors import SlmxError
from tests import bundles
from tests.bundles import Slmx

Attack = Callable[[ModelProto], dict[str, int]]


def renamed(model: ModelProto, output: str) -> str:
    """Gives an output another name, so that another node can make it; returns the new name."""
    node = next(node for node in model.graph.node if output in node.output)
    node.output[list(node.output).index(output)] = "true"
    return "true"


def more_logits(model: ModelProto) -> dict[str, int]:
    model.graph.node.append(helper.make_node("Concat", [renamed(model, "logits")] * 2, ["logits"], axis=2))
    return {}


def wider_cache(model: ModelProto) -> dict[str, int]:
    name = "present.0.key"
    model.graph.node.append(helper.make_node("Concat", [renamed(model, name)] * 2, [name], axis=3))
    return {}


def longer_cache(model: ModelProto) -> dict[str, int]:
    name = "present.0.key"
    model.graph.node.append(helper.make_node("Concat", [renamed(model, name)] * 2, [name], axis=2))
    return {}


def longer_context(model: ModelProto) -> dict[str, int]:
    """As in format 2, whose graphs do not hold their shape."""
    kept = [entry for entry in model.metadata_props if entry.key != SHAPE_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return {"block_size": 2**17}


def position_elsewhere(model: ModelProto) -> dict[str, int]:
    """The graph states more positions in the cache than the cache has room for."""
    model.graph.initializer.append(numpy_helper.from_array(np.full(1, 2**30, np.int32), "elsewhere"))
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":
            node.input[5] = "elsewhere"
    return {}


@pytest.fixture
def attacked(tiny_checkpoint: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A bundle after an attack, with hashes and a digest that are right."""
    attack: Attack = request.param
    bundle = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "story")
    opened = Bundle.open(bundle)
    shape = json.loads((bundle / "manifest.json").read_text("utf-8"))["shape"]
    for variant in opened.variants:
        file = opened.manifest.variants[variant].file
        model = onnx.load(bundle / file)
        changed = attack(model)
        onnx.save_model(model, bundle / file)
        bundles.list_again(bundle, file)
    bundles.edit_manifest(bundle, shape=shape | changed)
    return bundle


@pytest.mark.parametrize("attacked", [more_logits, wider_cache], indirect=True)
def test_a_graph_that_does_not_fit_its_manifest_never_runs(
    attacked: Path, slmx: Slmx, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")

    def run(*_: object) -> None:
        raise AssertionError("the graph ran")

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", run)
    alone = slmx.refuses("generate", "Once", "--bundle", attacked)
    assert "as the manifest says" in alone
    assert slmx.refuses("serve", attacked, "--port", "0") == alone


@pytest.mark.parametrize("attacked", [longer_cache, longer_context, position_elsewhere], indirect=True)
def test_what_shows_only_when_it_runs_ends_its_story_and_not_the_server(attacked: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs the extra [serve]")
    from tests.runtimes.serve.servers import serving

    for variant in Bundle.open(attacked).variants:
        with serving(attacked, variant=variant) as served:
            for stories in (1, 3):
                asked = {"prompt": "Once upon a time", "n": stories, "max_tokens": 100, "ignore_eos": True}
                response = served.http.post("/v1/completions", json=asked)
                assert (response.status_code, response.json()["error"]["code"]) == (500, "model_error")
                assert "onnxruntime" in response.json()["error"]["message"]
            assert served.http.get("/healthz").status_code == 200


def test_a_graph_of_standard_operators_that_gives_no_logits_is_refused_in_one_line(tmp_path: Path) -> None:
    """Its outputs have no buffer whose size onnxruntime could compare."""
    model, _ = bundles.small_graph()
    path = tmp_path / "portable.onnx"
    export_portable(model, path)
    graph = onnx.load(path)
    (kept,) = (tensor for tensor in graph.graph.initializer if tensor.name == LOGITS_TO_KEEP)
    kept.CopyFrom(numpy_helper.from_array(np.full(1, -1000, np.int64), LOGITS_TO_KEEP))
    onnx.save_model(graph, path)
    session = Session.open(path, model.config)
    with pytest.raises(SlmxError, match=r"^logits \[1, 0, 300\] for 1 position: export the bundle again"):
        session.step(1)
