"""A complete bundle can be opened and used. For a damaged one, one line names the file and the solution."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from runtimes import load
from runtimes.bundle.manifest import VERIFICATION_FILE
from runtimes.bundle.store import FOLDER_REMEDY, Bundle, FolderStore
from slm.console.errors import SlmxError
from slm.storage.disk import WORK_NAME
from slm.storage.file_names import MANIFEST_FILE
from slm.storage.hashing import sha256_of
from tests import bundles
from tests.bundles import Slmx

FILES = [
    "README.md",
    "config.json",
    "genai_config.json",
    "generation_config.json",
    "onnx/model.onnx",
    "onnx/model_int8.onnx",
    "tokenizer.json",
    "tokenizer.tiktoken",
    "tokenizer_config.json",
]


@pytest.fixture
def whole(tiny_checkpoint: Path) -> Path:
    return bundles.tiny_bundle(tiny_checkpoint)


@pytest.fixture
def spoilt(whole: Path, tmp_path: Path) -> Path:
    """A copy that the test damages."""
    return bundles.copy_of(whole, tmp_path / "bundle é 100% #1")


def pack(folder: Path, archive: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive of a folder."""
    with zipfile.ZipFile(archive, "w", method) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder).as_posix())
    return archive


def refusal(use: Callable[[], object]) -> str:
    with pytest.raises(SlmxError) as caught:
        use()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_bundle_opens(whole: Path, tiny_checkpoint: Path) -> None:
    bundle = Bundle.open(whole)
    bundle.check_listed_files()
    assert bundle.problems() == []
    assert bundle.variants == ["int8", "fp32"]
    assert bundle.model_path(bundle.choose()) == whole / "onnx/model_int8.onnx"
    assert bundle.model_path("fp32") == whole / "onnx/model.onnx"
    assert bundle.model_bytes("fp32") == (whole / "onnx/model.onnx").read_bytes()
    assert bundle.tokenizer().vocab_size == bundle.config.vocab_size
    assert sorted(bundle.manifest.files) == FILES
    assert bundle.manifest_sha256 == sha256_of(whole / MANIFEST_FILE)
    shape = json.loads((tiny_checkpoint / "config.json").read_text("utf-8"))["shape"]
    assert shape == {name: getattr(bundle.config, name) for name in shape}
    assert load(whole).variant == "int8"


