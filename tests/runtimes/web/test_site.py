from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtimes.bundle.store import Bundle
from runtimes.web.assets import NAMES
from runtimes.web.installed import BUILT, NOT_INSTALLED
from runtimes.web.models import MAX_MODEL_BYTES, choose_models
from runtimes.web.variants import WEB_VARIANTS
from slm.console.install import pip_line
from slm.storage.disk import WORK_NAME
from tests.bundles import Slmx, copy_of, edit_manifest, snapshot
from tests.runtimes.web.sites import MICRO, NANO, check_site, read_table, real_site, small_page

__all__ = ["small_page"]
SITE = ("web", NANO, "--out", "site")
KILLED = """
import os, signal, sys
import runtimes.web.site
runtimes.web.site._brotli = lambda content: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["slmx", "web", "nano", "--out", "site", "--force"]
from slm.cli import main; main()
"""


def manifest_of(bundle: Path) -> dict[str, Any]:
    values = json.loads((bundle / "manifest.json").read_text("utf-8"))
    assert isinstance(values, dict)
    return values


def add_variant(bundle: Path, name: str, size: int) -> None:
    """Lists another variant in a bundle, without a file."""
    values = manifest_of(bundle)
    file = {"torchscript": "torchscript/model.ts", "fp16": "onnx/model_fp16.onnx"}[name]
    values["variants"][name] = values["variants"]["int8"] | {"file": file}
    values["files"][file] = {"what": "a variant", "bytes": size, "sha256": "0" * 64}
    edit_manifest(bundle, variants=values["variants"], files=values["files"])


def drop_int8(bundle: Path, default: str) -> None:
    variants = manifest_of(bundle)["variants"]
    del variants["int8"]
    edit_manifest(bundle, variants=variants, default=default)


def test_a_site_holds_the_page_its_models_and_packed_copies_of_what_is_large() -> None:
    site = real_site()
    table = check_site(site)
    top = {*NAMES, "manifest.webmanifest", "ort-wasm-simd-threaded.wasm"} - {"sw.js", "ort-wasm-simd-threaded.wasm.br"}
    assert top <= set(table["files"])
    assert [(model["name"], model["variant"]) for model in table["models"]] == [("nano", "int8"), ("micro", "int8")]
    for model, bundle in zip(table["models"], (NANO, MICRO), strict=True):
        assert model["parameters"] == Bundle.open(bundle).config.parameters
        home = site / "models" / model["name"]
        for name in ("manifest.json", "README.md", "tokenizer.json", "onnx/model_int8.onnx"):
            assert (home / name).read_bytes() == (bundle / name).read_bytes()
        for suffix in ("gz", "br"):
            assert (home / f"onnx/model_int8.onnx.{suffix}").is_file()
    packed_wasm = "ort-wasm-simd-threaded.wasm.br"
    assert (site / packed_wasm).read_bytes() == (BUILT / packed_wasm).read_bytes()


def test_nothing_in_the_page_comes_from_another_origin() -> None:
    html = (real_site() / "index.html").read_text("utf-8")
    assert "default-src 'none'" in html
    assert "//" not in html.replace("<!doctype html>", "")


def test_the_source_and_the_licence_of_a_model_travel_with_it() -> None:
    site = real_site()
    for model, bundle in zip(read_table(site)["models"], (NANO, MICRO), strict=True):
        made_from = Bundle.open(bundle).manifest.checkpoint
        assert (model["source"], model["licence"]) == (made_from.shown_source, made_from.licence)
        licences = (site / "LICENSES.txt").read_text("utf-8")
        assert made_from.shown_source is not None
        assert made_from.licence is not None
        assert made_from.shown_source in licences
        assert made_from.licence in licences
        for software in ("onnxruntime-web", "@huggingface/tokenizers", "THIRD PARTY SOFTWARE NOTICES"):
            assert software in licences


