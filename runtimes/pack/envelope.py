"""The file of a signature, in the format of sigstore's `model-signing` package, version 1.0 of its statements.

It is a sigstore bundle in JSON. It holds a DSSE envelope, and the envelope holds an in-toto statement: the name and the
SHA-256 of every file of the model. docs/bundle-format.md describes it. Nothing here needs `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtimes.bundle.manifest import COMPANIONS
from slm.storage.json_reader import Fields, parse_json, read_limited

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_SIGNATURE_BYTES = 2**22


@dataclass(frozen=True)
class Envelope:
    """A signed statement.

    Attributes:
        payload: The statement, as JSON.
        signature: ECDSA over `signed_bytes`, in DER.
        key_id: SHA-256 of the public key in PEM, in hexadecimal; None if the file does not state it.
    """

    payload: bytes
    signature: bytes
    key_id: str | None

    @classmethod
    def read(cls, content: bytes) -> Envelope:
        """Reads the file of a signature. It does not check the signature.

        Raises:
            ValueError: The content is not such a file, or it was signed without a key.
        """
        fields = Fields(parse_json(content))
        _expect(fields, "mediaType", MEDIA_TYPE)
        material = fields.object("verificationMaterial")
        if "publicKey" not in set(material):
            raise ValueError("it was made with a certificate, not with a key")
        key = material.object("publicKey")
        envelope = fields.object("dsseEnvelope")
        _expect(envelope, "payloadType", PAYLOAD_TYPE)
        signatures = envelope.value("signatures")
        if not isinstance(signatures, list) or len(signatures) != 1:
            raise ValueError("it holds not one signature")
        signature = Fields(signatures[0], "dsseEnvelope.signatures.0")
        return cls(_decoded(envelope, "payload"), _decoded(signature, "sig"), key.optional("hint", key.text))

    def to_bytes(self) -> bytes:
        """Returns the content of the file."""
        values = {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self.key_id}, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": _encoded(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"sig": _encoded(self.signature), "keyid": ""}],
            },
        }
        return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def read_signature(path: Path) -> bytes | None:
    """Returns the content of a file that holds a signature; None if it holds another thing or cannot be read."""
    try:
        content = read_limited(path, MAX_SIGNATURE_BYTES)
        Envelope.read(content)
    except (OSError, ValueError):
        return None
    return content


def signed_bytes(payload: bytes) -> bytes:
    """Returns what is signed for a payload: DSSE's pre-authentication encoding of it."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode("ascii") + payload


def statement(name: str, hashes: Mapping[str, str]) -> bytes:
    """Returns the statement of a model.

    Args:
        name: The name of the model. It is for people to read.
        hashes: The SHA-256 of every file, by its name with `/` between its parts.
    """
    names = sorted(hashes, key=lambda file: file.split("/"))
    values = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": _digest([hashes[file] for file in names])}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(COMPANIONS),
            },
            "resources": [{"name": file, "algorithm": "sha256", "digest": hashes[file]} for file in names],
        },
    }
    return json.dumps(values, separators=(",", ":")).encode("ascii")


def stated_hashes(payload: bytes) -> dict[str, str]:
    """Reads a statement.

    Returns:
        The SHA-256 of every file by name, without those of `COMPANIONS`.

    Raises:
        ValueError: It is no statement of this format, it contradicts itself, or it has other hashes than SHA-256.
    """
    fields = Fields(parse_json(payload))
    _expect(fields, "_type", STATEMENT_TYPE)
    _expect(fields, "predicateType", PREDICATE_TYPE)
    predicate = fields.object("predicate")
    _expect(predicate.object("serialization"), "method", "files")
    resources, subjects = predicate.value("resources"), fields.value("subject")
    if not isinstance(resources, list) or not isinstance(subjects, list) or len(subjects) != 1:
        raise ValueError("it has no list of files, or not one subject")
    found: dict[str, str] = {}
    for number, resource in enumerate(resources):
        entry = Fields(resource, f"resources.{number}")
        _expect(entry, "algorithm", "sha256")
        if entry.text("name") in found:
            raise ValueError(f"it names {entry.text('name')!a} twice")
        found[entry.text("name")] = entry.sha256("digest")
    if Fields(subjects[0], "subject.0").object("digest").sha256("sha256") != _digest(list(found.values())):
        raise ValueError("its digest is not that of its files")
    return {name: digest for name, digest in found.items() if name not in COMPANIONS}


def _digest(hashes: list[str]) -> str:
    """Returns the SHA-256 of hashes, joined as bytes in this order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()


def _expect(fields: Fields, key: str, wanted: str) -> None:
    if fields.text(key) != wanted:
        raise ValueError(f"its {key} is {fields.text(key)[:80]!a}, not {wanted!a}")


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _decoded(fields: Fields, key: str) -> bytes:
    value = fields.value(key)
    try:
        return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"its {key} is not base64") from None