def test_a_moved_bundle_opens(spoilt: Path) -> None:
    moved = spoilt.rename(spoilt.with_name("elsewhere with spaces é"))
    assert load(moved).generate("Once", max_tokens=2, seed=0).full_text.startswith("Once")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_changed_byte_is_found_in_every_file(spoilt: Path, name: str, where: float) -> None:
    path = spoilt / name
    content = bytearray(path.read_bytes())
    content[round(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    line = f"{path}: not the file that {MANIFEST_FILE} lists (SHA-256 differs); {FOLDER_REMEDY}"
    bundle = Bundle.open(spoilt)
    assert refusal(bundle.check_listed_files) == line
    assert refusal(lambda: bundle.read(name)) == line
    assert bundle.problems() == [line]


@pytest.mark.parametrize("package", ["slmx", "slmx-stories-small"])
def test_a_damaged_bundle_of_the_installation_is_installed_again(
    spoilt: Path, slmx: Slmx, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    if package == "slmx":
        monkeypatch.setattr("runtimes.bundle.location.SHIPPED_BUNDLES", spoilt.parent)
    else:
        spoilt = spoilt.rename(spoilt.parent / "small")
        monkeypatch.setattr("runtimes.bundle.location.STORIES_SMALL", spoilt.parent)
    advice = f"; install {package} again, or restore the file in a clone (git restore runtimes)"
    (spoilt / "README.md").unlink()
    assert slmx.refuses("info", spoilt) == f"{spoilt / 'README.md'}: missing from the bundle{advice}"
    manifest = spoilt / MANIFEST_FILE
    manifest.write_bytes(manifest.read_bytes()[:-5])
    if package == "slmx":
        assert slmx.refuses("info", spoilt).endswith(advice)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_a_cut_or_a_longer_file_is_named(spoilt: Path, name: str) -> None:
    path = spoilt / name
    content = path.read_bytes()
    bundle = Bundle.open(spoilt)
    for other in (content[:-1], content + b"\n"):
        path.write_bytes(other)
        assert refusal(bundle.check_listed_files).startswith(f"{path}: not the file that")
    path.unlink()
    line = f"{path}: missing from the bundle; {FOLDER_REMEDY}"
    assert refusal(bundle.check_listed_files) == line
    path.mkdir()
    assert refusal(bundle.check_listed_files).startswith(f"{path}: cannot read (")


def test_a_pipe_in_place_of_a_file_is_not_waited_for(spoilt: Path) -> None:
    path = spoilt / "README.md"
    path.unlink()
    os.mkfifo(path)
    assert refusal(Bundle.open(spoilt).check_listed_files).startswith(f"{path}: cannot read (not a file)")


def test_only_what_is_used_is_read_and_hashed(spoilt: Path, slmx: Slmx) -> None:
    """A story needs the manifest, the tokenizer and one model. The other files may be missing or damaged."""
    expected = slmx("generate", "Once", "--bundle", spoilt, "--seed", "1", "--max-tokens", "5").stdout
    (spoilt / "onnx/model.onnx").write_bytes(b"damaged")
    (spoilt / "README.md").unlink()
    ran = slmx("generate", "Once", "--bundle", spoilt, "--seed", "1", "--max-tokens", "5")
    assert (ran.code, ran.stdout) == (0, expected)
    assert slmx.refuses("generate", "Once", "--bundle", spoilt, "--variant", "fp32").startswith(
        f"{spoilt / 'onnx/model.onnx'}: not the file that {MANIFEST_FILE} lists"
    )
    assert slmx.refuses("info", spoilt).startswith(f"{spoilt / 'README.md'}: missing from the bundle")


def test_no_manifest_no_folder_or_a_file_instead(spoilt: Path, tmp_path: Path) -> None:
    (spoilt / MANIFEST_FILE).unlink()
    nowhere = tmp_path / "nowhere"
    reasons = {spoilt: ("a folder of another kind", "NEW"), nowhere: ("no such file or folder", str(nowhere))}
    for folder, (reason, out) in reasons.items():
        assert refusal(partial(Bundle.open, folder)) == (
            f"{folder}: no bundle here ({reason}); slmx list shows what is here, "
            f"and slmx export --checkpoint RUN --out {shlex.quote(out)} makes one"
        )
    text = spoilt / "README.md"
    assert refusal(lambda: Bundle.open(text)).startswith(f"{text}: neither the folder of a bundle nor a whole zip ")


def test_the_path_of_a_model_is_given_only_when_its_bytes_are_the_listed_ones(spoilt: Path) -> None:
    path = spoilt / "onnx/model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    bundle = Bundle.open(spoilt)
    assert refusal(lambda: bundle.model_path("fp32")).startswith(f"{path}: not the file that ")
    assert refusal(lambda: bundle.model_bytes("fp32")).startswith(f"{path}: not the file that ")


def test_an_unknown_variant_lists_those_there_are(whole: Path) -> None:
    for use in (Bundle.open(whole).model_path, Bundle.open(whole).model_bytes, Bundle.open(whole).choose):
        assert refusal(partial(use, "q4")).endswith("no variant 'q4'; it holds int8, fp32")


def test_a_tokenizer_of_another_size_is_refused(spoilt: Path) -> None:
    path = spoilt / "tokenizer.tiktoken"
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]) + b"\n")
    bundles.list_again(spoilt, "tokenizer.tiktoken")
    bundle = Bundle.open(spoilt)
    size = bundle.config.vocab_size
    assert refusal(bundle.tokenizer) == f"{spoilt}: {size - 1} tokens but {size} logits; export it again"
    path.write_bytes(b"no ranks\n")
    bundles.list_again(spoilt, "tokenizer.tiktoken")
    assert "not a tiktoken rank file" in refusal(Bundle.open(spoilt).tokenizer)


def test_a_manifest_without_the_tokenizer_says_so(spoilt: Path) -> None:
    files = json.loads((spoilt / MANIFEST_FILE).read_text("utf-8"))["files"]
    del files["tokenizer.tiktoken"]
    bundles.edit_manifest(spoilt, files=files)
    assert refusal(Bundle.open(spoilt).tokenizer) == (
        f"{spoilt / MANIFEST_FILE}: lists no tokenizer.tiktoken; export it again"
    )


@pytest.mark.parametrize("name", ["README.md", "onnx", MANIFEST_FILE])
def test_a_link_that_leaves_the_bundle_is_refused(spoilt: Path, tmp_path: Path, name: str) -> None:
    outside = shutil.move(spoilt / name, tmp_path / "outside")
    (spoilt / name).symlink_to(outside)
    line = refusal(lambda: Bundle.open(spoilt).check_listed_files())
    assert "a link out of the bundle; copy the files themselves (cp -rL), or export it again" in line


def test_a_link_that_stays_in_the_bundle_and_a_link_to_it_are_followed(spoilt: Path, tmp_path: Path) -> None:
    (spoilt / "README.md").rename(spoilt / "onnx/README.md")
    (spoilt / "README.md").symlink_to("onnx/README.md")
    (tmp_path / "link").symlink_to(spoilt)
    Bundle.open(tmp_path / "link").check_listed_files()


