/** The zero-copy path is used only if it works; the public API replaces it, and says why. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Cache, Logits } from "../../src/engine/cache.ts";
import { Session } from "../../src/engine/session.ts";
import { NANO, WASM, changedManifest, engineOf, opened, sabotaged, shapeOf, written } from "./models.ts";
import { wasmBytes } from "./files.ts";

const PROMPT = [10, 20, 30, 40, 50];
const caches: Cache[] = [];
after(() => caches.forEach((cache) => cache.dispose()));

async function session(scripts?: URL): Promise<{ session: Session; path: string; reason: string | undefined }> {
  const { cache, path, reason } = await opened(NANO, scripts);
  caches.push(cache);
  return { session: new Session(cache, shapeOf(NANO)), path, reason };
}

function distance(one: Logits, other: Logits): number {
  return one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i]!)), 0);
}

const AFTER_RUN = (work: string): string => `const run = m._OrtRun; m._OrtRun = (...a) => { const r = run(...a); ${work}; return r; }`;
/** `d` is the address of the keys of the first layer. */
const KEYS =
  "const s = m.stackAlloc(16); m._OrtGetTensorData(m.getValue(a[6] + 4, '*'), s, s + 4, s + 8, s + 12); " +
  "const d = m.getValue(s + 4, '*')";
const POSITION = 4 * shapeOf(NANO).headSize;
const SABOTAGE: [string, string, RegExp][] = [
  ["a missing function", "delete m._OrtGetTensorData", /has no _OrtGetTensorData/],
  ["a missing heap", "delete m.HEAPU8", /heap/],
  ["a wide heap", "m.PTR_SIZE = 8", /heap of 32 bits/],
  ["a run that fails", "m._OrtRun = () => 1", /cannot run this model/],
  ["a run that does nothing", "m._OrtRun = () => 0", /logits are no numbers, or are not written in place/],
  ["a run that answers later", "const run = m._OrtRun; m._OrtRun = async (...a) => run(...a)", /cannot run this model/],
  [
    "a cache that is not written in place",
    AFTER_RUN(`${KEYS}; m.HEAPU8.fill(0, d, d + ${POSITION})`),
    /position 0 of the cache is not written/,
  ],
  [
    "a cache that is written elsewhere",
    AFTER_RUN(`${KEYS}; m.HEAPU8[d + 200 * ${POSITION}] = 1`),
    /position 200 of the cache is written/,
  ],
  [
    "outputs of its own",
    "const get = m._OrtGetTensorData; m._OrtGetTensorData = (...a) => { get(...a); m.setValue(a[2], 16, '*'); return 0; }",
    /not in our memory/,
  ],
  [
    "a mask that is not read",
    "const run = m._OrtRun; let n = 0; m._OrtRun = (...a) => { const r = run(...a); if (n++ === 3) spoil(m, a); return r; }; " +
      "const spoil = (m, a) => { const s = m.stackAlloc(16); m._OrtGetTensorData(m.getValue(a[6], '*'), s, s + 4, s + 8, s + 12); " +
      "m.HEAPU8[m.getValue(s + 4, '*')] ^= 1; }",
    /reads positions that were removed/,
  ],
];

for (const [name, change, reason] of SABOTAGE) {
  test(`${name} leads to the public API`, async () => {
    const found = await session(sabotaged(change));
    assert.equal(found.path, "public API");
    assert.match(found.reason!, reason);
    assert.equal((await found.session.read(PROMPT)).length, shapeOf(NANO).vocabSize);
  });
}

test("both paths give the same logits", async () => {
  const [fast, slow] = [await session(), await session(sabotaged("delete m._malloc"))];
  assert.deepEqual([fast.path, slow.path], ["zero-copy", "public API"]);
  const both = async (work: (session: Session) => Logits | Promise<Logits>, most = 1e-4): Promise<void> => {
    const ours = Float32Array.from(await work(fast.session));
    assert.ok(distance(ours, await work(slow.session)) < most);
  };
  // The public API computes the logits of the whole prompt, and int8 rounds them together.
  await both((session) => session.read(PROMPT), 0.5);
  for (const id of [60, 70, 80]) await both((session) => session.step(id));
  await both((session) => session.read([...PROMPT.slice(0, 3), 90]));
  await both((session) => session.step(1));
});

test("a story of the public API is that of the zero-copy path", async () => {
  const [fast, slow] = [await engineOf(), await engineOf(NANO, sabotaged("delete m._malloc"))];
  assert.equal(fast.info.path, "zero-copy");
  assert.equal(slow.info.path, "public API");
  assert.match(slow.info.reason!, /_malloc/);
  assert.ok(fast.info.bytesCopiedPerToken === 12 && slow.info.bytesCopiedPerToken > 1000);
  // A prompt of one token: the public API computes the logits of a whole prompt, and int8 rounds them together.
  assert.deepEqual((await written(slow, [], undefined, 12)).ids, (await written(fast, [], undefined, 12)).ids);
  fast.dispose();
  slow.dispose();
});

test("the module may come as bytes", async () => {
  const engine = await engineOf({ ...NANO, wasm: wasmBytes() });
  assert.equal(engine.info.path, "zero-copy");
  engine.dispose();
});

test("two threads give the logits of one", async () => {
  const { openModel } = await import("../../src/engine/open.ts");
  const { SCRIPTS } = await import("./files.ts");
  const shape = shapeOf(NANO);
  const [one, two] = [await session(), await openModel(NANO, shape, { threads: 2, scripts: SCRIPTS })];
  caches.push(two.cache);
  assert.equal(two.path, "zero-copy");
  const expected = Float32Array.from(await one.session.read(PROMPT));
  assert.ok(distance(expected, await new Session(two.cache, shape).read(PROMPT)) < 1e-4);
});

test("a model that is no model is refused with onnxruntime's reason", async () => {
  await assert.rejects(opened({ ...NANO, wasm: WASM, model: new Uint8Array(100) }), /model|protobuf/i);
});

test("a graph of another shape is refused", async () => {
  for (const name of ["n_layer", "n_head", "vocab_size"]) {
    const files = changedManifest(NANO, (shape) => (shape[name]! *= 2));
    await assert.rejects(opened(files), /fit manifest.json/, name);
  }
  const fewer = changedManifest(NANO, (shape) => (shape["n_layer"]! -= 1));
  await assert.rejects(opened(fewer), /more than 3 layers/);
});

test("a manifest without sizes is refused by name", () => {
  assert.throws(() => shapeOf(changedManifest(NANO, (shape) => delete shape["n_embd"])), /n_embd/);
  assert.throws(() => shapeOf({ ...NANO, manifest: "{}" }), /manifest.json does not say n_head/);
});
