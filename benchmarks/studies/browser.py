"""Measures stories in Chromium: python -m benchmarks.studies.browser --out docs/browser.json (make web-bench).

It needs Node.js and npm, and a Chromium that playwright can drive. The three sides write the same greedy story with the
same bundle, in a worker on one thread, each in a fresh page, in turn: slmx's engine, a bare loop over onnxruntime-web's
public API, and transformers.js. Then the page of `slmx web` is visited as a person would: a first visit, and a second
one without a network.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from benchmarks.child import output_of
from benchmarks.program import run
from benchmarks.studies.results import Out, Rounds, write_results
from runtimes.bundle.location import SHIPPED_BUNDLES
from runtimes.system.timing import Samples
from runtimes.web.assets import read_page
from runtimes.web.server import SiteHandler, running
from slm.console.errors import SlmxError, needs

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Playwright

HERE = Path(__file__).parents[1] / "browser"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
SIDES = ("slmx", "public API", "transformers.js")
TOKENS = 200
STORIES = 6
PICTURE_SEED = 7
WARM = 100  # the last tokens of the last story
READING = "nano int8, read for 3 s"  # the case in which a person reads the page, and each story, before the next
READING_MS = 3000
# Name of a case: the preset, the options of slmx export, the file in the bundle, and transformers.js's name for it.
CASES = {
    "nano int8": ("nano", [], "onnx/model_int8.onnx", "int8"),
    "nano fp16": ("nano", ["--fp16"], "onnx/model_fp16.onnx", "fp16"),
    "nano fp32": ("nano", [], "onnx/model.onnx", "fp32"),
    "micro int8": ("micro", [], "onnx/model_int8.onnx", "int8"),
    READING: ("nano", [], "onnx/model_int8.onnx", "int8"),
}
COMPARED = ("nano int8", "micro int8")  # the other cases are measured for slmx alone
PAGE = "<!doctype html><title>benchmark</title><script>worker = new Worker('/sides.js', { type: 'module' })</script>"
RUN = """task => new Promise((resolve) => {
    worker.onmessage = (event) => resolve(event.data);
    worker.onerror = (event) => resolve({ error: event.message || 'the worker could not start' });
    worker.postMessage(task);
})"""


class _CountingHandler(SiteHandler):
    """Serves a site as `slmx web --serve` does, and counts the bytes that it sends."""

    sent: ClassVar[int] = 0

    def setup(self) -> None:
        super().setup()
        write = self.wfile.write

        def counted(data: Any) -> int:  # noqa: ANN401  # any bytes-like object
            type(self).sent += len(data)
            return write(data)

        self.wfile.write = counted  # type: ignore[method-assign]


def find_chromium() -> str:
    """Returns the path of a Chromium; SlmxError if there is none on PATH."""
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        raise SlmxError("no Chromium on PATH; install it (Debian: apt-get install chromium)")
    return found


def _build(folder: Path) -> None:
    """Puts the page, the worker with the three sides, and onnxruntime-web's files into a folder."""
    if not (HERE / "node_modules").is_dir():
        install = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        output_of(install, "npm ci", cwd=HERE, shows_errors=True)
    bundle = ["node_modules/.bin/esbuild", "sides.ts", "--bundle", "--format=esm", "--target=es2022", "--minify"]
    bundle += [f"--outfile={folder / 'sides.js'}", "--log-level=warning"]
    output_of(bundle, "esbuild", cwd=HERE, shows_errors=True)
    (folder / "index.html").write_text(PAGE, "utf-8", newline="\n")
    ours, theirs = HERE / "node_modules", HERE / "node_modules/@huggingface/transformers/node_modules"
    for name, packages in (("ort", ours), ("transformers-ort", theirs if theirs.is_dir() else ours)):
        (folder / name).mkdir()
        for file in (packages / "onnxruntime-web/dist").glob("ort-wasm-simd-threaded*"):
            shutil.copy(file, folder / name)
    (folder / "slmx").mkdir()
    for built, content in read_page().items():
        (folder / "slmx" / built).write_bytes(content)