def test_links_in_a_circle_are_one_line(spoilt: Path) -> None:
    path = spoilt / "README.md"
    path.unlink()
    path.symlink_to("README.md")
    assert str(path) in refusal(Bundle.open(spoilt).check_listed_files)


def test_files_that_are_not_listed_are_named(spoilt: Path, tmp_path: Path) -> None:
    (spoilt / "extra é.py").write_text("import os", "utf-8")
    (spoilt / "onnx/\x1b[31m").write_text("red", "utf-8")
    (spoilt / "folder").symlink_to(tmp_path)
    (spoilt / VERIFICATION_FILE).write_text("{}", "utf-8")
    bundle = Bundle.open(spoilt)
    assert bundle.extra_files() == ["extra é.py", "folder", "onnx/\x1b[31m"]
    lines = bundle.problems()
    assert len(lines) == 3
    assert all(line.isprintable() and "is not listed in manifest.json" in line for line in lines)
    bundle.check_listed_files()


def test_what_a_killed_writer_left_is_no_file_of_the_bundle(spoilt: Path) -> None:
    (spoilt / f"{WORK_NAME}-abcd_123").write_bytes(b"half")
    assert Bundle.open(spoilt).problems() == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_gives_what_its_folder_gives(whole: Path, tmp_path: Path, method: int) -> None:
    folder, archive = Bundle.open(whole), Bundle.open(pack(whole, tmp_path / "a é 100% #1.slmx", method))
    archive.check_listed_files()
    assert archive.problems() == []
    assert archive.manifest == folder.manifest
    assert archive.manifest_sha256 == folder.manifest_sha256
    assert archive.tokenizer() == folder.tokenizer()
    for variant in ("fp32", "int8"):
        assert archive.model_bytes(variant) == folder.model_bytes(variant)
    assert archive.store.names() == folder.store.names()
    line = refusal(lambda: archive.model_path("int8"))
    assert line == (f"{archive.path}: an archive, and int8 is needed as a file; slmx unpack makes a folder of it")
    for variant in ("fp32", "int8"):
        assert archive.model_file(variant) == bytes(folder.model_bytes(variant))
        assert folder.model_file(variant) == folder.model_path(variant)
    assert (folder.is_archive, archive.is_archive) == (False, True)


def test_info_and_verify_read_an_archive_too(whole: Path, slmx: Slmx, tmp_path: Path) -> None:
    archive = pack(whole, tmp_path / "bundle.slmx")
    assert slmx("info", archive).stdout == slmx("info", whole).stdout


def test_a_changed_file_of_an_archive_is_named(spoilt: Path, tmp_path: Path) -> None:
    (spoilt / "README.md").write_text("another", "utf-8")
    (spoilt / "extra.txt").write_text("extra", "utf-8")
    (spoilt / "config.json").unlink()
    archive = pack(spoilt, tmp_path / "bundle.slmx")
    lines = Bundle.open(archive).problems()
    assert [line.split(":")[1] for line in lines[:2]] == ["README.md", "config.json"]
    assert "SHA-256 differs" in lines[0]
    assert lines[1].endswith("missing from the archive; copy the archive again, or pack the bundle again")
    assert lines[2] == f"{archive}: 'extra.txt' is not listed in manifest.json; take it out of the bundle"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_cut_archive_is_one_line(whole: Path, tmp_path: Path, share: float) -> None:
    archive = pack(whole, tmp_path / "bundle.slmx")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    line = refusal(lambda: Bundle.open(archive))
    assert line.startswith(f"{archive}: neither the folder of a bundle nor a whole zip archive of one (")


def test_an_archive_that_inflates_beyond_its_manifest_is_not_inflated(
    spoilt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spoilt / "README.md").write_bytes(bytes(5_000_000))
    bundle = Bundle.open(pack(spoilt, tmp_path / "bomb.slmx"))
    inflated: list[int] = []
    monkeypatch.setattr("runtimes.bundle.archive._inflate", lambda file, entry: inflated.append(entry.size))
    assert "5,000,000 bytes" in refusal(lambda: bundle.read("README.md"))
    (spoilt / MANIFEST_FILE).write_bytes(b" " * 2**21)
    assert "bytes, 1,048,576 at most" in refusal(lambda: Bundle.open(pack(spoilt, tmp_path / "large.slmx")))
    assert inflated == []


def test_the_path_of_a_file_is_given_only_when_it_stays_inside(spoilt: Path, tmp_path: Path) -> None:
    store = FolderStore(spoilt)
    assert store.path("README.md") == spoilt / "README.md"
    (tmp_path / "secret.txt").write_text("secret", "utf-8")
    assert "a link out of the bundle" in refusal(lambda: store.path("../secret.txt"))
