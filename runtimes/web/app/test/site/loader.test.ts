import assert from "node:assert/strict";
import { gzipSync } from "node:zlib";
import { test, type TestContext } from "node:test";
import { fetchFile, fetchWasm, loadSite, SiteError, type SiteErrorKind, WASM_FILE } from "../../src/site/loader.ts";
import { type Answer, host, MODEL, packing, sending, someFiles, tableOf, WASM } from "./host.ts";

const NAME = "models/nano/onnx/model_int8.onnx";
const HTML = Buffer.from("<!doctype html><title>Not here</title>");

/** Checks that a promise fails with a SiteError for people. */
async function fails(kind: SiteErrorKind, what: RegExp, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(promise, (error: unknown) => {
    assert.ok(error instanceof SiteError, String(error));
    assert.equal(error.kind, kind);
    assert.match(error.message, what);
    assert.match(error.message, /\.$/);
    return true;
  });
}

/** Takes something away from the browser for one test. */
function without(test: TestContext, name: "crypto" | "DecompressionStream"): void {
  const before = Object.getOwnPropertyDescriptor(globalThis, name) as PropertyDescriptor;
  Object.defineProperty(globalThis, name, { value: undefined, configurable: true });
  test.after(() => Object.defineProperty(globalThis, name, before));
}

test("a plain host: large files come packed, small ones as they are, and progress counts unpacked bytes", async (t) => {
  const { site, asked } = await host(t);
  const seen: [number, number][] = [];
  const bytes = await fetchFile(site, NAME, (loaded, total) => seen.push([loaded, total]));
  assert.deepEqual(Buffer.from(bytes), MODEL);
  assert.deepEqual(seen.at(-1), [MODEL.length, MODEL.length]);
  assert.ok(seen.every(([loaded, total], index) => total === MODEL.length && loaded > (seen[index - 1]?.[0] ?? 0)));
  assert.equal(new TextDecoder().decode(await fetchFile(site, "models/nano/tokenizer.json")), '{"model":"é"}');
  assert.deepEqual(asked, [`HEAD ${NAME}`, `GET ${NAME}.gz`, "GET models/nano/tokenizer.json"]);
});

for (const coding of ["gzip", "br"] as const) {
  test(`a host that packs with ${coding} is asked for the file itself`, async (t) => {
    const files = someFiles();
    const { site, asked } = await host(t, packing(coding, files), files);
    assert.deepEqual(Buffer.from(await fetchFile(site, NAME)), MODEL);
    assert.ok((await fetchWasm(site)) instanceof WebAssembly.Module);
    assert.deepEqual(asked, [`HEAD ${NAME}`, `GET ${NAME}`, `GET ${WASM_FILE}`]);
  });
}

test("a host that marks .gz files as encoded, so that the browser unpacks them", async (t) => {
  const { site, asked } = await host(t, sending(`${NAME}.gz`, gzipSync(MODEL), { "content-encoding": "gzip" }));
  assert.deepEqual(Buffer.from(await fetchFile(site, NAME)), MODEL);
  assert.deepEqual(asked, [`HEAD ${NAME}`, `GET ${NAME}.gz`]);
});

test("a host that packs packed files again", async (t) => {
  const twice = gzipSync(gzipSync(MODEL));
  const { site } = await host(t, sending(`${NAME}.gz`, twice, { "content-encoding": "gzip" }));
  assert.deepEqual(Buffer.from(await fetchFile(site, NAME)), MODEL);
});

const WITHOUT_GZ: Record<string, Answer> = {
  "no such file": sending(`${NAME}.gz`, Buffer.from("gone"), {}, 404),
  "a host that forbids it": sending(`${NAME}.gz`, Buffer.from("no"), {}, 403),
  "a page in place of the file": sending(`${NAME}.gz`, HTML, { "content-type": "text/html; charset=utf-8" }),
  "half a file": sending(`${NAME}.gz`, gzipSync(MODEL).subarray(0, 60_000)),
  "a file of another version": sending(`${NAME}.gz`, gzipSync(Buffer.alloc(MODEL.length))),
  "no HEAD": (name, request, response) => {
    if (request.method !== "HEAD" && name !== `${NAME}.gz`) return false;
    response.writeHead(request.method === "HEAD" ? 501 : 404).end();
    return true;
  },
};
for (const [what, answer] of Object.entries(WITHOUT_GZ)) {
  test(`where the packed copy is of no use, the file itself is taken: ${what}`, async (t) => {
    const { site, asked } = await host(t, answer);
    assert.deepEqual(Buffer.from(await fetchFile(site, NAME)), MODEL);
    assert.equal(asked.at(-1), `GET ${NAME}`);
  });
}

