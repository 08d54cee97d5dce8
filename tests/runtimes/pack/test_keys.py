"""Keys are made once, are private, and only those of P-256 are taken."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from runtimes.pack.keys import PASSPHRASE, is_signed, key_id, make_keys, read_private_key, read_public_key, sign_bytes
from slm.console.errors import SlmxError
from slm.storage.disk import WORK_NAME
from tests.bundles import Slmx, snapshot

PEM, PKCS8, SPKI = Encoding.PEM, PrivateFormat.PKCS8, PublicFormat.SubjectPublicKeyInfo


def refusal(read: object, path: Path) -> str:
    assert callable(read)
    with pytest.raises(SlmxError) as caught:
        read(path)
    (line,) = str(caught.value).splitlines()
    return line


def test_a_pair_signs_and_checks(keys: tuple[Path, Path], other_keys: tuple[Path, Path]) -> None:
    private, public = read_private_key(keys[0]), read_public_key(keys[1])
    signature = sign_bytes(private, b"content")
    assert is_signed(public, b"content", signature)
    assert not is_signed(public, b"contents", signature)
    assert not is_signed(public, b"content", signature[:-1])
    assert not is_signed(public, b"content", b"")
    assert not is_signed(read_public_key(other_keys[1]), b"content", signature)
    assert key_id(public) == key_id(private.public_key()) != key_id(read_public_key(other_keys[1]))


def test_the_command_makes_two_files_of_which_one_is_private(slmx: Slmx, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        ran = slmx("keygen", "--out", "my é key")
    finally:
        os.umask(old)
    assert (ran.code, ran.stdout, ran.stderr) == (0, "my é key.key\nmy é key.pub\n", "")
    assert stat.S_IMODE((tmp_path / "my é key.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "my é key.pub").stat().st_mode) == 0o644
    assert (tmp_path / "my é key.key").read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert (tmp_path / "my é key.pub").read_bytes().startswith(b"-----BEGIN PUBLIC KEY-----\n")
    assert slmx("keygen").stdout == "slmx.key\nslmx.pub\n"


@pytest.mark.parametrize("name", ["slmx.key", "slmx.pub"])
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_a_key_is_never_replaced(slmx: Slmx, tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "file":
        path.write_text("a key")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("nowhere")
    line = f"{name}: exists already, and a key is never replaced; choose another --out"
    assert slmx.refuses_unchanged("keygen") == line


def test_a_key_that_cannot_be_written_leaves_nothing(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slmx.refuses_unchanged("keygen", "--out", "none/mine") == (
        "none/mine.key: cannot write (No such file or directory); use another folder"
    )
    assert slmx.refuses_unchanged("keygen", "--out", "..", code=2) == "--out ..: give a name, such as --out mine"
    assert slmx.refuses_unchanged("keygen", "--out", ".", code=2) == "--out .: give a name, such as --out mine"
    calls = iter([None, OSError(28, "No space left on device")])

    def fail(descriptor: int) -> None:
        if error := next(calls):
            raise error

    monkeypatch.setattr("os.fsync", fail)
    monkeypatch.setattr("slm.storage.disk.sync", lambda folder: None)
    assert slmx.refuses("keygen") == (
        "slmx.pub: cannot write (No space left on device); free space there, or use another folder"
    )
    assert [name for name in snapshot(tmp_path) if not name.startswith(WORK_NAME)] == []


def test_a_private_key_that_a_kill_left_alone_gets_its_public_key(slmx: Slmx, tmp_path: Path) -> None:
    private, public = make_keys(tmp_path / "slmx")
    before = private.read_bytes(), public.read_bytes()
    public.unlink()
    (tmp_path / f"{WORK_NAME}-abcd_123").write_bytes(b"-----BEGIN")
    ran = slmx("keygen")
    assert (ran.code, ran.stderr) == (0, "slmx.key: exists already, so slmx.pub was made for it\n")
    assert (private.read_bytes(), public.read_bytes()) == before
    assert sorted(snapshot(tmp_path)) == ["slmx.key", "slmx.pub"]


@pytest.mark.parametrize("failing", ["os.unlink", "slm.storage.disk.sync"])
def test_a_disk_that_fails_at_the_end_leaves_a_pair_or_nothing(
    slmx: Slmx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(failing, fail)
    ran = slmx("keygen")
    assert ran.code == 0 or ran.stderr.startswith("slmx: slmx.key: cannot write (Input/output error); check the disk")
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith(WORK_NAME)}
    assert names == (set() if ran.code else {"slmx.key", "slmx.pub"})


def test_an_empty_passphrase_makes_no_key(slmx: Slmx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "")
    assert slmx.refuses_unchanged("keygen") == (
        f"{PASSPHRASE}: set, but empty; set it to a passphrase, or unset it for a key that is not encrypted"
    )


def test_an_encrypted_key_needs_its_passphrase(
    slmx: Slmx, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, "pass é word")
    private, public = make_keys(tmp_path / "locked")
    assert private.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert slmx("sign", bundle, "--key", private).code == 0
    assert slmx("verify", bundle, "--key", public).code == 0
    monkeypatch.setenv(PASSPHRASE, "another")
    assert slmx.refuses_unchanged("sign", bundle, "--key", private) == (
        f"{private}: not a private key in PEM, or {PASSPHRASE} is not its passphrase; slmx keygen makes a key"
    )
    monkeypatch.delenv(PASSPHRASE)
    assert slmx.refuses_unchanged("sign", bundle, "--key", private) == (
        f"{private}: encrypted; set the environment variable {PASSPHRASE} to its passphrase"
    )
    monkeypatch.setenv(PASSPHRASE, "x" * 5000)
    assert slmx.refuses_unchanged("keygen").startswith(f"{PASSPHRASE}: ")


def test_a_passphrase_does_not_disturb_a_key_without_one(
    keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSPHRASE, "a passphrase")
    assert read_private_key(keys[0]).curve.name == "secp256r1"


def test_a_key_of_openssl_is_taken(tmp_path: Path) -> None:
    """`openssl ecparam -name prime256v1 -genkey -noout` writes this form, and `openssl ec -aes256` encrypts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    for encryption in (NoEncryption(), BestAvailableEncryption(b"secret")):
        path = tmp_path / "k.pem"
        path.write_bytes(key.private_bytes(PEM, PrivateFormat.TraditionalOpenSSL, encryption))
        if isinstance(encryption, NoEncryption):
            assert key_id(read_private_key(path).public_key()) == key_id(key.public_key())
        else:
            assert "encrypted; set the environment variable" in refusal(read_private_key, path)


