"""slmx sign: what it signs, and the signature of a bundle that is packed, unpacked or replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.bundle.manifest import SIGNATURE_FILE, VERIFICATION_FILE
from runtimes.bundle.store import Bundle
from runtimes.pack.keys import make_keys
from runtimes.pack.signature import require_signature, sign_bundle
from slm.storage.disk import WORK_NAME
from slm.storage.hashing import sha256_of
from tests import bundles
from tests.bundles import Slmx, snapshot
from tests.runtimes.pack.signatures import Keys, change_default, signature_of


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
    packed = slmx("pack", bundle, "--out", "a.slmx")
    assert packed.stderr.splitlines()[0] == "a.slmx.sig: the signature; send both files"
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
    with bundles.brief_checks():
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
        f"{packed}.sig: cannot write (Permission denied); check its permissions, or use another folder"
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
