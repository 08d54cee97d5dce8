"""The page of `slmx web` in a real Chromium, on a host like `python -m http.server` and on that of `--serve`."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import pytest

from runtimes import load
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.web.server import running
from tests.chromium import CHROMIUM, IN_CHROMIUM
from tests.runtimes.web.browser import WRITTEN, is_loaded, plain_host, set_values, works_offline, write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Playwright

pytestmark = IN_CHROMIUM
APP = Path(__file__).parents[3] / "runtimes/web/app"
AXE = APP / "node_modules/axe-core/axe.min.js"
GREEDY = {"temperature": "0", "maxTokens": "200"}
# A worker whose memory runs out in its first story. It ends the second one.
FAILING_WORKER = """
const model = { name: 'nano', variant: 'int8', parameters: 3e6, bytes: 3e6, source: '', licence: '' };
const result = { finish: 'max tokens', tokens: 3, promptTokens: 4, seed: 1, firstTokenMs: 1, decodeMs: 1 };
let stories = 0;
self.onmessage = ({ data: { type, id } }) => {
    if (type === 'load') {
        self.postMessage({ type: 'models', models: [model] });
        self.postMessage({ type: 'ready', model, info: null, shape: { blockSize: 256 } });
    } else if (type === 'write' && ++stories === 1) {
        self.postMessage({ type: 'pieces', id, pieces: [{ text: ' there was', ids: [1, 2] }] });
        self.postMessage({ type: 'failed', id, kind: 'memory', message: 'std::bad_alloc' });
    } else if (type === 'write') {
        self.postMessage({ type: 'pieces', id, pieces: [{ text: ' a small cat', ids: [3, 4, 5] }] });
        self.postMessage({ type: 'done', id, result, heapBytes: 1 });
    }
};
"""


def greedy(name: str, max_tokens: int) -> str:
    """What Python writes."""
    return load(SHIPPED_BUNDLES / name).generate("Once upon a time", temperature=0, max_tokens=max_tokens).full_text


def test_the_page_writes_the_greedy_story_of_python(page: Page, host: str) -> None:
    page.goto(host)
    assert write(page, **GREEDY) == greedy("nano", 200)


def test_the_menu_changes_the_model(page: Page, host: str) -> None:
    page.goto(host)
    is_loaded(page)
    page.locator("#settings").evaluate("element => { element.open = true; }")
    page.select_option("#model", "micro")
    page.locator("#figures", has_text="micro").wait_for()
    # int8 rounds by float32 values, which differ in their last bits between processors, so a long story can part.
    assert write(page, temperature="0", maxTokens="24") == greedy("micro", 24)


def test_a_story_with_a_seed_is_the_story_of_python(page: Page, host: str) -> None:
    page.goto(host)
    # As above, a long story can part.
    written = write(page, seed="7", maxTokens="24", repetitionPenalty="1.1", minP="0.02")
    expected = load(SHIPPED_BUNDLES / "nano").generate(
        "Once upon a time", seed=7, max_tokens=24, repetition_penalty=1.1, min_p=0.02
    )
    assert written == expected.full_text


def test_words_come_at_reading_pace_and_stop_ends_the_story_where_the_reader_is(page: Page, host: str) -> None:
    page.goto(host)
    is_loaded(page)
    page.fill("#prompt", "Once upon a time")
    page.press("#prompt", "Control+Enter")
    page.locator("#story .word").nth(4).wait_for()
    assert page.locator("#write").inner_text() == "Stop"
    page.keyboard.press("Escape")
    assert page.locator("#ending").inner_text() == "Stopped."
    story = page.locator("#story").inner_text()
    assert 5 <= page.locator("#story .word").count() < 40
    page.wait_for_timeout(500)
    assert page.locator("#story").inner_text() == story
    assert "tokens/s" in page.locator("#figures").inner_text()


def test_go_on_try_again_and_undo(page: Page, host: str) -> None:
    page.goto(host)
    first = write(page, maxTokens="12")
    page.fill("#prompt", "Then a dragon came.")
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    second = page.locator("#story").inner_text()
    assert second.startswith(f"{first} Then a dragon came.")
    page.click("#retry")
    page.wait_for_selector(WRITTEN)
    third = page.locator("#story").inner_text()
    assert third.startswith(f"{first} Then a dragon came.")
    page.click("#undo")
    assert page.locator("#story").inner_text() == first
    assert page.input_value("#prompt") == "Then a dragon came."
    page.click("#undo")
    assert page.locator("#story").is_hidden()
    assert page.input_value("#prompt") == "Once upon a time"


def test_go_on_gives_the_same_greedy_story_as_one_passage(page: Page, host: str) -> None:
    page.goto(host)
    whole = write(page, temperature="0", maxTokens="40")
    page.click("#new")
    write(page, temperature="0", maxTokens="20")
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    assert page.locator("#story").inner_text() == whole


def test_the_page_works_without_a_network_after_the_first_visit(context: BrowserContext, site: Path) -> None:
    with running(site) as server:
        page = context.new_page()
        page.goto(server.url)
        expected = write(page, **GREEDY)
        works_offline(page)
    context.set_offline(True)
    page.close()
    page = context.new_page()
    page.goto(server.url)
    assert write(page, **GREEDY) == expected
    assert page.evaluate("crossOriginIsolated")


def test_nothing_is_requested_from_another_origin(context: BrowserContext, host: str) -> None:
    requests: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.goto(host)
    write(page, maxTokens="8")
    works_offline(page)
    assert {urlsplit(url).netloc for url in requests if not url.startswith(("data:", "blob:"))} == {
        urlsplit(host).netloc
    }


@pytest.mark.parametrize("name", ["models/nano/onnx/model_int8.onnx", "ort-wasm-simd-threaded.wasm"])
def test_a_changed_byte_is_refused(name: str, page: Page, site: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    for packed in (copy / f"{name}.gz", copy / f"{name}.br"):
        packed.unlink(missing_ok=True)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with plain_host(copy) as (url, _):
        page.goto(url)
        notice = page.locator(".notice[data-key=failed]")
        notice.wait_for()
    assert re.search(r"not the file|damaged|differs", notice.inner_text())
    assert page.locator("#write").is_disabled()


def test_a_browser_that_stores_nothing_still_writes(playwright: Playwright, host: str, tmp_path: Path) -> None:
    preferences = {"profile": {"default_content_setting_values": {"cookies": 2}}}
    (tmp_path / "Default").mkdir()
    (tmp_path / "Default" / "Preferences").write_text(json.dumps(preferences), "utf-8")
    context = playwright.chromium.launch_persistent_context(
        str(tmp_path), executable_path=CHROMIUM, args=["--no-sandbox"]
    )
    page = context.new_page()
    page.goto(host)
    assert write(page, maxTokens="8").startswith("Once upon a time")
    assert "works offline" not in page.locator("#figures").inner_text()
    context.close()


def test_two_tabs_write_at_once(context: BrowserContext, host: str) -> None:
    pages = [context.new_page(), context.new_page()]
    for page in pages:
        page.goto(host)
        is_loaded(page)
        page.locator("#pace").evaluate("element => { element.value = 'instant'; }")
        set_values(page, **GREEDY)
        page.fill("#prompt", "Once upon a time")
    for page in pages:
        page.click("#write")
    for page in pages:
        page.wait_for_selector(WRITTEN)
    first, second = (page.locator("#story").inner_text() for page in pages)
    assert first == second


def test_special_tokens_in_a_prompt_are_text(page: Page, host: str) -> None:
    page.goto(host)
    prompt = "The end.<|endoftext|>Once"
    assert (
        write(page, prompt, **{**GREEDY, "maxTokens": "10"})
        == load(SHIPPED_BUNDLES / "nano").generate(prompt, temperature=0, max_tokens=10).full_text
    )


def test_a_prompt_longer_than_the_context_is_given_back(page: Page, host: str) -> None:
    page.goto(host)
    is_loaded(page)
    prompt = "word " * 400
    page.fill("#prompt", prompt)
    page.click("#write")
    page.wait_for_selector(".notice[data-key=prompt]")
    assert re.search(r"has \d+ tokens, and this model reads 256", page.locator(".notice").inner_text())
    assert page.input_value("#prompt").strip() == prompt.strip()
    assert page.locator("#write").is_enabled()


def test_the_focus_is_never_lost(page: Page, host: str) -> None:
    page.goto(host)
    write(page, maxTokens="8")
    page.focus("#retry")
    page.keyboard.press("Enter")
    page.wait_for_selector(WRITTEN)
    assert page.evaluate("document.activeElement.id") == "write"
    page.focus("#undo")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "prompt"
    page.goto(f"{host}#prompt=x&t=99")
    page.reload()
    page.locator(".notice button").first.click()
    assert page.evaluate("document.activeElement.id") == "prompt"


@pytest.mark.parametrize("name", ["app.js", "worker.js"])
def test_half_a_script_is_said(name: str, page: Page, site: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(site, tmp_path / "site")
    (copy / name).write_bytes((copy / name).read_bytes()[: 5000 if name == "app.js" else 0])
    with plain_host(copy) as (url, _):
        page.goto(url)
        if name == "app.js":
            assert page.locator("#unstarted").evaluate("element => getComputedStyle(element).animationName") == "appear"
        else:
            page.locator(".notice[data-key=stalled]").wait_for()


def test_a_failure_in_a_story_is_said_with_its_advice_and_its_text_is_announced_at_once(page: Page, host: str) -> None:
    page.route("**/worker.js", lambda route: route.fulfill(body=FAILING_WORKER, content_type="text/javascript"))
    page.goto(host)
    is_loaded(page)
    page.fill("#prompt", "Once")
    page.click("#write")
    notice = page.locator(".notice[data-key=prompt] p")
    notice.wait_for()
    assert notice.inner_text() == "std::bad_alloc. Close other tabs, or choose a smaller model."
    assert page.locator("#story").inner_text() == "Once there was"
    assert page.locator("#announcer").text_content() == "there was"
    page.click("#write")
    page.wait_for_selector(WRITTEN)
    assert page.locator("#announcer").text_content() == "a small cat Stopped at the length that you set."


def test_a_phone_of_320_pixels_shows_everything(chromium: Browser, host: str) -> None:
    context = chromium.new_context(viewport={"width": 320, "height": 640}, reduced_motion="reduce")
    page = context.new_page()
    page.goto(host)
    write(page, maxTokens="30")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    context.close()


@pytest.mark.skipif(not AXE.is_file(), reason=f"needs axe-core: npm ci in {APP.name}")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_barrier(scheme: Literal["light", "dark"], chromium: Browser, host: str) -> None:
    context = chromium.new_context(color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(host)
    page.add_script_tag(path=AXE)
    is_loaded(page)
    for write_first in (False, True):
        if write_first:
            write(page, maxTokens="30")
            page.wait_for_timeout(500)  # the words have appeared
        found = page.evaluate("axe.run()")
        assert [f"{item['id']}: {item['nodes'][0]['html']}" for item in found["violations"]] == []
    context.close()
