import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { fetchFile, fetchWasm, type SiteError, SITE_FILE } from "../../src/site/loader.ts";
import { cacheName, isOfSite, typeOf } from "../../src/site/store.ts";
import { host, MODEL } from "./host.ts";

const NAME = "models/nano/onnx/model_int8.onnx";

/** Gives this process caches of a browser for one test. */
function caches(test: TestContext, get: () => unknown): void {
  Object.defineProperty(globalThis, "caches", { get, configurable: true });
  test.after(() => Reflect.deleteProperty(globalThis, "caches"));
}

function failing(name: string): Promise<never> {
  return Promise.reject(new DOMException("no", name));
}

test("a browser that denies its caches, at any call, still gets every file", async (t) => {
  const denials: [() => unknown, boolean][] = [
    [() => { throw new DOMException("no", "SecurityError"); }, false],
    [() => undefined, false],
    [() => ({ keys: () => failing("SecurityError"), open: () => failing("SecurityError") }), true],
    [() => ({ keys: () => Promise.resolve([]), open: () => Promise.resolve({ put: () => failing("QuotaExceededError") }) }), true],
  ];
  for (const [get, told] of denials) {
    const { site } = await host(t);
    const problems: SiteError[] = [];
    site.onStorageProblem = (error) => problems.push(error);
    caches(t, get);
    assert.deepEqual(Buffer.from(await fetchFile(site, NAME)), MODEL);
    assert.ok((await fetchWasm(site)) instanceof WebAssembly.Module);
    assert.deepEqual(problems.map(({ kind }) => kind), told ? ["storage", "storage"] : []);
  }
});

test("a full storage and a denied one are told apart", async (t) => {
  for (const [name, message] of [["QuotaExceededError", /storage is full/], ["SecurityError", /denies this page storage/]] as const) {
    const { site } = await host(t);
    let problem: SiteError | null = null;
    site.onStorageProblem = (error) => (problem = error);
    caches(t, () => ({ keys: () => Promise.resolve([]), open: () => failing(name) }));
    await fetchFile(site, "app.js");
    assert.match(String(problem), message);
    assert.match(String(problem), /With a network the page works/);
  }
});

test("the caches of a site are those of its folder, in any version", async (t) => {
  const { site } = await host(t);
  const version = "0".repeat(64);
  assert.equal(cacheName(site), `slmx:/some%20where/:${site.version}`);
  assert.ok(isOfSite(site, cacheName(site)));
  assert.ok(isOfSite(site, `slmx:/some%20where/:${version}`));
  for (const other of [`slmx:/:${version}`, `slmx:/some%20where/b/:${version}`, `slmx:/some%20where/:x/:${version}`, "slmx:/some%20where/:", "workbox"]) {
    assert.ok(!isOfSite(site, other), other);
  }
});

test("files have the types that browsers insist on", () => {
  assert.equal(typeOf("a.wasm"), "application/wasm");
  assert.match(typeOf("a.mjs"), /^text\/javascript/);
  assert.equal(typeOf(SITE_FILE), "application/json");
  assert.equal(typeOf("models/a.b/onnx/model.onnx"), "application/octet-stream");
});
