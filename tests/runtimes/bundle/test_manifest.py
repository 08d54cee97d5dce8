"""Reading a manifest: a complete one is read as it was written. Anything else is refused with one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.bundle.figures import Comparison, Fidelity, Figures, Operators, Saturation
from runtimes.bundle.manifest import (
    MAX_MANIFEST_BYTES,
    Exclusion,
    FileEntry,
    JudgedOn,
    MadeFrom,
    Manifest,
    VariantEntry,
    digest_of,
)
from runtimes.bundle.store import FOLDER_REMEDY, Bundle
from slm.console.errors import SlmxError
from slm.presets import GPTConfig
from tests import bundles
from tests.bundles import Slmx

WHOLE = Manifest(
    preset="nano",
    target="any",
    default="int8",
    shape=GPTConfig(64, 300, 2, 2, 32),
    checkpoint=MadeFrom("0" * 64, False),
    judged_on=JudgedOn("stories é.txt", 512),
    variants={
        "fp32": VariantEntry(
            "onnx/model.onnx",
            Figures(parity=1e-5, same_greedy_tokens=True, bits_per_byte=1.5, operators=Operators(0, 9, 30)),
        ),
        "int8": VariantEntry(
            "onnx/model_int8.onnx",
            Figures(
                quality=Comparison(1.5, Fidelity(1.51, 0.0066667, 1e-3, 0.98), Fidelity(1.49, -0.00667, 2e-3, 0.97)),
                operators=Operators(8, 1, 29, ("a sentence",)),
                saturation=Saturation(5000, 18, 0),
            ),
            recipe="u8-tensor",
            settings={"signed": False, "table": True},
            kept_float=("h.0.c_fc.weight",),
            exclusion=Exclusion(("h.0.c_fc.weight",), 0.02, 3000, 1.02),
        ),
    },
    versions={"slmx": "0.1.0", "opset": 20},
    files={
        name: FileEntry("a file", 10, "1" * 64)
        for name in ("onnx/model.onnx", "onnx/model_int8.onnx", "tokenizer.tiktoken")
    },
)
STORED: dict[str, Any] = json.loads(WHOLE.to_bytes())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(STORED),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def as_bytes(values: object) -> bytes:
    """JSON with its correct digest, as an attacker would write it."""
    if isinstance(values, dict):
        values = values | {"digest": digest_of(values)}
    return json.dumps(values).encode("utf-8")


def refusal(content: bytes) -> str:
    with pytest.raises(SlmxError) as caught:
        Manifest.read(content, "b/manifest.json")
    line = str(caught.value)
    assert line.startswith("b/manifest.json: ")
    assert line.isprintable()
    assert len(line) < 400
    return line


def places(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Keys that lead to every value of parsed JSON."""
    inner = value.items() if isinstance(value, dict) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def changed(path: tuple[str, ...], change: Callable[[dict[str, Any], str], object]) -> dict[str, Any]:
    values = copy.deepcopy(STORED)
    table = values
    for key in path[:-1]:
        table = table[key]
    change(table, path[-1])
    return values


def with_value(path: str, value: object) -> bytes:
    return as_bytes(changed(tuple(path.split("|")), lambda table, key: table.__setitem__(key, value)))


def test_what_was_written_is_read() -> None:
    assert Manifest.read(WHOLE.to_bytes(), "m") == WHOLE
    assert WHOLE.to_bytes() == replace(WHOLE).to_bytes()
    assert STORED["format_version"] == 3


def test_a_change_after_the_export_is_found() -> None:
    for path in places(STORED):
        if path and path != ("format_version",) and not isinstance(value := _at(path), dict):
            other = "f" * 64 if path == ("digest",) else [value]

            def change(table: dict[str, Any], key: str, other: object = other) -> None:
                table[key] = other

            values = changed(path, change)
            assert "it was changed after the export" in refusal(json.dumps(values).encode())


def _at(path: tuple[str, ...]) -> object:
    value: Any = STORED
    for key in path:
        value = value[key]
    return value


def test_spaces_and_the_order_of_keys_are_no_change() -> None:
    values = dict(reversed(STORED.items()))
    assert Manifest.read(json.dumps(values).encode(), "m") == WHOLE


OPTIONAL = ("parity", "same_greedy_tokens", "bits_per_byte", "quality", "operators", "decode", "wrong", "saturation")
OPTIONAL_TOO = (*OPTIONAL, "recipe", "settings", "kept_float", "exclusion", "signed", "table", "slmx", "opset")


@pytest.mark.parametrize("path", [path for path in places(STORED) if path], ids="|".join)
def test_what_is_missing_is_named(path: tuple[str, ...]) -> None:
    content = as_bytes(changed(path, lambda table, key: table.pop(key)))
    if path == ("digest",):
        content = json.dumps(changed(path, lambda table, key: table.pop(key))).encode()
    required = path[-1] not in OPTIONAL_TOO or path[-2] == "windows" or path[-2] == "decode"
    if required and path[-1] != "tokenizer.tiktoken" and path != ("variants", "fp32"):
        assert path[-1].split("/")[-1].removesuffix(".onnx") in refusal(content)
    else:
        Manifest.read(content, "m")


