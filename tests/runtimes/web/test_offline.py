"""What the service worker keeps and serves, in a real Chromium, on a host like `python -m http.server`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runtimes.web.models import choose_models
from runtimes.web.site import write_site
from tests.chromium import IN_CHROMIUM
from tests.runtimes.web.browser import is_loaded, plain_host, write
from tests.runtimes.web.sites import MICRO, NANO, real_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = IN_CHROMIUM
WASM = "ort-wasm-simd-threaded.wasm"
MODEL = "models/nano/onnx/model_int8.onnx"
IS_KEPT = """async () => {
    const { active } = await navigator.serviceWorker.ready;
    while (active.state !== 'activated') await new Promise((resolve) => setTimeout(resolve, 20));
}"""
KEPT = """async () => {
    const found = {};
    for (const name of (await caches.keys()).sort()) {
        const keys = await (await caches.open(name)).keys();
        found[name] = keys.map((request) => new URL(request.url).pathname).sort();
    }
    return found;
}"""


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(bypass_csp=True)  # the tests wait for conditions in the page
    yield context
    context.close()


def visit(context: BrowserContext, url: str) -> Page:
    """A page that is loaded and kept for offline use."""
    page = context.new_page()
    page.goto(url)
    is_loaded(page)
    assert page.locator("#write").is_enabled()
    page.evaluate(IS_KEPT)
    return page


def make_site(out: Path, *bundles: Path) -> None:
    write_site(choose_models(bundles), out, force=out.exists(), log=lambda line: None)


def test_a_first_visit_downloads_each_large_file_once_and_packed(context: BrowserContext) -> None:
    with plain_host(real_site()) as (url, asked):
        visit(context, url)
        large = [request for request in asked if WASM in request or MODEL in request]
        gets = sorted(request for request in large if request.startswith("GET"))
    assert gets == [f"GET /{MODEL}.gz", f"GET /{WASM}.gz"]


def test_the_page_is_isolated_from_the_second_visit_on_a_host_that_sends_no_headers(context: BrowserContext) -> None:
    with plain_host(real_site()) as (url, asked):
        page = visit(context, url)
        assert not page.evaluate("crossOriginIsolated")
        asked.clear()
        page.reload()
        is_loaded(page)
        assert page.evaluate("crossOriginIsolated")
        assert page.evaluate("new Worker('worker.js', {type: 'module'}) && true")
        assert [request for request in asked if "sw.js" not in request] == []


def test_the_second_visit_needs_no_host_and_keeps_every_file_but_the_other_models(context: BrowserContext) -> None:
    with plain_host(real_site()) as (url, _):
        page = visit(context, f"{url}?from=a-link")
        kept = page.evaluate(KEPT)
        page.close()
    ((name, files),) = kept.items()
    assert name.startswith("slmx:/:")
    assert {"/index.html", "/app.js", "/worker.js", f"/{WASM}", f"/{MODEL}", "/LICENSES.txt"} <= set(files)
    assert not [file for file in files if file.startswith("/models/micro") or file.endswith((".gz", ".br"))]
    for address in ("", "index.html", "?x=1#prompt=Hello"):
        page = context.new_page()
        page.goto(url + address)
        assert write(page, "Once", maxTokens="3").startswith("Once")
        page.close()


def test_another_model_works_offline_once_it_was_used(context: BrowserContext) -> None:
    with plain_host(real_site()) as (url, asked):
        page = visit(context, url)
        page.locator("#settings").evaluate("element => { element.open = true; }")
        page.select_option("#model", "micro")
        page.wait_for_function("document.querySelector('#figures').textContent.startsWith('micro ')")
        assert "GET /models/micro/onnx/model_int8.onnx.gz" in asked
        page.close()
    page = context.new_page()
    page.goto(f"{url}#prompt=Once&model=micro")
    is_loaded(page)
    assert page.locator("#figures").inner_text().startswith("micro ")


def test_sites_of_one_origin_leave_each_other_alone(context: BrowserContext, tmp_path: Path) -> None:
    shutil.copytree(real_site(), tmp_path, dirs_exist_ok=True)
    for name in ("b", "b-2"):
        make_site(tmp_path / name, NANO)
    with plain_host(tmp_path) as (url, _):
        for path in ("", "b/", "b-2/"):
            page = visit(context, url + path)
        before = page.evaluate(KEPT)
        assert [name.rsplit(":", 1)[0] for name in before] == ["slmx:/", "slmx:/b-2/", "slmx:/b/"]
        make_site(tmp_path / "b", MICRO)
        page.goto(f"{url}b/")
        page.locator(".notice[data-key=update] button").click()
        page.wait_for_function("document.querySelector('#figures').textContent.startsWith('micro ')")
        page.wait_for_function("caches.keys().then((names) => names.length === 3)")
        after = page.evaluate(KEPT)
        changed = set(before) ^ set(after)
        assert {name.rsplit(":", 1)[0] for name in changed} == {"slmx:/b/"}
        assert len(changed) == 2
        page.goto(url)
        is_loaded(page)
        assert page.locator("#figures").inner_text().startswith("nano ")


def test_an_update_downloads_only_what_changed(context: BrowserContext, tmp_path: Path) -> None:
    make_site(tmp_path / "site", NANO)
    with plain_host(tmp_path / "site") as (url, asked):
        page = visit(context, url)
        make_site(tmp_path / "site", NANO, MICRO)
        asked.clear()
        page.reload()
        page.locator(".notice[data-key=update]").wait_for()
        downloads = [request for request in asked if request.startswith("GET")]
    assert not [request for request in downloads if WASM in request or MODEL in request or "app.js" in request]
    assert [request for request in downloads if "LICENSES.txt" in request], "it names the models"


def test_a_full_storage_is_told_and_leaves_nothing_behind(context: BrowserContext) -> None:
    with plain_host(real_site()) as (url, _):
        page = context.new_page()
        session = context.new_cdp_session(page)
        session.send("Storage.overrideQuotaForOrigin", {"origin": url.rstrip("/"), "quotaSize": 5_000_000})
        page.goto(url)
        notice = page.locator(".notice[data-key=storage]")
        notice.wait_for()
        assert "storage is full" in notice.inner_text()
        assert write(page, maxTokens="5").startswith("Once upon a time")
        page.wait_for_function("caches.keys().then((names) => names.length === 0)")


def test_a_damaged_copy_is_replaced(context: BrowserContext) -> None:
    copy = "caches.keys().then(([key]) => caches.open(key)).then((cache) => cache.match(name))"
    read = f"async (name) => [...new Uint8Array(await (await {copy}).arrayBuffer()).subarray(0, 2000)]"
    with plain_host(real_site()) as (url, _):
        page = visit(context, url)
        whole = page.evaluate(read, MODEL)
        page.evaluate(
            f"""async (name) => {{
                const copy = await {copy};
                const bytes = new Uint8Array(await copy.arrayBuffer());
                bytes[1000] ^= 1;
                const cache = await caches.open((await caches.keys())[0]);
                await cache.put(name, new Response(bytes, {{headers: copy.headers}}));
            }}""",
            MODEL,
        )
        assert page.evaluate(read, MODEL) != whole
        page.reload()
        assert write(page, maxTokens="3").startswith("Once")
        assert page.evaluate(read, MODEL) == whole


def test_deleted_copies_come_back_with_the_next_visit(context: BrowserContext) -> None:
    with plain_host(real_site()) as (url, _):
        page = visit(context, url)
        before = page.evaluate(KEPT)
        page.evaluate("caches.keys().then((names) => Promise.all(names.map((name) => caches.delete(name))))")
        page.reload()
        is_loaded(page)
        page.wait_for_function(
            f"({KEPT})().then((found) => Object.values(found)[0]?.length >= {len(*before.values())})"
        )
        assert page.evaluate(KEPT) == before


def test_a_site_with_a_changed_file_says_that_it_is_not_kept(context: BrowserContext, tmp_path: Path) -> None:
    site = shutil.copytree(real_site(), tmp_path / "site")
    (site / "index.html").write_text((site / "index.html").read_text("utf-8") + "<!-- mine -->", "utf-8")
    with plain_host(site) as (url, _):
        page = context.new_page()
        page.goto(url)
        page.locator("#figures", has_text="not kept for offline use: a file was changed").wait_for()
        assert write(page, maxTokens="4").startswith("Once upon a time")