def _export(folder: Path) -> dict[str, dict[str, Any]]:
    """Exports the bundles of all cases below a folder, and returns what the worker needs for each."""
    tasks = {}
    for case, (preset, options, file, dtype) in CASES.items():
        name = case.replace(" ", "-").replace(",", "")
        if options or file == "onnx/model.onnx":
            command = [sys.executable, "-m", "slm", "export", "--preset", preset, *options, "--out", str(folder / name)]
            output_of(command, f"slmx export for {case}")
        else:
            shutil.copytree(SHIPPED_BUNDLES / preset, folder / name)
        tasks[case] = {"bundle": f"/{name}/", "file": file, "dtype": dtype, "tokens": TOKENS, "stories": STORIES}
        tasks[case]["readingMs"] = READING_MS if case == READING else 0
    return tasks


def rates(stories: list[list[float]]) -> dict[str, float]:
    """Returns tokens/s of the first story, of the second, and of the last tokens of the last, once all is warm.

    Args:
        stories: For each story, the milliseconds from its start to each token.
    """

    def rate(times: list[float]) -> float:
        return (len(times) - 1) * 1000 / (times[-1] - times[0])

    return {"first story": rate(stories[0]), "second story": rate(stories[1]), "warm": rate(stories[-1][-WARM:])}


