"""A signature covers the manifest and every file. Anything that is not signed is one line and exit code 1."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.manifest import MANIFEST_FILE, SIGNATURE_FILE, VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.envelope import Envelope, signed_bytes, stated_hashes, statement
from runtimes.pack.keys import is_signed, key_id, make_keys, read_private_key, read_public_key, sign_bytes
from runtimes.pack.packing import unpack_bundle
from runtimes.pack.signature import require_signature, sign_bundle
from slm.disk import WORK_NAME
from slm.errors import SlmxError
from slm.hashing import sha256_of, sha256_of_bytes
from tests import bundles
from tests.bundles import Slmx, snapshot
from tests.runtimes.bundle.zips import Entry, entries_of, zip_of

Keys = tuple[Path, Path]
AGAIN = "get the bundle and its signature again"


@pytest.fixture(params=["folder", "archive"])
def signed(request: pytest.FixtureRequest, bundle: Path, packed: Path, keys: Keys) -> Path:
    """A bundle with its signature, as a folder and as an archive."""
    path = bundle if request.param == "folder" else packed
    sign_bundle(Bundle.open(path), keys[0])
    return path


def signature_of(path: Path) -> Path:
    return Bundle.open(path).signature_path


def refusal(path: Path, key: Path) -> str:
    with pytest.raises(SlmxError) as caught:
        require_signature(Bundle.open(path), key)
    (line,) = str(caught.value).splitlines()
    assert line.isprintable()
    return line


def test_what_is_signed_is_verified_and_told(slmx: Slmx, signed: Path, keys: Keys) -> None:
    assert require_signature(Bundle.open(signed), keys[1]) == key_id(read_public_key(keys[1]))
    ran = slmx("verify", signed, "--key", keys[1])
    assert ran.code == 0
    place = Bundle.open(signed).store.location(MANIFEST_FILE)
    assert ran.stdout.splitlines()[0] == f"signed with {keys[1]}, over {place}"
    assert ran.stdout.splitlines()[-1] == "9 files, every hash matches"
    beside = Bundle.open(signed).beside(VERIFICATION_FILE, f".{VERIFICATION_FILE}")
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
        "subject": [{"name": "nano", "digest": {"sha256": digest}}],
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
        "copy or export it again"
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
        unpack_bundle(Bundle.open(path), folder, replace=False, log=lambda line: None)
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


def change_default(folder: Path) -> None:
    bundles.edit_manifest(folder, default="fp32")


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


@pytest.mark.parametrize("damage", ["changed", "extra"])
def test_only_a_whole_bundle_is_signed(slmx: Slmx, bundle: Path, keys: Keys, damage: str) -> None:
    (bundle / ("README.md" if damage == "changed" else "notes.txt")).write_text("another", "utf-8")
    line = slmx.refuses_unchanged("sign", bundle, "--key", keys[0])
    assert {"changed": "not the file that", "extra": "is not listed in"}[damage] in line


def test_a_shipped_bundle_is_packed_and_then_signed(slmx: Slmx, keys: Keys) -> None:
    before = snapshot(SHIPPED_BUNDLES / "nano")
    line = slmx.refuses_unchanged("sign", "nano", "--key", keys[0])
    assert line == (
        f"{SHIPPED_BUNDLES / 'nano'}: a bundle inside the package; pack it with slmx pack, and sign that file"
    )
    assert slmx("pack", "nano").code == 0
    assert slmx("sign", "nano.slmx", "--key", keys[0]).code == 0
    assert slmx("verify", "nano.slmx", "--key", keys[1]).code == 0
    assert snapshot(SHIPPED_BUNDLES / "nano") == before
    assert sum(path.stat().st_size for path in Path.cwd().glob("nano.slmx*")) < 2_500_000


def test_the_signature_goes_along(slmx: Slmx, bundle: Path, keys: Keys, tmp_path: Path) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    assert slmx("verify", bundle, "--key", keys[1]).code == 0
    signature = (bundle / SIGNATURE_FILE).read_bytes()
    assert slmx("pack", bundle, "--out", "a.slmx").code == 0
    assert (tmp_path / "a.slmx.sig").read_bytes() == signature
    assert slmx("unpack", "a.slmx").code == 0
    after = snapshot(bundle)
    del after[VERIFICATION_FILE]
    assert snapshot(tmp_path / "a") == after
    assert slmx("unpack", "a.slmx", "--force").code == 0, "a signed bundle is one of slmx"
    for path in ("a", "a.slmx"):
        assert slmx("verify", path, "--key", keys[1]).code == 0


def test_a_file_with_the_name_of_a_signature_is_left_alone(slmx: Slmx, bundle: Path, packed: Path) -> None:
    beside = packed.with_name(f"{packed.name}.sig")
    beside.write_text("of another program", "utf-8")
    line = f"{beside}: not a signature of a bundle, so it is not replaced; choose another --out"
    assert slmx.refuses_unchanged("pack", bundle, "--out", packed) == line
    ran = slmx("unpack", packed, "--out", "b")
    assert (ran.code, ran.stderr) == (0, f"{beside}: not a signature, so it stays here\n")
    assert not Path("b", SIGNATURE_FILE).exists()


def test_the_signature_of_a_file_that_was_replaced_is_named(slmx: Slmx, bundle: Path, packed: Path, keys: Keys) -> None:
    place = sign_bundle(Bundle.open(packed), keys[0])
    change_default(bundle)
    ran = slmx("pack", bundle, "--out", packed, "--force")
    assert ran.code == 0
    assert ran.stderr.splitlines()[0] == (
        f"{place}: the signature of the file that was replaced; sign again, or delete it"
    )
    assert "not the manifest that was signed" in slmx.refuses("verify", packed, "--key", keys[1])


def test_an_export_may_replace_a_signed_bundle(slmx: Slmx, bundle: Path, tiny_checkpoint: Path, keys: Keys) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    with bundles.brief_judge():
        assert slmx("export", "--checkpoint", tiny_checkpoint, "--out", bundle, "--force").code == 0
    assert not (bundle / SIGNATURE_FILE).exists()


def test_a_signature_that_cannot_be_written_is_one_line(
    slmx: Slmx, packed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", f"{packed.parent}/{WORK_NAME}-abc")

    before = sha256_of(packed)
    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert slmx.refuses("sign", packed, "--key", keys[0]) == (
        f"{packed}.sig: cannot write (Permission denied); use another folder"
    )
    assert sha256_of(packed) == before


def test_a_full_disk_under_a_signature_is_not_called_standard_output(
    slmx: Slmx, packed: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    assert slmx.refuses("sign", packed, "--key", keys[0]) == (
        f"{packed}.sig: cannot write (No space left on device); free space there, or use another folder"
    )


def test_a_signature_of_another_key_is_replaced_with_a_word(slmx: Slmx, signed: Path, keys: Keys) -> None:
    assert slmx("sign", signed, "--key", keys[0]).stderr == "", "the same key"
    place = signature_of(signed)
    other = make_keys(signed.parent / "other")
    assert slmx("sign", signed, "--key", other[0]).stderr == f"{place}: replaces a signature that another key made\n"
    assert slmx("sign", signed, "--key", other[0]).stderr == ""
    require_signature(Bundle.open(signed), other[1])


def test_a_signature_is_not_written_through_a_symbolic_link(
    slmx: Slmx, bundle: Path, keys: Keys, tmp_path: Path
) -> None:
    sign_bundle(Bundle.open(bundle), keys[0])
    (bundle / SIGNATURE_FILE).rename(tmp_path / "theirs")
    for target in ("theirs", "missing"):
        (bundle / SIGNATURE_FILE).symlink_to(tmp_path / target)
        line = f"{bundle / SIGNATURE_FILE}: a symbolic link, and slmx sign does not write through one; move it away"
        assert slmx.refuses_unchanged("sign", bundle, "--key", keys[0]) == line
        (bundle / SIGNATURE_FILE).unlink()
    assert not (tmp_path / "missing").exists()
