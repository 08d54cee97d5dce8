"""Keys of ECDSA P-256 in PEM files: they are made, read and used here, with the `cryptography` package."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.storage.disk import clear_temporary, write_new_file
from slm.storage.json_reader import read_limited
from slm.storage.read_errors import unreadable

MAX_KEY_BYTES = 2**16
# The environment variable with the passphrase of an encrypted private key.
PASSPHRASE = "SLMX_KEY_PASSPHRASE"
PRIVATE_MARK = b"PRIVATE KEY-----"
ALGORITHM = ec.ECDSA(SHA256())


def make_keys(name: Path, log: Log = lambda line: None) -> tuple[Path, Path]:
    """Writes a new pair of keys: NAME.key, which only the user may read, and NAME.pub. No file is replaced.

    If `PASSPHRASE` is set, the private key is encrypted with it. If only NAME.key is there, NAME.pub is written for it.

    Args:
        name: Where the files go, without their endings.
        log: Called with a line if the private key was there.

    Returns:
        The files of the private and of the public key.

    Raises:
        SlmxError: NAME.pub exists already, the passphrase is empty, or NAME.key is there and cannot be read.
        WriteError: One of them cannot be written. None is left.
    """
    private, public = (name.with_name(f"{name.name}.{ending}") for ending in ("key", "pub"))
    clear_temporary(private.parent)
    alone = private.is_file() and not os.path.lexists(public) and PRIVATE_MARK in _read(private)
    for path in () if alone else (private, public):
        if os.path.lexists(path):
            raise SlmxError(f"{path}: exists already, and a key is never replaced; choose another --out")
    passphrase = os.environ.get(PASSPHRASE)
    if passphrase == "":
        raise SlmxError(
            f"{PASSPHRASE}: set, but empty; set it to a passphrase, or unset it for a key that is not encrypted"
        )
    if alone:  # a kill came between the two files
        write_new_file(public, _as_pem(read_private_key(private).public_key()), 0o644)
        log(f"{private}: exists already, so {public} was made for it")
        return private, public
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        encryption = BestAvailableEncryption(os.fsencode(passphrase))
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    except ValueError as error:
        raise SlmxError(f"{PASSPHRASE}: {error}; choose another passphrase") from None
    write_new_file(private, content, 0o600)
    try:
        write_new_file(public, _as_pem(key.public_key()), 0o644)
    except BaseException:
        with suppress(OSError):
            private.unlink()
        raise
    return private, public


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Reads a private key.

    Raises:
        SlmxError: The file cannot be read, it holds no private key of P-256, or the passphrase is missing or wrong.
    """
    content = _read(path)
    if b"PUBLIC KEY-----" in content:
        raise SlmxError(f"{path}: a public key, which cannot sign; name the private key that belongs to it")
    try:
        key = load_pem_private_key(content, _passphrase(path, content))
    except (ValueError, UnsupportedAlgorithm):
        raise SlmxError(
            f"{path}: not a private key in PEM, or {PASSPHRASE} is not its passphrase; slmx keygen makes a key"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _wrong_kind(path, key)
    return key


def _passphrase(path: Path, content: bytes) -> bytes | None:
    """Returns the passphrase of a private key; None for a key that is not encrypted."""
    try:
        load_pem_private_key(content, None)
    except TypeError:  # it is encrypted
        passphrase = os.environ.get(PASSPHRASE)
        if not passphrase:
            raise SlmxError(f"{path}: encrypted; set the environment variable {PASSPHRASE} to its passphrase") from None
        return os.fsencode(passphrase)
    return None


def read_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Reads a public key.

    Raises:
        SlmxError: The file cannot be read, or it holds no public key of P-256.
    """
    content = _read(path)
    if PRIVATE_MARK in content:
        raise SlmxError(f"{path}: a private key; name the public key that belongs to it (NAME.pub of slmx keygen)")
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise SlmxError(f"{path}: not a public key in PEM; slmx keygen makes NAME.key and NAME.pub") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _wrong_kind(path, key)
    return key


def _read(path: Path) -> bytes:
    try:
        return read_limited(path, MAX_KEY_BYTES)
    except OSError as error:
        raise unreadable(path, error, "the key", "slmx keygen makes one") from None
    except ValueError as error:
        raise SlmxError(f"{path}: not the file of a key ({error}); slmx keygen makes one") from None


def _wrong_kind(path: Path, key: object) -> SlmxError:
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        kind = f"a key of the curve {key.curve.name}"
    elif isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        kind = "an RSA key"
    elif isinstance(key, dsa.DSAPrivateKey | dsa.DSAPublicKey):
        kind = "a DSA key"
    else:
        kind = f"a key of the kind {type(key).__name__.removesuffix('PrivateKey').removesuffix('PublicKey').strip('_')}"
    return SlmxError(f"{path}: {kind}, and slmx signs with ECDSA P-256 only; slmx keygen makes such a key")


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Returns the SHA-256 of a public key in PEM, which names it in signatures."""
    return hashlib.sha256(_as_pem(key)).hexdigest()


def _as_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign_bytes(key: ec.EllipticCurvePrivateKey, content: bytes) -> bytes:
    """Returns the signature of bytes, in DER."""
    return key.sign(content, ALGORITHM)


def is_signed(key: ec.EllipticCurvePublicKey, content: bytes, signature: bytes) -> bool:
    """Returns whether a signature of bytes is valid."""
    try:
        key.verify(signature, content, ALGORITHM)
    except InvalidSignature:
        return False
    return True