test("a browser that cannot unpack, and a page without crypto.subtle", async (t) => {
  without(t, "DecompressionStream");
  without(t, "crypto");
  const { site, asked } = await host(t);
  assert.deepEqual(Buffer.from(await fetchFile(site, NAME)), MODEL);
  assert.deepEqual(asked, [`GET ${NAME}`]);
});

test("without crypto.subtle a changed byte is found too", async (t) => {
  without(t, "crypto");
  const changed = Buffer.from(MODEL);
  changed[70_000]! ^= 1;
  const { site } = await host(t, (name, ...rest) => [NAME, `${NAME}.gz`].some((file) => name === file && sending(file, changed)(name, ...rest)));
  await fails("damaged", /model_int8.onnx is not the file of this site: its SHA-256 differs/, fetchFile(site, NAME));
});

const SMALL = "models/nano/tokenizer.json";
const WRONG: Record<string, [Buffer, SiteErrorKind, RegExp]> = {
  "a changed byte": [Buffer.from('{"model":"è"}'), "damaged", /SHA-256 differs/],
  "a byte too few": [Buffer.from('{"model":"é"'), "damaged", /only 13 of its 14 bytes came/],
  "a byte too many": [Buffer.from('{"model":"é"} '), "damaged", /more than its 14 bytes/],
  "nothing": [Buffer.alloc(0), "damaged", /only 0 of its 14 bytes came/],
};
for (const [what, [content, kind, message]] of Object.entries(WRONG)) {
  test(`a file is never used when it is wrong: ${what}`, async (t) => {
    const { site, asked } = await host(t, sending(SMALL, content));
    await fails(kind, message, fetchFile(site, SMALL));
    assert.deepEqual(asked, [`GET ${SMALL}`, `GET ${SMALL}`, "GET site.json"], "the second time past the browser's cache");
  });
}

test("a stale copy in the browser's cache is asked for again", async (t) => {
  let times = 0;
  const stale: Answer = (name, request, response) => {
    if (name !== SMALL) return false;
    times += 1;
    return times === 1 && sending(SMALL, Buffer.from("old"))(name, request, response);
  };
  const { site } = await host(t, stale);
  assert.equal(new TextDecoder().decode(await fetchFile(site, SMALL)), '{"model":"é"}');
});

test("a file of a newer version of the site says to reload the page", async (t) => {
  const { site, files } = await host(t);
  files.set(SMALL, Buffer.from('{"model":"new"}'));
  files.set("site.json", Buffer.from(JSON.stringify(tableOf(files))));
  await fails("damaged", /changed after this page was opened.*Reload the page/, fetchFile(site, SMALL));
});

test("a missing file, a page in its place, and a host in trouble", async (t) => {
  const answers: [Answer, SiteErrorKind, RegExp][] = [
    [sending(SMALL, Buffer.alloc(0), {}, 404), "missing", /tokenizer.json is missing on 127.0.0.1/],
    [sending(SMALL, HTML, { "content-type": "text/html" }), "missing", /tokenizer.json is missing/],
    [sending(SMALL, HTML, { "content-type": "text/html" }, 404), "missing", /tokenizer.json is missing/],
    [sending(SMALL, Buffer.alloc(0), {}, 503), "other", /answers with the status 503/],
  ];
  for (const [answer, kind, message] of answers) {
    const { site } = await host(t, answer);
    await fails(kind, message, fetchFile(site, SMALL));
  }
});

test("a name that the site does not list", async (t) => {
  const { site, asked } = await host(t);
  for (const name of ["nothing.js", "../app.js", "constructor", "__proto__"]) await fails("missing", /Make it again/, fetchFile(site, name));
  assert.deepEqual(asked, []);
});

test("a connection that breaks", async (t) => {
  const { site } = await host(t, (name, _request, response) => {
    if (name !== SMALL) return false;
    response.writeHead(200, { "content-length": 14 });
    response.write("{", () => response.destroy());
    return true;
  });
  await fails("offline", /connection broke while models.nano.tokenizer.json was loading/, fetchFile(site, SMALL));
});