KINDS: dict[str, Any] = {
    "an RSA key": rsa.generate_private_key(65537, 2048),
    "a DSA key": dsa.generate_private_key(1024),
    "a key of the curve secp384r1": ec.generate_private_key(ec.SECP384R1()),
    "a key of the curve secp256k1": ec.generate_private_key(ec.SECP256K1()),
    "a key of the kind Ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_keys_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    key = KINDS[kind]
    private, public = tmp_path / "k.key", tmp_path / "k.pub"
    private.write_bytes(key.private_bytes(PEM, PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
    for read, path in ((read_private_key, private), (read_public_key, public)):
        line = f"{path}: {kind}, and slmx signs with ECDSA P-256 only; slmx keygen makes such a key"
        assert refusal(read, path) == line


def test_the_wrong_half_of_a_pair_is_named(keys: tuple[Path, Path]) -> None:
    assert refusal(read_private_key, keys[1]).startswith(
        f"{keys[1]}: a public key, which cannot sign; name the private"
    )
    assert refusal(read_public_key, keys[0]).startswith(f"{keys[0]}: a private key; name the public key")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"\xff\xfe" * 9,
        b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        b"x" * 2**17,
    ],
    ids=lambda content: ascii(content)[:30],
)
def test_what_is_no_key_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    for read in (read_private_key, read_public_key):
        assert refusal(read, path).startswith(f"{path}: ")
    for read in (read_private_key, read_public_key):
        assert refusal(read, tmp_path).startswith(f"{tmp_path}: not the file of a key (not a regular file)")
        assert "cannot read the key (No such file or directory)" in refusal(read, tmp_path / "none")