NUMBERS = (
    *("parity", "bits_per_byte", "float_bits_per_byte", "bpb_increase", "kl", "greedy_agreement"),
    *("bpb_increase_without", "step_time_ratio"),
)


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ([], ("kept_float", "wrong", "names")),
        ({}, ("settings", "versions", "figures")),
        (True, ("same_greedy_tokens", "untrained", "signed", "table", "slmx", "opset")),
        (-1, (*NUMBERS, "bytes_added")),
        (1.5, NUMBERS),
        (10**30, ()),
        ("\x1b[31m", ()),
        ("\x9b31m", ()),
        ("\x7f", ()),
        ("\ud800", ()),
        ("x" * 2000, ()),
        ([None], ()),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_a_value_of_another_kind_is_refused(value: object, fits: tuple[str, ...]) -> None:
    for path in places(STORED):
        if path and path != ("digest",):
            content = as_bytes(changed(path, lambda table, key: table.__setitem__(key, value)))
            if path[-1] in fits:
                Manifest.read(content, "m")
            else:
                refusal(content)


BAD_NAMES = [
    "../secret.txt", "onnx/../../secret.txt", "..", ".", "./model.onnx", "/etc/passwd", "//host/share",
    "onnx//model.onnx", "onnx/", "", "C:/model.onnx", "C:model.onnx", "onnx\\model.onnx",
    "..\\secret", "a\0b", "a\nb", "a\x1b[0m", "é.txt",
    "e\u0301.txt", "\u2024\u2024/secret", "a b", ".hidden", "onnx/.git", "trailing.", "CON:", "a" * 300,
    "/".join(["a" * 60] * 5), "~/x", "$HOME",
    "manifest.json", "verification.json", "model.sig", "MANIFEST.json", "Model.Sig", "manifest.json/a", "model.sig/a",
    "con", "NUL.txt", "onnx/aux.json", "Com1/a", "lpt9.tar.gz",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_file_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    refusal(with_value(f"files|{name}", STORED["files"]["tokenizer.tiktoken"]))


def test_two_names_that_some_systems_take_for_one_are_refused() -> None:
    line = refusal(with_value("files|Tokenizer.TIKTOKEN", STORED["files"]["tokenizer.tiktoken"]))
    assert "two files have names that some systems take for one" in line


@pytest.mark.parametrize("name", ["onnx", "ONNX", "tokenizer.tiktoken/a", "Tokenizer.TIKTOKEN/a/b"])
def test_a_file_that_is_the_folder_of_another_one_is_refused(name: str) -> None:
    line = refusal(with_value(f"files|{name}", STORED["files"]["tokenizer.tiktoken"]))
    assert "is a file and a folder" in line


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "", "a/b", "a\\b", ".x", "x" * 200, "nano\n", "é", "C:"])
def test_a_preset_that_could_name_another_folder_is_refused(name: str) -> None:
    assert "preset is not a plain name" in refusal(with_value("preset", name))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("shape|block_size", 10**9, "shape.block_size is not a whole number from 1 to 131072"),
        ("shape|block_size", 0, "shape.block_size is not a whole number from 1 to 131072"),
        ("shape|vocab_size", 2**40, "shape.vocab_size is not a whole number from 1 to 1048576"),
        ("shape|n_layer", 10**6, "shape.n_layer is not a whole number from 1 to 512"),
        ("shape|n_head", 3, "3 heads do not divide n_embd 32"),
        ("shape", {"block_size": 131072, "vocab_size": 9, "n_layer": 99, "n_head": 1, "n_embd": 9999}, "967 GiB"),
        ("files|tokenizer.tiktoken|bytes", 2**40, "bytes is not a whole number from 0 to 2147483648"),
        ("default", "int4", "its default variant int4 is not listed"),
        ("variants", {}, "lists no hash for any variant"),
        ("variants|int4", {"file": "onnx/model_q4.onnx", "figures": {}}, "lists no hash for onnx/model_q4.onnx"),
        ("variants|q9", {"file": "onnx/model.onnx", "figures": {}}, "this slmx knows no variant 'q9'"),
        ("variants|fp32|file", "onnx/model_int8.onnx", "the file of fp32 is not onnx/model.onnx"),
        ("variants|int8|of", "../x", "variants.int8.of is not a plain name"),
        ("judged_on|text", "\u001b]0;title\u0007", "judged_on.text is not a text of printable characters"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(path: str, value: object, reason: str) -> None:
    line = refusal(with_value(path, value))
    assert reason in line
    assert line.endswith("; copy the bundle again, or export it again")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"3", b'"text"', b"{}", b"\xff\xfe", b"\0" * 100, b"[" * 100_000,
        b'{"a":' * 100_000, b'{"a": "' + b'\\"' * 200_000, b"[" * 100_000 + b"]" * 100_000, b'{"format_version": NaN}',
        b'{"format_version": 3, "format_version": 3}', b"9" * 5000, b'{"format_version": ' + b"9" * 5000 + b"}",
WHOLE.to_bytes() + b" " * MAX_MANIFEST_BYTES,
        b" " * (MAX_MANIFEST_BYTES + 1), b'{"format_version": true}', b'{"format_version": "3"}', b"\xef\xbb\xbf{}",
    ],
    ids=lambda content: f"{content[:16]!r} {len(content)}",
)  # fmt: skip
def test_what_is_no_manifest(content: bytes) -> None:
    line = refusal(content)
    assert line.startswith("b/manifest.json: not a bundle manifest (")
    assert line.endswith("; copy the bundle again, or export it again")


