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

from slm.disk import sync, write_errors
from slm.errors import SlmxError
from slm.json_reader import read_limited

MAX_KEY_BYTES = 2**16
# The environment variable with the passphrase of an encrypted private key.
PASSPHRASE = "SLMX_KEY_PASSPHRASE"
PRIVATE_MARK = b"PRIVATE KEY-----"
ALGORITHM = ec.ECDSA(SHA256())


def make_keys(name: Path) -> tuple[Path, Path]:
    """Writes a new pair of keys: NAME.key, which only the user may read, and NAME.pub. No file is replaced.

    If `PASSPHRASE` is set, the private key is encrypted with it.

    Args:
        name: Where the files go, without their endings.

    Returns:
        The files of the private and of the public key.

    Raises:
        SlmxError: One of them exists already, or the passphrase is empty.
        WriteError: One of them cannot be written. None is left.
    """
    private, public = (name.with_name(f"{name.name}.{ending}") for ending in ("key", "pub"))
    for path in (private, public):
        if os.path.lexists(path):
            raise SlmxError(f"{path}: exists already, and a key is never replaced; choose another --out")
    passphrase = os.environ.get(PASSPHRASE)
    if passphrase == "":
        raise SlmxError(
            f"{PASSPHRASE}: set, but empty; set it to a passphrase, or unset it for a key that is not encrypted"
        )
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        encryption = BestAvailableEncryption(os.fsencode(passphrase))
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    except ValueError as error:
        raise SlmxError(f"{PASSPHRASE}: {error}; choose another passphrase") from None
    _write_new(private, content, 0o600)
    try:
        _write_new(public, _as_pem(key.public_key()), 0o644)
    except BaseException:
        private.unlink()
        raise
    return private, public


def _write_new(path: Path, content: bytes, mode: int) -> None:
    with write_errors(path):
        _create(path, content, mode)


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


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
        raise SlmxError(f"{path}: cannot read the key ({error.strerror}); slmx keygen makes one") from None
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
