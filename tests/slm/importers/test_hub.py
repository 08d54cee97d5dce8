"""`slmx import OWNER/NAME` reads a model of another program from the hub, as `slmx pull` brings a bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer as HFTokenizer

from slm.checkpoint import load_checkpoint
from tests.bundles import snapshot
from tests.hubs import NAME, NANO, Client, files_of
from tests.runtimes.hub.hub_server import Hub
from tests.slm.importers import models

pytestmark = pytest.mark.slow
MODEL = "someone/model"


@pytest.fixture
def folder(tokenizer: HFTokenizer, tmp_path: Path) -> Path:
    """The Hugging Face folder that the hub holds."""
    return models.save(models.gpt2(tokenizer.get_vocab_size()), tokenizer, tmp_path / "hf")


@pytest.mark.heavy
def test_a_model_of_the_hub_is_the_one_of_its_folder(hub: Hub, client: Client, folder: Path) -> None:
    other = {"pytorch_model.bin": b"pickled", "onnx/model.safetensors": b"of another program", "flax.msgpack": b"f"}
    hub.add(MODEL, files_of(folder) | other)
    client.works("import", MODEL, "--out", "mine")
    assert set(hub.asked()) == set(files_of(folder)) - {"generation_config.json"}
    commit = hub.repositories[MODEL].branches["main"]
    assert load_checkpoint(client.here / "mine").record["imported"]["repository"] == f"{MODEL}@{commit}"
    client.works("import", folder, "--out", "same")
    weights = "model.safetensors"
    assert snapshot(client.here / "mine")[weights] == snapshot(client.here / "same")[weights]
    hub.requests.clear()
    client.works("import", f"{MODEL}@{commit}", "--out", "again", HF_HUB_OFFLINE="1")
    assert hub.requests == []
    assert snapshot(client.here / "again")[weights] == snapshot(client.here / "mine")[weights]


def test_pickled_weights_are_asked_for_only_if_there_are_no_others(hub: Hub, client: Client, folder: Path) -> None:
    files = {name: content for name, content in files_of(folder).items() if name != "model.safetensors"}
    hub.add(MODEL, files | {"pytorch_model.bin": b"pickled"})
    line = client.refuses("import", MODEL, "--out", "mine")
    assert "pytorch_model.bin: " in line
    assert hub.asked("GET")[-1] == "pytorch_model.bin"


@pytest.mark.heavy
def test_what_cannot_be_imported_is_one_line(hub: Hub, client: Client) -> None:
    assert client.refuses("import", NAME, "--out", "mine") == (
        f"{NAME}: a bundle of slmx, which needs no import: slmx pull {NAME} brings it"
    )
    hub.add(MODEL, {"README.md": b"nothing"})
    assert client.refuses("import", MODEL, "--out", "mine") == (
        f"{MODEL}: no config.json in this repository; it is no model for slmx import"
    )
    assert client.refuses("import", "a/b", "--out", "mine") == (
        f"a/b: {hub.address} has no such repository, or it is private: check the name, or log in with: hf auth login"
    )
    assert client.refuses("import", "a/b", "--out", "mine", HF_ENDPOINT="http://127.0.0.1:9") == (
        "a/b: no such path here, and http://127.0.0.1:9 cannot be reached, and the cache holds no copy of it; "
        "check the connection, and HF_ENDPOINT if it is set"
    )


def test_a_file_that_is_cut_continues(hub: Hub, client: Client, folder: Path) -> None:
    hub.add(MODEL, files_of(folder))
    hub.faults.cut["model.safetensors"], hub.faults.cuts_left = 5000, 1
    client.works("import", MODEL, "--out", "mine")
    assert hub.asked("GET").count("model.safetensors") == 2


def test_files_of_the_bundle_are_not_a_model(hub: Hub, client: Client) -> None:
    hub.add(MODEL, files_of(NANO) | {"model.safetensors": b"{}"})
    assert client.refuses("import", MODEL, "--out", "mine")


@pytest.mark.heavy
def test_a_mistyped_path_does_not_ask_the_hub(hub: Hub, client: Client) -> None:
    (client.here / "models" / "smol").mkdir(parents=True)
    said = "models/smoll: no such file or folder (did you mean models/smol?); hub:models/smoll is the name on the hub"
    assert client.refuses("import", "models/smoll", "--out", "x") == said
    assert "models/smol.gguf: no such file" in client.refuses("import", "models/smol.gguf", "--out", "x")
    assert "nowhere/a.gguf: no such file" in client.refuses("import", "nowhere/a.gguf", "--out", "x")
    assert hub.requests == []
    assert "no such repository" in client.refuses("import", "hub:models/smoll", "--out", "x")
