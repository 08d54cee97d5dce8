"""Signatures that are damaged, or that state something else."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.bundle.manifest import SIGNATURE_FILE, VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.envelope import Envelope, signed_bytes, stated_hashes, statement
from runtimes.pack.keys import is_signed, key_id, read_private_key, read_public_key, sign_bytes
from runtimes.pack.signature import require_signature, sign_bundle
from slm.console.errors import SlmxError
from slm.storage.file_names import MANIFEST_FILE
from tests import bundles
from tests.bundles import Slmx
from tests.runtimes.pack.signatures import AGAIN, Keys, refusal, signature_of

GARBAGE = {
    "empty": b"",
    "nonsense": b"nonsense",
    "list": b"[]",
    "object": b"{}",
    "binary": b"\xff\xfe\0",
    "deep": b"[" * 100_000,
    "large": b" " * (2**22 + 1),
}


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_for_a_signature_is_one_line(slmx: Slmx, signed: Path, keys: Keys, garbage: str) -> None:
    signature_of(signed).write_bytes(GARBAGE[garbage])
    line = slmx.refuses_unchanged("verify", signed, "--key", keys[1])
    assert line.startswith(f"{signature_of(signed)}: not a signature that slmx reads (")
    assert slmx.refuses_unchanged("sign", signed, "--key", keys[0]) == (
        f"{signature_of(signed)}: not a signature of a bundle, so it is not replaced; move it away"
    )


def test_a_signature_without_permission_is_not_called_a_wrong_one(
    slmx: Slmx, signed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_permission(path: Path, most: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("runtimes.pack.signature.read_limited", without_permission)
    line = slmx.refuses_unchanged("verify", signed, "--key", keys[1])
    assert line == f"{signature_of(signed)}: cannot read (Permission denied); check its permissions"


def test_a_signature_that_is_cut_anywhere_is_one_line(bundle: Path, keys: Keys) -> None:
    place = sign_bundle(Bundle.open(bundle), keys[0])
    content = place.read_bytes().rstrip()
    opened = Bundle.open(bundle)
    for length in range(0, len(content), 7):
        place.write_bytes(content[:length])
        with pytest.raises(SlmxError, match="not a signature that slmx reads"):
            require_signature(opened, keys[1])


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_change_of_any_byte_of_a_signature_changes_nothing_that_is_signed(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path, keys: Keys, data: st.DataObject
) -> None:
    opened = Bundle.open(bundles.tiny_bundle(tiny_checkpoint))
    hashes = {MANIFEST_FILE: opened.manifest_sha256}
    hashes |= {name: entry.sha256 for name, entry in opened.manifest.files.items()}
    payload = statement("nano", hashes)
    private = read_private_key(keys[0])
    content = bytearray(Envelope(payload, sign_bytes(private, signed_bytes(payload)), None).to_bytes())
    place = data.draw(st.integers(0, 10**6)) % len(content)  # the length of a signature differs each time
    content[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = Envelope.read(bytes(content))
    except ValueError:
        return
    if is_signed(read_public_key(keys[1]), signed_bytes(changed.payload), changed.signature):
        assert stated_hashes(changed.payload) == hashes


def changed_statement(change: Callable[[dict[str, Any]], object]) -> bytes:
    values = json.loads(statement("nano", {"a": "0" * 64, "b/c": "1" * 64}))
    change(values)
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    ("change", "reason"),
    {
        "the type": (lambda v: v.update(_type="https://in-toto.io/Statement/v0.1"), "its _type is"),
        "an older predicate": (
            lambda v: v.update(predicateType="https://model_signing/Digests/v0.1"),
            "its predicateType is 'https://model_signing/Digests/v0.1', not 'https://model_signing/signature/v1.0'",
        ),
        "shards": (lambda v: v["predicate"]["serialization"].update(method="shards"), "its method is 'shards', not"),
        "other hashes": (lambda v: v["predicate"]["resources"][0].update(algorithm="blake3"), "its algorithm is 'blak"),
        "two subjects": (lambda v: v.update(subject=v["subject"] * 2), "not one subject"),
        "no subject": (lambda v: v.update(subject=[]), "not one subject"),
        "another digest": (lambda v: v["subject"][0]["digest"].update(sha256="0" * 64), "not that of its files"),
        "another order": (lambda v: v["predicate"]["resources"].reverse(), "its digest is not that of its files"),
        "a file twice": (lambda v: v["predicate"]["resources"].append(v["predicate"]["resources"][0]), "'a' twice"),
        "no hash": (lambda v: v["predicate"]["resources"][0].update(digest="ab"), "digest is not a SHA-256"),
        "no list": (lambda v: v["predicate"].update(resources={}), "it has no list of files"),
        "no name": (lambda v: v["predicate"]["resources"][0].update(name=5), "name is not a text"),
    }.values(),
)
def test_a_statement_of_another_kind_is_refused(
    bundle: Path, keys: Keys, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    payload = changed_statement(change)
    with pytest.raises(ValueError, match=r"its|it|digest|name"):
        stated_hashes(payload)
    private = read_private_key(keys[0])
    envelope = Envelope(payload, sign_bytes(private, signed_bytes(payload)), key_id(private.public_key()))
    (bundle / SIGNATURE_FILE).write_bytes(envelope.to_bytes())
    line = refusal(bundle, keys[1])
    assert line.startswith(f"{bundle / SIGNATURE_FILE}: signs something that slmx does not read (")
    assert reason in line


@pytest.mark.parametrize(
    ("change", "reason"),
    {
        "another bundle": (lambda v: v.update(mediaType="application/vnd.dev.sigstore.bundle.v0.1+json"), "mediaType"),
        "a certificate": (
            lambda v: v.update(verificationMaterial={"certificate": {"rawBytes": "AAAA"}}),
            "it was made with a certificate, not with a key",
        ),
        "another payload": (lambda v: v["dsseEnvelope"].update(payloadType="text/plain"), "its payloadType is"),
        "no payload": (lambda v: v["dsseEnvelope"].update(payload="AA*="), "its payload is not base64"),
        "no text": (lambda v: v["dsseEnvelope"].update(payload=5), "its payload is not base64"),
        "no signature": (lambda v: v["dsseEnvelope"].update(signatures=[]), "it holds not one signature"),
        "two signatures": (lambda v: v["dsseEnvelope"].update(signatures=[{}, {}]), "it holds not one signature"),
    }.values(),
)
def test_an_envelope_of_another_kind_is_refused(
    bundle: Path, keys: Keys, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    place = sign_bundle(Bundle.open(bundle), keys[0])
    values = json.loads(place.read_text("utf-8"))
    change(values)
    place.write_text(json.dumps(values), "utf-8")
    assert reason in refusal(bundle, keys[1])


def test_a_signature_of_other_files_is_named(bundle: Path, keys: Keys) -> None:
    """As model-signing makes it for a folder with a file that the manifest does not list, or lists otherwise."""
    opened = Bundle.open(bundle)
    hashes = {MANIFEST_FILE: opened.manifest_sha256}
    hashes |= {name: entry.sha256 for name, entry in opened.manifest.files.items()}
    private = read_private_key(keys[0])
    without = {name: digest for name, digest in hashes.items() if name != "config.json"}
    for other, name in (
        (hashes | {"notes.txt": "0" * 64}, "notes.txt"),
        (hashes | {"README.md": "0" * 64}, "README.md"),
        (without, "config.json"),
    ):
        payload = statement("nano", other)
        envelope = Envelope(payload, sign_bytes(private, signed_bytes(payload)), None)
        (bundle / SIGNATURE_FILE).write_bytes(envelope.to_bytes())
        line = f"{bundle / SIGNATURE_FILE}: signs another {name!r} than {MANIFEST_FILE} lists; {AGAIN}"
        assert refusal(bundle, keys[1]) == line
    payload = statement("nano", hashes | {VERIFICATION_FILE: "0" * 64})
    (bundle / SIGNATURE_FILE).write_bytes(
        Envelope(payload, sign_bytes(private, signed_bytes(payload)), None).to_bytes()
    )
    assert require_signature(opened, keys[1]), "verification.json changes with each slmx verify"
