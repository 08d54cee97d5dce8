"""Opening a bundle: whole it opens, spoiled in any way it is one line that names the file and the way out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes import load
from runtimes.bundle.store import FORMAT_VERSION, MANIFEST_FILE, VARIANT_FILES, Bundle
from slm.errors import SlmxError
from tests import bundles

FILES = [
    "README.md",
    "config.json",
    "genai_config.json",
    "generation_config.json",
    "onnx/model.onnx",
    "onnx/model_int8.onnx",
    "tokenizer.json",
    "tokenizer.tiktoken",
    "tokenizer_config.json",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture
def whole(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


@pytest.fixture
def spoilt(whole: Path, tmp_path: Path) -> Path:
    """A copy that the test spoils."""
    return bundles.copy_of(whole, tmp_path / "bundle")


def refusal(folder: Path) -> str:
    with pytest.raises(SlmxError) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_bundle_opens(whole: Path, tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(whole)
    assert bundle.variants == ["int8", "fp32"]
    assert bundle.model_path() == whole / VARIANT_FILES["int8"]
    assert bundle.model_path("fp32") == whole / VARIANT_FILES["fp32"]
    assert bundle.tokenizer().vocab_size == bundle.config.vocab_size
    assert sorted(bundle.manifest["files"]) == FILES
    shape = json.loads((tiny_checkpoint / "config.json").read_text("utf-8"))["shape"]
    assert shape == {name: getattr(bundle.config, name) for name in shape}
    assert load(whole).variant == "int8"


def test_a_moved_bundle_opens(spoilt: Path) -> None:
    moved = spoilt.rename(spoilt.with_name("elsewhere with spaces é"))
    assert load(moved).generate("Once", max_tokens=2, seed=0).full_text.startswith("Once")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_found_in_every_file(spoilt: Path, name: str, where: float) -> None:
    path = spoilt / name
    content = bytearray(path.read_bytes())
    content[round(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    assert refusal(spoilt) == (
        f"{path}: not the file that {MANIFEST_FILE} lists (SHA-256 differs); copy or export it again"
    )


@pytest.mark.parametrize("name", FILES)
def test_a_missing_or_a_cut_file_is_named(spoilt: Path, name: str) -> None:
    path = spoilt / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert refusal(spoilt).startswith(f"{path}: not the file that")
    path.unlink()
    assert refusal(spoilt) == f"{path}: missing from the bundle; copy the folder again, whole, or export it again"
    path.mkdir()
    assert refusal(spoilt).startswith(f"{path}: cannot read (")


def test_no_manifest_no_folder_or_a_file_instead(spoilt: Path, tmp_path: Path) -> None:
    (spoilt / MANIFEST_FILE).unlink()
    for folder in (spoilt, tmp_path / "nowhere", spoilt / "README.md"):
        assert refusal(folder) == (
            f"{folder}: no bundle here (no {MANIFEST_FILE}); make one with slmx export --out {folder}"
        )


def test_a_newer_format_asks_for_a_newer_slmx_however_it_is_laid_out(spoilt: Path) -> None:
    newer = FORMAT_VERSION + 1
    said = f"{spoilt / MANIFEST_FILE}: bundle format {newer}, this slmx reads {FORMAT_VERSION}; upgrade slmx"
    bundles.edit_manifest(spoilt, format_version=newer)
    assert refusal(spoilt) == said
    (spoilt / MANIFEST_FILE).write_text(json.dumps({"format_version": newer, "contents": []}), "utf-8")
    assert refusal(spoilt) == said


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"3", b'"text"', b"{}", b"\xff\xfe", b"\0" * 100])
def test_a_manifest_that_is_none(spoilt: Path, content: bytes) -> None:
    (spoilt / MANIFEST_FILE).write_bytes(content)
    said = refusal(spoilt)
    assert said.startswith(f"{spoilt / MANIFEST_FILE}: not a bundle manifest")
    assert said.endswith("export it again")


def test_a_manifest_that_lists_no_variant_or_one_without_its_hash(spoilt: Path) -> None:
    path = spoilt / MANIFEST_FILE
    manifest = json.loads(path.read_text("utf-8"))
    bundles.edit_manifest(spoilt, variants={})
    assert refusal(spoilt) == f"{path}: lists no hash for any variant; export it again"
    bundles.edit_manifest(spoilt, variants=manifest["variants"] | {"q4": {"file": "onnx/model_q4.onnx"}})
    assert refusal(spoilt) == f"{path}: lists no hash for onnx/model_q4.onnx; export it again"


def test_an_unknown_variant_lists_those_there_are(whole: Path) -> None:
    with pytest.raises(SlmxError, match=r"no variant 'q4'; it holds int8, fp32$"):
        Bundle.open(whole).model_path("q4")


def test_a_tokenizer_of_another_size_is_refused(spoilt: Path) -> None:
    bundle = Bundle.open(spoilt)
    path = spoilt / "tokenizer.tiktoken"
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]) + b"\n")
    size = bundle.config.vocab_size
    with pytest.raises(SlmxError, match=f"{size - 1} tokens but {size} logits; export it again"):
        bundle.tokenizer()


def places(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Keys that lead to every value of parsed JSON."""
    inner = value.items() if isinstance(value, dict) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_whatever_a_manifest_holds_is_opened_or_refused(tiny_checkpoint: Path, data: st.DataObject) -> None:
    folder = bundles.tiny_bundle_to_spoil(tiny_checkpoint)
    path = folder / MANIFEST_FILE
    original = path.read_bytes()
    manifest = json.loads(original)
    read = [p for p in places(manifest) if p and p[0] in ("format_version", "shape", "variants", "files")]
    *parents, key = data.draw(st.sampled_from(read))
    table = manifest
    for parent in parents:
        table = table[parent]
    if data.draw(st.booleans()):
        del table[key]
    else:
        table[key] = data.draw(JSON)
    try:
        path.write_text(json.dumps(manifest), "utf-8")
        with contextlib.suppress(SlmxError):
            assert Bundle.open(folder).model_path().is_file()
    finally:
        path.write_bytes(original)


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_manifest_cut_anywhere_is_refused(tiny_checkpoint: Path, share: float) -> None:
    folder = bundles.tiny_bundle_to_spoil(tiny_checkpoint)
    path = folder / MANIFEST_FILE
    original = path.read_bytes()
    try:
        path.write_bytes(original[: int(share * len(original.rstrip()))])
        assert "not a bundle manifest" in refusal(folder)
    finally:
        path.write_bytes(original)