def test_the_service_worker_begins_with_the_table_so_that_it_changes_with_the_site() -> None:
    site = real_site()
    table = read_table(site)
    first, rest = (site / "sw.js").read_bytes().split(b"\n", 1)
    assert json.loads(first.removeprefix(b"const SITE=").removesuffix(b";")) == {
        key: value for key, value in table.items() if key not in ("inputs", "listing")
    }
    assert rest == (BUILT / "sw.js").read_bytes()


@pytest.mark.usefixtures("small_page")
def test_the_same_bundles_give_the_same_bytes_and_other_bundles_another_version(slmx: Slmx, tmp_path: Path) -> None:
    for out, bundles in {"one": ("nano", "micro"), "two": ("nano", "micro"), "three": ("nano",)}.items():
        assert slmx("web", *bundles, "--out", out).code == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    versions = [check_site(tmp_path / out)["version"] for out in ("one", "two", "three")]
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.usefixtures("small_page")
def test_the_command_tells_what_it_made(slmx: Slmx, tmp_path: Path) -> None:
    ran = slmx("web", "--out", "sité des contes/le site")
    assert ran.code == 0
    out, nano, sizes = ran.stdout.splitlines()
    assert out == "sité des contes/le site"
    assert nano.split() == ["nano", "int8", "1.9", "MB", "1.8", "million", "parameters"]
    assert sizes.startswith("a first visit loads ")
    check_site(tmp_path / out)


@pytest.mark.usefixtures("small_page")
def test_an_archive_gives_the_same_site_as_its_folder(slmx: Slmx, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", NANO)
    assert slmx("web", archive, "--out", "one").code == 0
    assert slmx("web", NANO, "--out", "two").code == 0
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.usefixtures("small_page")
def test_a_site_is_replaced_with_force_only_and_another_folder_never(slmx: Slmx, tmp_path: Path) -> None:
    site = tmp_path / "site"
    assert slmx(*SITE).code == 0
    before, files = slmx(*SITE, "--force").stdout, snapshot(tmp_path)
    again = slmx(*SITE)
    assert (again.code, again.stdout, again.stderr.splitlines()[0]) == (0, before, "site: up to date")
    assert snapshot(tmp_path) == files
    line = slmx.refuses_unchanged("web", MICRO, "--out", "site")
    assert line.endswith(f"--force to replace it: slmx web {shlex.quote(str(MICRO))} --out site --force")
    assert slmx("web", MICRO, "--out", "site", "--force").code == 0
    assert [model["name"] for model in check_site(site)["models"]] == ["micro"]
    assert not (site / "models" / "nano").exists()
    (site / "CNAME").write_text("stories.example\n")
    assert "CNAME was not made by slmx" in slmx.refuses_unchanged(*SITE, "--force")
    (site / "CNAME").unlink()
    (site / "style.css").write_text("body { color: red }")
    assert "style.css was not made by slmx or was changed" in slmx.refuses_unchanged(*SITE, "--force")


@pytest.mark.usefixtures("small_page")
@pytest.mark.parametrize("name", ["notes.txt", "index.html", "site.json"])
def test_a_foreign_folder_is_refused_even_with_force(slmx: Slmx, tmp_path: Path, name: str) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / name).write_text("{}")
    assert "not empty" in slmx.refuses_unchanged(*SITE, "--force")


@pytest.mark.usefixtures("small_page")
def test_a_bundle_is_no_site_and_is_not_replaced(slmx: Slmx, tmp_path: Path) -> None:
    copy_of(NANO, tmp_path / "site")
    assert "not empty" in slmx.refuses_unchanged(*SITE, "--force")


