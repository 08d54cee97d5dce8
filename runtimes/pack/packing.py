"""Writes the archive of a bundle, and the folder of an archive. The signature goes along, in the file beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from runtimes.bundle.archive import MAX_BYTES, MAX_ENTRIES, write_archive
from runtimes.bundle.manifest import BUNDLE_LISTING, COMPANIONS, SIGNATURE_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.envelope import read_signature
from slm.console.errors import SlmxError
from slm.console.notice import Log
from slm.folder_kind import PACKED_SUFFIX, check_outside
from slm.storage.atomic import atomic_folder
from slm.storage.disk import atomic_file, write_file
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.locks import one_line

HEADERS = 1024  # most bytes that an archive needs beside a file, for its headers


def default_archive(bundle: Path) -> Path:
    """Returns where the archive of a bundle goes: `mine.slmx` in the current folder for `bundles/mine`."""
    name = bundle.resolve().name
    return Path(f"{name.removesuffix(Path(name).suffix) if bundle.is_file() else name}{PACKED_SUFFIX}")


def pack_bundle(bundle: Bundle, out: Path, replace: bool, log: Log) -> int:
    """Writes a bundle as one file. The same bundle gives the same bytes. It appears whole or not at all.

    Args:
        bundle: A bundle, also an archive of another program.
        out: The file.
        replace: Whether the archive of another bundle in `out` is replaced. Other files never are.
        log: Called with a line about what stands beside `out`.

    Returns:
        The size of the file, in bytes.

    Raises:
        SlmxError: A file of the bundle is missing, changed or not listed, the bundle is too large for one file, or
            `out` cannot be written or replaced.
    """
    signature = signature_beside(bundle, log)
    held = _check_out(bundle, out, replace)
    bundle.check_only_listed_files()
    total = sum(entry.bytes + HEADERS for entry in bundle.manifest.files.values())
    if total > MAX_BYTES - 2**20 or len(bundle.manifest.files) >= MAX_ENTRIES:
        raise SlmxError(
            f"{bundle.path}: {total:,} bytes in {len(bundle.manifest.files):,} files, more than one file holds; "
            "export it with fewer variants"
        )
    with one_line(out), atomic_file(out) as file:
        write_archive(file, _files(bundle))
    written = Bundle.open(out)
    if signature is not None:
        with one_line(out):
            write_file(written.signature_path, signature)
        log(f"{written.signature_path}: the signature; send both files")
    elif held is not None and held.manifest_sha256 != bundle.manifest_sha256 and held.signature_path.exists():
        log(f"{held.signature_path}: the signature of the file that was replaced; sign again, or delete it")
    return out.stat().st_size


def _files(bundle: Bundle) -> Iterator[tuple[str, bytes]]:
    yield MANIFEST_FILE, bundle.manifest_bytes()
    for name in sorted(bundle.manifest.files):
        yield name, bundle.read(name)


def signature_beside(bundle: Bundle, log: Log) -> bytes | None:
    """Returns the signature of a bundle, from the folder or from beside the archive; None if it has none.

    It is not checked here.

    Args:
        bundle: The bundle.
        log: Called with a line if the file in its place is not a signature.
    """
    path = bundle.signature_path
    if not os.path.lexists(path):
        return None
    content = read_signature(path)
    if content is None:
        log(f"{path}: not a signature, so it stays here")
    return content


def _check_out(bundle: Bundle, out: Path, replace: bool) -> Bundle | None:
    """Checks that a file may be written.

    Returns:
        The bundle that it holds; None if there is no file.

    Raises:
        SlmxError: It is inside a folder of slmx, it is a symbolic link or no archive of a bundle, or it is that of
            another bundle and `replace` is false.
    """
    check_outside(out)
    if out.is_dir():
        raise SlmxError(f"{out}: a folder stands where the file should go; choose another --out")
    if not out.absolute().parent.is_dir():
        raise SlmxError(f"{out.absolute().parent}: no such folder; make it, or choose another --out")
    beside = out.with_name(f"{out.name}{COMPANIONS[SIGNATURE_FILE]}")
    for path in (out, beside):
        if path.is_symlink():
            raise SlmxError(f"{path}: a symbolic link, and slmx pack does not write through one; choose another --out")
    if beside.exists() and beside != bundle.signature_path and read_signature(beside) is None:
        raise SlmxError(f"{beside}: not a signature of a bundle, so it is not replaced; choose another --out")
    if not out.exists():
        return None
    try:
        held = Bundle.open(out)
    except SlmxError:
        raise SlmxError(
            f"{out}: a file that is no packed bundle, and slmx never replaces such a file; choose another --out"
        ) from None
    if not replace and held.manifest_sha256 != bundle.manifest_sha256:
        raise SlmxError(f"{out}: holds another bundle; choose another --out, or --force to replace it")
    return held


def unpack_bundle(bundle: Bundle, out: Path, replace: bool, signature: bytes | None) -> None:
    """Writes the folder of an archive. It appears whole or not at all, and nothing is written if a check fails.

    Args:
        bundle: An archive.
        out: The folder.
        replace: Whether a bundle in `out` is replaced.
        signature: The content of the signature's file; None writes none. It is not checked here.

    Raises:
        SlmxError: A file is missing, changed or not listed, or `out` cannot be written or replaced.
    """
    if not bundle.is_archive:
        raise SlmxError(f"{bundle.path}: a folder already; slmx unpack takes a file that slmx pack made")
    bundle.check_only_listed_files()
    check_outside(out)
    with atomic_folder(out, BUNDLE_LISTING, replace) as fresh:
        for name, content in _files(bundle):
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(content)
        if signature is not None:
            (fresh / SIGNATURE_FILE).write_bytes(signature)
