"""Signed bundles: what is verified, and what is refused in one line."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from runtimes.bundle.manifest import SIGNATURE_FILE, VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.keys import key_id, read_public_key
from runtimes.pack.packing import unpack_bundle
from runtimes.pack.signature import require_signature, sign_bundle
from slm.console.errors import SlmxError
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of_bytes
from tests import bundles
from tests.bundles import Slmx
from tests.runtimes.bundle.zips import Entry, entries_of, zip_of
from tests.runtimes.pack.signatures import AGAIN, Keys, change_default, refusal, signature_of


def test_what_is_signed_is_verified_and_told(slmx: Slmx, signed: Path, keys: Keys) -> None:
    assert require_signature(Bundle.open(signed), keys[1]) == key_id(read_public_key(keys[1]))
    ran = slmx("verify", signed, "--key", keys[1])
    assert ran.code == 0
    place = Bundle.open(signed).store.location(MANIFEST_FILE)
    assert ran.stdout.splitlines()[0] == f"signed with {keys[1]}, over {place}"
    assert ran.stdout.splitlines()[-1] == "9 files and the manifest, every hash matches"
    beside = Bundle.open(signed).beside(VERIFICATION_FILE)
    assert json.loads(beside.read_text("utf-8"))["signature"] == {"key_sha256": key_id(read_public_key(keys[1]))}
    story = slmx("generate", "Once", "--bundle", signed, "--require-signature", keys[1], "--max-tokens", "3")
    assert story.code == 0
    assert story.stdout.startswith("Once")


def test_the_command_says_where_the_signature_is(slmx: Slmx, bundle: Path, packed: Path, keys: Keys) -> None:
    assert slmx("sign", bundle, "--key", keys[0]).stdout == f"{bundle / SIGNATURE_FILE}\n"
    assert slmx("sign", packed, "--key", keys[0]).stdout == f"{packed}.sig\n"
    assert slmx("sign", bundle, "--key", keys[0]).code == 0, "again"


def test_the_format_is_the_one_of_docs_pack(signed: Path, keys: Keys) -> None:
    """Written without the code that it tests, as another language would."""
    values = json.loads(signature_of(signed).read_text("utf-8"))
    assert values["mediaType"] == "application/vnd.dev.sigstore.bundle.v0.3+json"
    hint = hashlib.sha256(keys[1].read_bytes()).hexdigest()
    assert values["verificationMaterial"] == {"publicKey": {"hint": hint}, "tlogEntries": []}
    envelope = values["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"], validate=True)
    signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    told = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    read_public_key(keys[1]).verify(signature, told, ec.ECDSA(SHA256()))
    opened = Bundle.open(signed)
    hashes = {MANIFEST_FILE: opened.manifest_sha256}
    hashes |= {name: sha256_of_bytes(opened.read(name)) for name in opened.manifest.files}
    names = sorted(hashes, key=lambda name: name.split("/"))
    digest = hashlib.sha256(b"".join(bytes.fromhex(hashes[name]) for name in names)).hexdigest()
    assert json.loads(payload) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": opened.manifest.title, "digest": {"sha256": digest}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": ["model.sig", "verification.json"],
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": hashes[name]} for name in names],
        },
    }


def test_unsigned_is_one_line(slmx: Slmx, bundle: Path, packed: Path, keys: Keys) -> None:
    for path, place in ((bundle, bundle / SIGNATURE_FILE), (packed, f"{packed}.sig")):
        line = f"{path}: not signed: there is no {place}; get it from where the bundle is from"
        assert slmx.refuses_unchanged("verify", path, "--key", keys[1]) == line
        assert slmx.refuses_unchanged("generate", "Once", "--bundle", path, "--require-signature", keys[1]) == line


def test_another_key_is_one_line(slmx: Slmx, signed: Path, keys: Keys, other_keys: Keys) -> None:
    place = signature_of(signed)
    line = f"{place}: made with another key than {other_keys[1]}; name the key of who signed it"
    assert slmx.refuses_unchanged("verify", signed, "--key", other_keys[1]) == line
    assert slmx.refuses_unchanged("generate", "--bundle", signed, "--require-signature", other_keys[1]) == line
    values = json.loads(place.read_text("utf-8"))
    values["verificationMaterial"]["publicKey"] = {"hint": key_id(read_public_key(other_keys[1]))}
    forged = f"{place}: no valid signature of {other_keys[1]}: it was changed, or another key made it; {AGAIN}"
    hints: tuple[dict[str, str], ...] = (values["verificationMaterial"]["publicKey"], {})
    for hint in hints:
        values["verificationMaterial"]["publicKey"] = hint
        place.write_text(json.dumps(values), "utf-8")
        assert refusal(signed, other_keys[1]) == forged
    assert require_signature(Bundle.open(signed), keys[1]), "older signatures name no key"


def test_a_changed_a_missing_and_an_extra_file_are_one_line(slmx: Slmx, bundle: Path, keys: Keys) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    readme = (bundle / "README.md").read_bytes()
    (bundle / "README.md").write_bytes(readme + b"\n")
    ran = slmx("verify", bundle, "--key", keys[1])
    assert ran.code == 1
    assert ran.stdout.splitlines()[1:] == [
        f"FAILED: {bundle / 'README.md'}: not the file that manifest.json lists (SHA-256 differs); "
        "copy the folder again, whole, or export it to another --out"
    ]
    (bundle / "README.md").unlink()
    ran = slmx("verify", bundle, "--key", keys[1])
    assert (ran.code, len(ran.stdout.splitlines())) == (1, 2)
    assert "README.md: missing from the bundle" in ran.stdout
    (bundle / "README.md").write_bytes(readme)
    (bundle / "notes.txt").write_text("mine", "utf-8")
    ran = slmx("verify", bundle, "--key", keys[1])
    assert ran.code == 1
    assert ran.stdout.splitlines()[1:] == [
        f"FAILED: {bundle}: 'notes.txt' is not listed in manifest.json; take it out of the bundle"
    ]


def test_a_story_needs_only_the_files_that_it_uses(slmx: Slmx, bundle: Path, keys: Keys) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    told = ("generate", "Once", "--bundle", bundle, "--require-signature", keys[1], "--max-tokens", "3")
    (bundle / "README.md").write_text("changed", "utf-8")
    (bundle / "notes.txt").write_text("mine", "utf-8")
    assert slmx(*told).code == 0
    tokenizer = bundle / "tokenizer.tiktoken"
    tokenizer.write_bytes(tokenizer.read_bytes() + b"\n")
    assert "not the file that manifest.json lists" in slmx.refuses(*told)


def test_a_changed_a_missing_and_an_extra_file_of_an_archive_are_one_line(
    slmx: Slmx, bundle: Path, packed: Path, keys: Keys
) -> None:
    sign_bundle(Bundle.open(packed), keys[0])
    entries = entries_of(bundle)
    spoilt = {
        "not the file that": [*entries[:-1], Entry(entries[-1].name, b"x" * len(entries[-1].content))],
        "missing from the archive": entries[:-1],
        "'notes.txt' is not listed in": [*entries, Entry(b"notes.txt", b"mine")],
    }
    for reason, changed in spoilt.items():
        packed.write_bytes(zip_of(changed))
        ran = slmx("verify", packed, "--key", keys[1])
        assert ran.code == 1
        (line,) = ran.stdout.splitlines()[1:]
        assert line.startswith("FAILED: ")
        assert reason in line


def attacked(path: Path, change: Callable[[Path], None], home: Path) -> None:
    """Changes a bundle as an attacker would, who writes new hashes but has no key."""
    folder = bundles.copy_of(path, home) if path.is_dir() else home
    if not path.is_dir():
        unpack_bundle(Bundle.open(path), folder, replace=False, signature=None)
    change(folder)
    if path.is_dir():
        (path / MANIFEST_FILE).write_bytes((folder / MANIFEST_FILE).read_bytes())
    else:
        path.write_bytes(zip_of(entries_of(folder)))


def change_file(folder: Path) -> None:
    (folder / "README.md").write_text("another", "utf-8")
    bundles.list_again(folder, "README.md")


def add_file(folder: Path) -> None:
    (folder / "extra.txt").write_text("extra", "utf-8")
    files = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))["files"]
    bundles.edit_manifest(folder, files=files | {"extra.txt": files["README.md"] | {"bytes": 5}})
    bundles.list_again(folder, "extra.txt")


def drop_file(folder: Path) -> None:
    files = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))["files"]
    del files["README.md"]
    bundles.edit_manifest(folder, files=files)


def change_spaces(folder: Path) -> None:
    path = folder / MANIFEST_FILE
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("change", [change_file, add_file, drop_file, change_default, change_spaces])
def test_a_manifest_that_was_written_anew_is_not_the_signed_one(
    slmx: Slmx, signed: Path, keys: Keys, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    attacked(signed, change, tmp_path / "attack")
    line = f"{Bundle.open(signed).store.location(MANIFEST_FILE)}: not the manifest that was signed; {AGAIN}"
    assert slmx.refuses_unchanged("verify", signed, "--key", keys[1]) == line
    assert slmx.refuses_unchanged("generate", "Once", "--bundle", signed, "--require-signature", keys[1]) == line


def test_the_bytes_that_were_opened_are_the_ones_that_are_checked(bundle: Path, keys: Keys) -> None:
    """A manifest that is exchanged after it was opened does not pass with the signature of the other one."""
    sign_bundle(Bundle.open(bundle), keys[0])
    signed = (bundle / MANIFEST_FILE).read_bytes()
    change_default(bundle)
    opened = Bundle.open(bundle)
    (bundle / MANIFEST_FILE).write_bytes(signed)
    with pytest.raises(SlmxError, match="not the manifest that was signed"):
        require_signature(opened, keys[1])


def test_a_file_that_changes_after_the_check_is_not_read(bundle: Path, keys: Keys) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    opened = Bundle.open(bundle)
    require_signature(opened, keys[1])
    (bundle / "README.md").write_text("another", "utf-8")
    with pytest.raises(SlmxError, match="SHA-256 differs"):
        opened.read("README.md")
