"""Signs bundles and checks their signatures. It needs the extra `[sign]`."""

from __future__ import annotations

from pathlib import Path

from runtimes.bundle.location import is_shipped
from runtimes.bundle.store import Bundle
from runtimes.pack.envelope import (
    MAX_SIGNATURE_BYTES,
    Envelope,
    read_signature,
    signed_bytes,
    stated_hashes,
    statement,
)
from runtimes.pack.keys import is_signed, key_id, read_private_key, read_public_key, sign_bytes
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.storage.disk import write_file
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.json_reader import read_limited
from slm.storage.read_errors import reason_of, unreadable

AGAIN = "get the bundle and its signature again"


def sign_bundle(bundle: Bundle, key: Path, log: Log = lambda line: None) -> Path:
    """Checks every file of a bundle and signs it. An earlier signature is replaced.

    Args:
        bundle: The bundle.
        key: The file of the private key.
        log: Called with a line if another key made the signature that is replaced.

    Returns:
        The file of the signature.

    Raises:
        SlmxError: The key cannot be used, a file of the bundle is missing, changed or not listed, the bundle is one
            inside the package, or another file or a symbolic link has the name of the signature.
        WriteError: The signature cannot be written.
    """
    path = bundle.signature_path
    if is_shipped(bundle.path):
        raise SlmxError(f"{bundle.path}: a bundle inside the package; pack it with slmx pack, and sign that file")
    if path.is_symlink():
        raise SlmxError(f"{path}: a symbolic link, and slmx sign does not write through one; move it away")
    earlier = read_signature(path)
    if path.exists() and earlier is None:
        raise SlmxError(f"{path}: not a signature of a bundle, so it is not replaced; move it away")
    private = read_private_key(key)
    bundle.check_only_listed_files()
    payload = statement(bundle.manifest.title, _hashes(bundle))
    envelope = Envelope(payload, sign_bytes(private, signed_bytes(payload)), key_id(private.public_key()))
    write_file(path, envelope.to_bytes())
    if earlier is not None:
        replaced = Envelope.read(earlier)
        if not is_signed(private.public_key(), signed_bytes(replaced.payload), replaced.signature):
            log(f"{path}: replaces a signature that another key made")
    return path


def require_signature(bundle: Bundle, key: Path) -> str:
    """Checks the signature of a bundle, over the bytes of the manifest that was opened.

    The manifest holds the hash of every file, and `Bundle.read` checks it. So what is read from this `Bundle` object
    afterwards is what was signed.

    Args:
        bundle: The bundle.
        key: The file of the public key.

    Returns:
        The id of the key, in hexadecimal.

    Raises:
        SlmxError: The key cannot be used, or the bundle is not signed with it.
    """
    path = bundle.signature_path
    if not path.exists():
        raise SlmxError(f"{bundle.path}: not signed: there is no {path}; get it from where the bundle is from")
    try:
        content = read_limited(path, MAX_SIGNATURE_BYTES)
    except (OSError, ValueError) as error:
        raise _no_signature(path, error) from None
    return check_signature(bundle, content, path, key)


def check_signature(bundle: Bundle, content: bytes, path: Path, key: Path) -> str:
    """Checks the signature of a bundle, as `require_signature` does.

    Args:
        bundle: The bundle.
        content: The content of the signature's file.
        path: This file, for messages.
        key: The file of the public key.

    Returns:
        The id of the key, in hexadecimal.

    Raises:
        SlmxError: The key cannot be used, or the bundle is not signed with it.
    """
    public = read_public_key(key)
    try:
        envelope = Envelope.read(content)
    except ValueError as error:
        raise _no_signature(path, error) from None
    if envelope.key_id not in (None, key_id(public)):
        raise SlmxError(f"{path}: made with another key than {key}; name the key of who signed it")
    if not is_signed(public, signed_bytes(envelope.payload), envelope.signature):
        raise SlmxError(f"{path}: no valid signature of {key}: it was changed, or another key made it; {AGAIN}")
    try:
        stated = stated_hashes(envelope.payload)
    except ValueError as error:
        raise SlmxError(f"{path}: signs something that slmx does not read ({error}); sign the bundle again") from None
    expected = _hashes(bundle)
    if stated.get(MANIFEST_FILE) != bundle.manifest_sha256:
        raise SlmxError(f"{bundle.store.location(MANIFEST_FILE)}: not the manifest that was signed; {AGAIN}")
    for name in sorted({*stated, *expected}):
        if stated.get(name) != expected.get(name):
            raise SlmxError(f"{path}: signs another {name!a} than {MANIFEST_FILE} lists; {AGAIN}")
    return key_id(public)


def _no_signature(path: Path, error: Exception) -> SlmxError:
    if isinstance(error, PermissionError):
        return unreadable(path, error)
    return SlmxError(f"{path}: not a signature that slmx reads ({reason_of(error)}); {AGAIN}")


def _hashes(bundle: Bundle) -> dict[str, str]:
    files = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return {MANIFEST_FILE: bundle.manifest_sha256, **files}