def measure_engine(browser: Browser, url: str, tasks: dict[str, dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Runs every case on every side in turn, each in a fresh page.

    Returns:
        By case and side: the samples of each rate, and the ids of the first story.
    """
    found: dict[str, Any] = {}
    order = random.Random(0)
    for number in range(rounds):
        for case, task in tasks.items():
            for side in order.sample(SIDES, len(SIDES)) if case in COMPARED else SIDES[:1]:
                page = browser.new_page()
                page.goto(url)
                answer = page.evaluate(RUN, {**task, "side": side})
                page.close()
                if "error" in answer:
                    raise SlmxError(f"{case}, {side}: {answer['error']}")
                outcome = answer["outcome"]
                record = found.setdefault(case, {}).setdefault(
                    side, {"rates": {}, "load_ms": [], "ids": outcome["ids"]}
                )
                for name, value in rates(outcome["stories"]).items():
                    record["rates"].setdefault(name, []).append(round(value, 1))
                record["load_ms"].append(round(outcome["loadMs"], 1))
                record["copied_bytes_per_token"] = outcome["copiedBytesPerToken"]
        typer.echo(f"engine: round {number + 1} of {rounds}", err=True)
    return found


WATCH = """
window.longTasks = [];
new PerformanceObserver((list) => list.getEntries().forEach((entry) => window.longTasks.push(entry.duration)))
    .observe({ type: 'longtask', buffered: true });
window.firstWord = new Promise((resolve) => new MutationObserver((_, observer) => {
    if (!document.querySelector('#story .word')) return;
    observer.disconnect();
    resolve(performance.now());
}).observe(document, { childList: true, subtree: true }));
"""


def _visit(context: BrowserContext, url: str) -> dict[str, float]:
    """Opens the page, clicks an example at once, and waits for the end of the story.

    Returns:
        Milliseconds from the start of the navigation to the first word, the longest task of the page's main thread in
        milliseconds (0 if none took 50), and the tokens/s that the page shows.
    """
    page = context.new_page()
    page.add_init_script(WATCH)
    page.goto(url, wait_until="commit")
    page.locator("#examples button").first.click()
    first = page.evaluate("window.firstWord")
    page.evaluate("document.querySelector('#pace').value = 'instant'")
    page.wait_for_selector("#ending:not([hidden])")
    page.locator("#figures", has_text="works offline").wait_for()
    longest = page.evaluate("Math.max(0, ...window.longTasks)")
    shown = page.locator("#figures").inner_text().split(" ")[0].replace(",", "")
    page.close()
    return {"first_word_ms": round(first, 1), "longest_task_ms": round(longest, 1), "tokens_per_second": float(shown)}


def measure_page(playwright: Playwright, chromium: str, site: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Visits the site of nano as a person would, each round with a new profile of the browser.

    Returns:
        By visit, the figures of `_visit`. The first visit also has the bytes on the wire.
    """
    found: dict[str, list[dict[str, float]]] = {"first visit": [], "second visit, offline": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as profile:
            context = playwright.chromium.launch_persistent_context(
                profile, executable_path=chromium, args=["--no-sandbox"]
            )
            _CountingHandler.sent = 0
            with running(site, _CountingHandler) as server:
                first = _visit(context, server.url)
            first["wire_bytes"] = _CountingHandler.sent
            found["first visit"].append(first)
            context.set_offline(True)
            found["second visit, offline"].append(_visit(context, server.url))
            context.close()
    return found


def table(engine: dict[str, Any], page: dict[str, list[dict[str, float]]]) -> str:
    """Returns Markdown: tokens/s of every case and side, with the spread, and the figures of the page."""
    lines = [
        "| bundle | side | first story | second story | warm | slmx is, in the second story |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for case, sides in engine.items():
        for side, record in ((side, sides[side]) for side in SIDES if side in sides):
            cells = [Samples(samples) for samples in record["rates"].values()]
            pairs = zip(sides["slmx"]["rates"]["second story"], record["rates"]["second story"], strict=True)
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            same = "" if record["ids"] == sides["slmx"]["ids"] else " (other tokens)"
            shown = " | ".join(f"{cell.median:,.0f} ±{cell.spread:.0%}" for cell in cells)
            compared = "" if side == "slmx" else f"{ratio:.2f} times as fast"
            lines.append(f"| {case} | {side}{same} | {shown} | {compared} |")
    lines += ["", "| visit | first word, ms | longest task, ms | on the wire, MB |", "|---|---:|---:|---:|"]
    for visit, samples in page.items():
        words, tasks = (Samples([sample[name] for sample in samples]) for name in ("first_word_ms", "longest_task_ms"))
        wire = f"{samples[0]['wire_bytes'] / 1e6:.2f}" if "wire_bytes" in samples[0] else "0"
        lines.append(f"| {visit} | {words.median:,.0f} ±{words.spread:.0%} | {tasks.median:,.0f} | {wire} |")
    return "\n".join(lines)


def take_pictures(browser: Browser, site: Path, folder: Path) -> None:
    """Takes pictures of a finished story, on a desktop and on a phone, light and dark."""
    folder.mkdir(exist_ok=True)
    with running(site) as server:
        for device, width, height in (("desktop", 1200, 900), ("phone", 390, 844)):
            for scheme in ("light", "dark"):
                context = browser.new_context(
                    viewport={"width": width, "height": height}, color_scheme="dark" if scheme == "dark" else "light"
                )
                page = context.new_page()
                page.goto(f"{server.url}#prompt=The+little+dragon+could+not+sleep&s={PICTURE_SEED}")
                page.locator("#loading").wait_for(state="hidden")
                page.locator("#pace").evaluate("element => { element.value = 'instant'; }")
                page.locator("#write").click()
                page.locator("#ending").wait_for()
                page.locator("#figures", has_text="works offline").wait_for()
                page.wait_for_timeout(500)  # the words have appeared
                page.screenshot(path=folder / f"{device}-{scheme}.png", full_page=device == "desktop")
                context.close()


def main(
    rounds: Rounds = 5,
    pictures: Annotated[Path | None, typer.Option(help="Folder for pictures of the page.")] = None,
    out: Out = None,
) -> None:
    """Print the tables."""
    with needs("dev"):
        from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder, site = Path(name) / "engine", Path(name) / "site"
        folder.mkdir()
        _build(folder)
        tasks = _export(folder)
        output_of([sys.executable, "-m", "slm", "web", "nano", "--out", str(site)], "slmx web")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        packages = {"chromium": browser.version, **json.loads((HERE / "package.json").read_bytes())["dependencies"]}
        with running(folder) as server:
            engine = measure_engine(browser, server.url, tasks, rounds)
        if pictures is not None:
            take_pictures(browser, site, pictures)
        browser.close()
        page = measure_page(playwright, chromium, site, rounds)
    typer.echo(table(engine, page))
    settings = {"rounds": rounds, "tokens": TOKENS, "stories": STORIES}
    write_results(out, settings, {"engine": engine, "page": page}, packages=packages)


if __name__ == "__main__":
    run(main)