@pytest.mark.slow
@pytest.mark.usefixtures("small_page")
def test_a_killed_run_leaves_the_old_site_whole_and_the_next_one_goes_on(slmx: Slmx, tmp_path: Path) -> None:
    assert slmx("web", MICRO, "--out", "site").code == 0
    before = snapshot(tmp_path / "site")
    ran = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, env=os.environ, capture_output=True, timeout=120)
    assert ran.returncode == -signal.SIGKILL
    assert snapshot(tmp_path / "site") == before
    assert any(path.name.startswith(WORK_NAME) for path in tmp_path.iterdir())
    assert slmx(*SITE, "--force").code == 0
    assert [model["name"] for model in check_site(tmp_path / "site")["models"]] == ["nano"]
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.usefixtures("small_page")
def test_a_damaged_model_leaves_no_site(slmx: Slmx, tmp_path: Path) -> None:
    bundle = copy_of(NANO, tmp_path / "bundle")
    with (bundle / "onnx" / "model_int8.onnx").open("r+b") as file:
        file.write(b"damaged")
    ran = slmx("web", bundle, "--out", "site")
    assert ran.code == 1
    assert "model_int8.onnx: not the file that manifest.json lists" in ran.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.usefixtures("small_page")
def test_two_models_of_one_name_get_two_names(slmx: Slmx, tmp_path: Path) -> None:
    other = copy_of(NANO, tmp_path / "other")
    edit_manifest(other, target="web", preset="Nano")
    assert slmx("web", NANO, other, "--out", "site").code == 0
    table = check_site(tmp_path / "site")
    assert [model["name"] for model in table["models"]] == ["nano", "Nano-2"]
    assert table["models"][1]["model"] == "models/Nano-2/onnx/model_int8.onnx"


def test_a_bundle_that_is_given_twice_is_refused(slmx: Slmx, tmp_path: Path) -> None:
    copy_of(NANO, tmp_path / "copy")
    assert slmx.refuses("web", "nano", "copy", code=2) == "copy: the same bundle is given twice: drop one"