test("a host that is out of reach", async (t) => {
  const { site } = await host(t);
  const gone = { ...site, base: new URL("http://127.0.0.1:1/") };
  await fails("offline", /127.0.0.1:1 is out of reach/, fetchFile(gone, SMALL));
  await fails("offline", /site.json cannot be loaded/, loadSite(gone.base));
});

test("a transfer can be ended", async (t) => {
  const abort = new AbortController();
  const { site } = await host(t, (name, _request, response) => {
    if (name !== SMALL) return false;
    response.writeHead(200, { "content-length": 14 });
    response.write("{");
    return true;
  });
  const promise = fetchFile(site, SMALL, () => abort.abort(), abort.signal);
  await assert.rejects(promise, { name: "AbortError" });
});

test("onnxruntime is compiled from the packed file, without the type of the host", async (t) => {
  const { site, asked } = await host(t);
  const seen: number[] = [];
  assert.ok((await fetchWasm(site, (loaded) => seen.push(loaded))) instanceof WebAssembly.Module);
  assert.equal(seen.at(-1), WASM.length);
  assert.deepEqual(asked, [`HEAD ${WASM_FILE}`, `GET ${WASM_FILE}.gz`]);
});

test("a module is never used when its hash is wrong, though it compiles", async (t) => {
  const other = Buffer.from(WASM);
  other[other.length - 1]! ^= 1;
  const { site } = await host(t, (name, ...rest) => [WASM_FILE, `${WASM_FILE}.gz`].some((file) => name === file && sending(file, other)(name, ...rest)));
  await fails("damaged", /SHA-256 differs/, fetchWasm(site));
});

test("a module that the compiler refuses comes as bytes", async (t) => {
  const files = someFiles();
  files.set(WASM_FILE, Buffer.from("no module"));
  files.delete(`${WASM_FILE}.gz`);
  files.set("site.json", Buffer.from(JSON.stringify(tableOf(files))));
  const { site } = await host(t, undefined, files);
  const found = await fetchWasm(site);
  assert.ok(found instanceof ArrayBuffer);
  assert.equal(Buffer.from(found).toString(), "no module");
});

test("a browser that cannot compile while it loads gets bytes", async (t) => {
  const before = WebAssembly.compileStreaming;
  t.after(() => Object.assign(WebAssembly, { compileStreaming: before }));
  Object.assign(WebAssembly, { compileStreaming: undefined });
  const { site } = await host(t);
  const found = await fetchWasm(site);
  assert.ok(found instanceof ArrayBuffer);
  assert.deepEqual(Buffer.from(found), WASM);
});

test("site.json is checked", async (t) => {
  const good = tableOf(someFiles());
  const entry = { bytes: 1, sha256: "0".repeat(64) };
  const model = (good["models"] as object[])[0];
  const bad: [unknown, RegExp][] = [
    [null, /not an object/],
    [[], /not an object/],
    [{ ...good, format_version: 2 }, /another version/],
    [{ ...good, version: "x" }, /another version/],
    [{ ...good, files: [] }, /not an object/],
    ...["../x", "/x", "a//b", "a/../b", "https://elsewhere/x", "a\\b", "", ".x", "x%2e", "a?b"].map(
      (name): [unknown, RegExp] => [{ ...good, files: { [name]: entry } }, /outside the site/],
    ),
    [{ ...good, files: { x: { ...entry, bytes: -1 } } }, /bytes is not a count/],
    [{ ...good, files: { x: { ...entry, bytes: 2 ** 32 } } }, /bytes is not a count/],
    [{ ...good, files: { x: { ...entry, sha256: "x" } } }, /SHA-256/],
    [{ ...good, files: { x: { ...entry, gz: "1" } } }, /gz is not a count/],
    [{ ...good, models: [] }, /no model/],
    [{ ...good, models: [{ ...model, name: 1 }] }, /name is not a text/],
    [{ ...good, models: [{ ...model, model: "nothing" }] }, /does not list nothing/],
  ];
  const { base, files } = await host(t);
  for (const [values, message] of bad) {
    files.set("site.json", Buffer.from(JSON.stringify(values)));
    await fails("damaged", message, loadSite(base));
  }
  files.set("site.json", Buffer.from('{"format_version": 1, '));
  await fails("damaged", /not whole/, loadSite(base));
  files.delete("site.json");
  await fails("missing", /site.json is missing/, loadSite(base));
});
