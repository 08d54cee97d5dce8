"""The readers of bundles and checkpoints, with small whole files of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from export.card import model_card
from export.checks.torch_archive import check_torch_archive
from export.formats.fused import export_onnx
from export.formats.portable import export_portable
from runtimes.bundle.chat_template import CHATML
from runtimes.bundle.manifest import MadeFrom, Manifest, digest_of
from runtimes.bundle.store import Bundle
from runtimes.engine.cache import open_cache
from runtimes.pack.envelope import Envelope, signed_bytes, statement
from runtimes.pack.keys import key_id, make_keys, read_private_key, read_public_key, sign_bytes
from runtimes.pack.packing import pack_bundle
from runtimes.pack.signature import require_signature, sign_bundle
from slm.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from slm.checkpoint_config import CONFIG_FILE
from slm.console.errors import SlmxError
from slm.model import GPT
from slm.presets import GPTConfig, as_architecture
from slm.provenance import licence_of, source_of
from slm.storage.file_names import JSON_FILE, MANIFEST_FILE, RANKS_FILE, RECORD_FILE, WEIGHTS_FILE
from slm.storage.hashing import sha256_of, sha256_of_bytes
from slm.tokenizers.byte_level import SINGLE_BYTES
from slm.tokenizers.settings import TokenizerSettings
from slm.tokenizers.tokenizer import Tokenizer
from slm.tokenizers.tokenizer_json import parse_merges, to_unicode
from slm.train.start import RunState
from tests.reliability.reader import Make, Read, Reader, at
from tests.runtimes.bundle.test_manifest import WHOLE
from tests.runtimes.pack.synthetic import synthetic_bundle

PIECES = (b"th", b"he", b" a", b"in", b"ing", b"\xc3\xa9")
MERGES = [(to_unicode(piece[:-1]), to_unicode(piece[-1:])) for piece in PIECES]
CHAT = TokenizerSettings("sentencepiece", end="<|im_end|>", begin="<|im_start|>", prefix="first")


def small_tokenizer() -> Tokenizer:
    """The single bytes and a few joined tokens."""
    return Tokenizer((*SINGLE_BYTES, *PIECES), TokenizerSettings())


def small_checkpoint(folder: Path) -> Path:
    """A checkpoint of a model with few weights."""
    tokenizer = small_tokenizer()
    config = GPTConfig(block_size=8, vocab_size=tokenizer.vocab_size, n_layer=1, n_head=1, n_embd=8)
    before = {"data": [{"file": "b.txt", "side": "training"}], "tokens_seen": 5, "licence": "other"}
    record = {
        "data": [{"file": "a.txt", "split": "train"}],
        "licence": "none",
        "plan": {"steps": 3, "seed": 1},
        "teachers": [{"preset": "micro", "config_sha256": "0" * 64, "licence": "MIT"}],
        "curve": [{"step": 1, "loss": 2.5, "bits_per_byte": 1.5}],
        "best": {"step": 1, "bits_per_byte": 1.5},
        "tokens_seen": 10,
        "steps_done": 3,
        "seconds": 1.5,
        "dataset_sha256": "0" * 64,
        "init": {"record": before},
    }
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    save_checkpoint(folder, "nano", GPT(config), tokenizer, MERGES, record)
    return folder


def _manifest(home: Path) -> Reader:
    def with_digest(content: bytes) -> object:
        values = json.loads(content)
        assert isinstance(values, dict)
        return Manifest.read(json.dumps(values | {"digest": digest_of(values)}).encode(), "manifest.json")

    def changed_by_an_attacker(content: bytes) -> object:
        try:
            return with_digest(content)
        except (ValueError, AssertionError, RecursionError):
            return None  # there is no digest for what is no JSON

    seeds = [WHOLE.to_bytes(), replace(WHOLE, tokenizer=CHAT, chat=CHATML).to_bytes()]
    return Reader(seeds, lambda content: Manifest.read(content, "manifest.json"), True, [changed_by_an_attacker])


def _described(checkpoint: Checkpoint) -> object:
    """What an export and a resumed run read from a training record."""
    record = checkpoint.record
    with suppress(SlmxError):
        RunState.read(checkpoint, "begin a new run")
    source = MadeFrom("0" * 64, False, source_of(record), licence_of(record))
    return Manifest.read(replace(WHOLE, checkpoint=source).to_bytes(), "made"), model_card(WHOLE, record)


def _checkpoint_file(name: str, is_json: bool = False, uses: Callable[[Checkpoint], object] = id) -> Make:
    """The reader of a file of a checkpoint that lists the hash of whatever the file holds."""

    def make(home: Path) -> Reader:
        folder = small_checkpoint(home / "checkpoint")
        config = (folder / CONFIG_FILE).read_text("utf-8")
        before = sha256_of(folder / name) if name != CONFIG_FILE else ""

        def read(content: bytes) -> object:
            (folder / name).write_bytes(content)
            if before:
                (folder / CONFIG_FILE).write_text(config.replace(before, sha256_of_bytes(content)), "utf-8")
            checkpoint = load_checkpoint(folder)
            return uses(checkpoint)

        return Reader([(folder / name).read_bytes()], read, is_json)

    return make


def _ranks(home: Path) -> Reader:
    small_tokenizer().save(home, [])
    text = "The  cat's 3 naïve \u2581 café\n"

    def reads(settings: TokenizerSettings) -> Read:
        def read(content: bytes) -> object:
            tokenizer = Tokenizer.from_bytes(content, "ranks", settings)
            return tokenizer.decode(tokenizer.encode(text)), tokenizer.longest_token

        return read

    others = [reads(TokenizerSettings(scheme)) for scheme in ("sentencepiece", "qwen2")]
    return Reader([(home / RANKS_FILE).read_bytes()], reads(TokenizerSettings()), more=others)


def _merges(home: Path) -> Reader:
    small_tokenizer().save(home, MERGES)
    return Reader([(home / JSON_FILE).read_bytes()], lambda content: parse_merges(content, "tokenizer.json"), True)


def _archive(home: Path) -> Reader:
    bundle = synthetic_bundle(home / "bundle", {"x/data": b"some data" * 20})
    path = home / "bundle.slmx"
    pack_bundle(Bundle.open(bundle), path, replace=False, log=lambda line: None)

    def read() -> None:
        Bundle.open(path).check_only_listed_files()

    return Reader([path.read_bytes()], at(path, read))


def _signature(home: Path) -> Reader:
    bundle = Bundle.open(synthetic_bundle(home / "bundle", {}))
    private, public = make_keys(home / "mine")
    path = sign_bundle(bundle, private)
    return Reader([path.read_bytes()], at(path, lambda: require_signature(bundle, public)), True)


def _statement(home: Path) -> Reader:
    """What is inside a signature, signed by the key that is asked for."""
    bundle = Bundle.open(synthetic_bundle(home / "bundle", {}))
    private, public = make_keys(home / "mine")
    key = read_private_key(private)

    def read(content: bytes) -> object:
        signature = sign_bytes(key, signed_bytes(content))
        bundle.signature_path.write_bytes(Envelope(content, signature, key_id(key.public_key())).to_bytes())
        return require_signature(bundle, public)

    hashes = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return Reader([statement("nano", {MANIFEST_FILE: bundle.manifest_sha256, **hashes})], read, True)


def _public_key(home: Path) -> Reader:
    _, public = make_keys(home / "mine")
    path = home / "changed.pub"
    return Reader([public.read_bytes()], at(path, lambda: read_public_key(path)))


def _private_key(home: Path) -> Reader:
    private, _ = make_keys(home / "mine")
    path = home / "changed.key"
    return Reader([private.read_bytes()], at(path, lambda: read_private_key(path)))


def _onnx(home: Path) -> Reader:
    config = as_architecture(GPTConfig(block_size=8, vocab_size=40, n_layer=1, n_head=1, n_embd=16), "llama")
    model = GPT(config).eval()
    seeds = []
    for name, export in (("fused", export_onnx), ("portable", export_portable)):
        export(model, home / name)
        seeds.append((home / name).read_bytes())
    return Reader(seeds, lambda content: open_cache(content, config, threads=1, name="model.onnx"))


def _torch_archive(home: Path) -> Reader:
    """A file of the layout of a .pt2, without a program that PyTorch would load."""
    path = home / "model.pt2"
    config = {"config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": None}}}
    writer = torch._C.PyTorchFileWriter(str(path))
    members: dict[str, bytes] = {
        ".data/version": b"3\n",
        "archive_format": b"pt2",
        "models/model.json": json.dumps({"graph_module": {"graph": {"nodes": [{"target": "_operator.add"}]}}}).encode(),
        "data/weights/model_weights_config.json": json.dumps(config).encode(),
        "data/weights/weight_0": bytes(32),
        "data/constants/model_constants_config.json": b'{"config": {}}',
    }
    for name, content in members.items():
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()

    def read() -> None:
        with path.open("rb") as file:
            check_torch_archive("pt2", path, file)

    return Reader([path.read_bytes()], at(path, read))


MODEL_READERS: dict[str, Make] = {
    "manifest": _manifest,
    "checkpoint-config": _checkpoint_file(CONFIG_FILE, is_json=True),
    "checkpoint-record": _checkpoint_file(RECORD_FILE, is_json=True, uses=_described),
    "checkpoint-weights": _checkpoint_file(WEIGHTS_FILE),
    "ranks": _ranks,
    "merges": _merges,
    "archive": _archive,
    "signature": _signature,
    "statement": _statement,
    "public-key": _public_key,
    "private-key": _private_key,
    "onnx": _onnx,
    "pt2": _torch_archive,
}