@pytest.mark.usefixtures("small_page")
def test_hostile_names_and_texts_stay_texts(slmx: Slmx, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    bundle = copy_of(NANO, tmp_path / "<b>&x")
    checkpoint = manifest_of(bundle)["checkpoint"] | {"source": hostile, "licence": hostile}
    edit_manifest(bundle, checkpoint=checkpoint)
    assert slmx("web", bundle, "--out", "site").code == 0
    site = tmp_path / "site"
    (model,) = check_site(site)["models"]
    assert (model["name"], model["source"]) == ("nano", hostile)
    assert (site / "index.html").read_bytes() == (BUILT / "index.html").read_bytes()
    assert not [path for path in site.rglob("*") if set("<>&") & set(path.name)]
    assert (site / "sw.js").read_bytes().split(b"\n", 1)[0].isascii()


@pytest.mark.parametrize("name", ["../x", "<b>", "a/b", "", ".hidden", "C:x"])
def test_a_bundle_whose_name_could_be_a_path_is_refused(slmx: Slmx, tmp_path: Path, name: str) -> None:
    bundle = copy_of(NANO, tmp_path / "bundle")
    edit_manifest(bundle, preset=name)
    assert "not a usable bundle manifest" in slmx.refuses_unchanged("web", "bundle")


def test_a_bundle_without_a_variant_for_browsers_is_refused_with_the_command_that_adds_one(
    slmx: Slmx, tmp_path: Path
) -> None:
    bundle = copy_of(NANO, tmp_path / "bundle")
    add_variant(bundle, "torchscript", 10)
    drop_int8(bundle, default="torchscript")
    assert slmx.refuses_unchanged("web", "bundle") == (
        "bundle: no variant in it runs in a browser (torchscript); "
        "slmx export --preset nano --int8 --out NEW makes one that does"
    )


@pytest.mark.usefixtures("small_page")
def test_the_first_of_the_list_is_taken_unless_another_variant_is_named(slmx: Slmx, tmp_path: Path) -> None:
    assert WEB_VARIANTS == ("int8", "fp16", "fp32", "q8", "int4")
    bundle = copy_of(NANO, tmp_path / "bundle")
    add_variant(bundle, "fp16", 10)
    edit_manifest(bundle, default="fp16")
    (bundle / "onnx" / "model_fp16.onnx").write_bytes(b"0123456789")
    ran = slmx("web", "bundle", "--variant", "fp16", "--out", "site")
    assert "model_fp16.onnx: not the file" in ran.stderr, "its hash is wrong, but it was chosen"
    line = slmx.refuses("web", "bundle", "--variant", "int4")
    makes = "slmx export --preset nano --int4 --out NEW makes one"
    assert line == f"bundle: no variant int4: for browsers it holds int8, fp16; {makes}"
    assert "unknown variant for browsers 'torchscript': choose one of int8, fp16, fp32, q8, int4" in slmx.refuses(
        "web", "bundle", "--variant", "torchscript", code=2
    )


def test_a_bundle_that_was_exported_for_the_web_gives_its_default(tmp_path: Path) -> None:
    bundle = copy_of(NANO, tmp_path / "bundle")
    add_variant(bundle, "fp16", 10)
    edit_manifest(bundle, default="fp16")
    assert [model.variant for model in choose_models([bundle])] == ["int8"]
    edit_manifest(bundle, target="web")
    assert [model.variant for model in choose_models([bundle])] == ["fp16"]
    assert [model.variant for model in choose_models([bundle], "int8")] == ["int8"]


def test_a_model_that_is_too_large_for_a_tab_is_refused(slmx: Slmx, tmp_path: Path) -> None:
    bundle = copy_of(NANO, tmp_path / "bundle")
    add_variant(bundle, "fp16", MAX_MODEL_BYTES + 1)
    line = slmx.refuses("web", "bundle", "--variant", "fp16")
    assert line == ("bundle: fp16 has 1.0 GB, and a browser tab holds a model of 1 GB at most; choose --variant int8")
    drop_int8(bundle, default="fp16")
    assert slmx.refuses("web", "bundle").endswith("export a smaller variant, such as --int8")


def test_a_page_that_is_not_installed_is_one_line(slmx: Slmx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runtimes.web.installed.BUILT", tmp_path / "nowhere")
    monkeypatch.setattr("runtimes.web.installed.PACKAGE", "slmx_web_that_is_not_there")
    ran = slmx(*SITE)
    assert ran.code == 1
    assert ran.stderr.splitlines()[-1] == (
        "slmx: the files of the web page are not installed: in a clone of slmx, run pip install ./runtimes/web/app"
    )


def test_a_plain_install_says_at_once_all_that_is_missing(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runtimes.web.installed.BUILT", tmp_path / "nowhere")
    monkeypatch.setattr("runtimes.web.installed.PACKAGE", "slmx_web_that_is_not_there")
    for module in [name for name in sys.modules if name.startswith("runtimes.web.") and "site" in name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "brotli", None)
    line = slmx.refuses(*SITE)
    assert line == f"this command needs brotli: {pip_line('web')}; and {NOT_INSTALLED}"


@pytest.mark.parametrize("content", [None, b"not brotli"])
def test_a_page_that_is_not_whole_is_one_line(
    slmx: Slmx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    page = tmp_path / "page"
    shutil.copytree(BUILT, page)
    if content is None:
        (page / "worker.js").unlink()
    else:
        (page / "ort-wasm-simd-threaded.wasm.br").write_bytes(content)
    monkeypatch.setattr("runtimes.web.installed.BUILT", page)
    ran = slmx(*SITE)
    assert ran.code == 1
    assert "the files of the web page are not whole" in ran.stderr.splitlines()[-1]
    assert not (tmp_path / "site").exists()


def test_an_installed_page_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from runtimes.web.assets import read_page

    here = read_page()
    shutil.copytree(BUILT, tmp_path / "slmx_web")
    monkeypatch.setattr("runtimes.web.installed.BUILT", tmp_path / "nowhere")
    monkeypatch.syspath_prepend(tmp_path)
    assert read_page() == here
