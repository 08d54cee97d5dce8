/** An engine writes what Python writes, stops when it is told, and lets the event loop run. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { LONGEST_SLICE } from "../../src/engine/pauses.ts";
import type { Sampling } from "../../src/engine/types.ts";
import { SCRIPTS, modelFiles, shippedFolder, vectors } from "./files.ts";
import { GREEDY, NANO, WASM, engineOf, written } from "./models.ts";

interface Story {
  manifest: string;
  variant: string;
  prompt: string;
  ids: number[];
  finish: string;
}

const SAMPLED: Sampling = { temperature: 0.9, topK: 40, topP: 0.95, minP: 0, repetitionPenalty: 1, seed: 7 };
const AGREEMENT = 0.9; // another processor adds in another order, so int8 rounds some activations to another level
const stories = vectors<Record<string, Story>>("stories.json");
const engine = await engineOf();
after(() => engine.dispose());
const PROMPT = engine.encode("Once upon a time");

for (const [name, story] of Object.entries(stories)) {
  test(`${name} chooses the ids that Python's int8 wrote, given those before them`, async () => {
    const folder = shippedFolder(name);
    const manifest = createHash("sha256").update(readFileSync(join(folder, "manifest.json"))).digest("hex");
    assert.equal(manifest, story.manifest, "run python -m tests.runtimes.web.vectors");
    const model = await engineOf(modelFiles(folder, WASM, story.variant));
    assert.equal(model.info.path, "zero-copy");
    const prompt = model.encode(story.prompt);
    const whole = await written(model, prompt, GREEDY, 200);
    let agreed = 0;
    while (whole.ids[agreed] === story.ids[agreed] && agreed < story.ids.length) agreed++;
    if (agreed === story.ids.length) assert.equal(whole.finish, story.finish);
    let same = agreed;
    for (let i = agreed; i < story.ids.length; i++) {
      same += Number((await written(model, [...prompt, ...story.ids.slice(0, i)], GREEDY, 1)).ids[0] === story.ids[i]);
    }
    assert.ok(same >= AGREEMENT * story.ids.length, `${same} of ${story.ids.length}; the first ${agreed} without help`);
    model.dispose();
  });
}

test("the same seed writes the same story, also after another one", async () => {
  const first = await written(engine, PROMPT, SAMPLED, 30);
  const other = await written(engine, PROMPT, { ...SAMPLED, seed: 8 }, 30);
  assert.notDeepEqual(other.ids, first.ids);
  assert.deepEqual((await written(engine, PROMPT, SAMPLED, 30)).ids, first.ids);
  assert.equal(first.seed, 7);
});

test("a story that goes on is the story that was not interrupted", async () => {
  const whole = await written(engine, PROMPT, GREEDY, 40);
  const half = await written(engine, PROMPT, GREEDY, 20);
  const rest = await written(engine, [...PROMPT, ...half.ids], GREEDY, 20);
  assert.deepEqual([...half.ids, ...rest.ids], whole.ids);
  assert.equal(rest.promptTokens, 1 + PROMPT.length + 20);
});

test("the id that begins a text is added once", async () => {
  const [without, with_] = [PROMPT, [engine.shape.begin, ...PROMPT]];
  assert.deepEqual((await written(engine, with_, GREEDY, 5)).ids, (await written(engine, without, GREEDY, 5)).ids);
  assert.equal((await written(engine, [], GREEDY, 1)).promptTokens, 1);
});

test("a story ends at its maximum, at a full context and at its end", async () => {
  assert.deepEqual(summary(await written(engine, PROMPT, GREEDY, 1)), ["max tokens", 1]);
  const { blockSize, begin } = engine.shape;
  const full = Array.from({ length: blockSize }, (_, i) => (i ? 5 + i : begin));
  for (const [length, tokens] of [[blockSize, 1], [blockSize - 3, 4]] as const) {
    const found = new Set<string>();
    for (let seed = 0; seed < 8; seed++) {
      const story = await written(engine, full.slice(0, length), { ...SAMPLED, seed });
      if (story.finish === "context full") assert.equal(story.tokens, tokens);
      found.add(story.finish);
    }
    assert.ok(found.has("context full"));
  }
  await assert.rejects(written(engine, [...full, 5], GREEDY), /257 tokens do not fit the context of 256/);
});

test("a story ends at the id that ends a text, which has no text", async () => {
  const { ids } = await written(engine, PROMPT, GREEDY, 6);
  const end = ids.at(-1)!;
  const names = [{ id: end, content: "<|endoftext|>" }, { id: engine.shape.begin, content: "<b>" }];
  const tokenizer = JSON.stringify({ ...(JSON.parse(NANO.tokenizer) as object), added_tokens: names });
  const manifest = JSON.stringify({ ...(JSON.parse(NANO.manifest) as object), tokenizer: { begin: "<b>" } });
  const model = await engineOf({ ...NANO, tokenizer, manifest });
  const story = await written(model, PROMPT, GREEDY);
  assert.equal(story.finish, "end of text");
  assert.deepEqual(story.ids, ids.slice(0, ids.indexOf(end)));
  model.dispose();
});

function summary({ finish, ids, tokens }: { finish: string; ids: number[]; tokens: number }): [string, number] {
  assert.equal(ids.length, tokens);
  return [finish, tokens];
}

test("a stop ends the story, and its text stays whole", async () => {
  const stop = new AbortController();
  let count = 0;
  const story = await written(engine, PROMPT, GREEDY, null, stop.signal, () => ++count === 5 && stop.abort());
  assert.equal(story.finish, "interrupted");
  assert.equal(story.tokens, story.ids.length);
  assert.ok(story.tokens < 12);
  const before = await written(engine, PROMPT, GREEDY, null, AbortSignal.abort());
  assert.deepEqual([before.finish, before.tokens, before.text], ["interrupted", 0, ""]);
});

test("a model that is closed ends its story, and writes no other", async () => {
  const model = await engineOf();
  let count = 0;
  const story = await written(model, PROMPT, GREEDY, null, undefined, () => ++count === 2 && model.dispose());
  assert.deepEqual([story.finish, story.tokens], ["interrupted", story.ids.length]);
  model.dispose();
  await assert.rejects(written(model, PROMPT), /was closed/);
});

test("messages arrive while a story is written", async () => {
  const { port1, port2 } = new MessageChannel();
  let arrived = 0;
  port1.onmessage = () => {
    arrived++;
    port2.postMessage(null);
  };
  port2.postMessage(null);
  const story = await written(engine, PROMPT, GREEDY, 100);
  port1.close();
  assert.ok(arrived >= (story.decodeMs / LONGEST_SLICE) * 0.2, `${arrived} messages in ${story.decodeMs} ms`);
  assert.ok(arrived > 2);
});

test("two stories at once, and a wrong maximum, are refused; the next story is written", async () => {
  const running = written(engine, PROMPT, GREEDY, 30);
  await assert.rejects(written(engine, PROMPT, GREEDY, 1), /is being written/);
  await running;
  for (const maximum of [0, 1.5, -1]) await assert.rejects(written(engine, PROMPT, GREEDY, maximum), /max tokens/);
  await assert.rejects(written(engine, [123456], GREEDY, 1), /no token has the id 123456/);
  await assert.rejects(written(engine, PROMPT, { ...GREEDY, topP: 0 }, 1), /top-p/);
  assert.equal((await written(engine, PROMPT, GREEDY, 3)).tokens, 3);
});

test("the model warms up only until the first story, and for a limited time", async () => {
  const model = await engineOf();
  const { setTimeout: sleep } = await import("node:timers/promises");
  const deadline = Date.now() + 20_000;
  while (model.info.warmUpMs === 0 && Date.now() < deadline) await sleep(2);
  assert.ok(model.info.warmUpMs > 0);
  await written(model, PROMPT, GREEDY, 2);
  const { warmUpMs } = model.info;
  await sleep(30);
  assert.equal(model.info.warmUpMs, warmUpMs);
  assert.deepEqual((await written(model, PROMPT, GREEDY, 20)).ids, (await written(engine, PROMPT, GREEDY, 20)).ids);
  model.dispose();
});

test("a wrong number of threads is refused", async () => {
  const { createEngine } = await import("../../src/engine/engine.ts");
  for (const threads of [0, 1.5]) await assert.rejects(createEngine(NANO, { threads, scripts: SCRIPTS }), /threads/);
});