def test_another_format_says_what_to_do_however_it_is_laid_out() -> None:
    for values in (STORED | {"format_version": 4}, {"format_version": 4, "contents": []}):
        line = "b/manifest.json: bundle format 4, this slmx reads 3; upgrade slmx"
        assert refusal(json.dumps(values).encode()) == line
    line = "b/manifest.json: bundle format 1, this slmx reads 3; export it again"
    assert refusal(b'{"format_version": 1}') == line


def as_version_2(values: dict[str, Any]) -> bytes:
    """The manifest as in format 2: figures next to the settings, `loss`, no digest, and possibly `verified`."""
    old = copy.deepcopy(values)
    del old["digest"]
    for entry in old["variants"].values():
        entry |= entry.pop("figures")
        for way in ("windows", "decode"):
            if "quality" in entry:
                entry["quality"][way]["loss"] = entry["quality"][way].pop("bpb_increase")
        if "exclusion" in entry:
            entry["exclusion"]["loss_without"] = entry["exclusion"].pop("bpb_increase_without")
    old |= {"format_version": 2, "parameters": 1, "verified": {"variants": ["anything"]}}
    return json.dumps(old).encode("utf-8")


def test_format_2_is_read_as_what_it_meant() -> None:
    assert Manifest.read(as_version_2(STORED), "m") == WHOLE


@pytest.mark.slow
def test_a_bundle_of_format_2_tells_a_story(slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "old é %#")
    expected = slmx("generate", "Once", "--bundle", bundle, "--seed", "3", "--max-tokens", "8").stdout
    path = bundle / "manifest.json"
    path.write_bytes(as_version_2(json.loads(path.read_text("utf-8"))))
    assert slmx("generate", "Once", "--bundle", bundle, "--seed", "3", "--max-tokens", "8").stdout == expected
    assert Bundle.open(bundle).manifest.variants["int8"].figures.quality is not None
    assert slmx("info", bundle).code == 0


@settings(max_examples=300, deadline=None)
@given(values=JSON | st.dictionaries(st.sampled_from(list(STORED)), JSON))
def test_any_json_is_a_manifest_or_one_line(values: object) -> None:
    try:
        content = json.dumps(values).encode("utf-8")
        digest = digest_of(values) if isinstance(values, dict) else ""
    except ValueError:
        return
    for found in (content, content if not digest else json.dumps(values | {"digest": digest}).encode()):  # type: ignore[operator]
        try:
            Manifest.read(found, "m")
        except SlmxError as error:
            assert "\n" not in str(error)  # noqa: PT017


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_a_manifest_with_any_value_in_any_place_is_read_or_refused(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([path for path in places(STORED) if path]))
    value = data.draw(JSON)
    content = as_bytes(changed(path, lambda table, key: table.__setitem__(key, value)))
    try:
        assert isinstance(Manifest.read(content, "m"), Manifest)
    except SlmxError as error:
        assert str(error).isprintable()  # noqa: PT017


@settings(max_examples=100, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_manifest_cut_anywhere_is_refused(share: float) -> None:
    content = WHOLE.to_bytes().rstrip()
    assert "not a bundle manifest" in refusal(content[: int(share * len(content))])


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(content: bytes) -> None:
    refusal(content)


@pytest.mark.parametrize("missing", ["target", "judged_on"])
@pytest.mark.parametrize("command", ["info", "generate", "doctor", "verify"])
def test_commands_refuse_a_manifest_that_lacks_a_part(
    slmx: Slmx, tiny_checkpoint: Path, tmp_path: Path, command: str, missing: str
) -> None:
    bundle = bundles.copy_of(bundles.tiny_bundle(tiny_checkpoint), tmp_path / "b é %#")
    path = bundle / "manifest.json"
    values = json.loads(path.read_text("utf-8"))
    del values[missing]
    path.write_bytes(as_bytes(values))
    where: list[str | Path] = [bundle] if command in ("info", "verify") else ["--bundle", bundle]
    ran = slmx(command, *where)
    assert ran.code == 1
    assert ran.stderr.splitlines()[-1] == (
        f"slmx: {path}: not a usable bundle manifest ({missing} is missing); {FOLDER_REMEDY}"
    )
