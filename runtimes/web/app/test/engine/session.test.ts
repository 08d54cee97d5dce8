/** A session keeps what two sequences share, and its logits do not depend on what was removed. */

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Session, sharedLength } from "../../src/engine/session.ts";
import { NANO, opened, shapeOf } from "./models.ts";

const shape = shapeOf(NANO);
const { cache, path } = await opened();
const session = new Session(cache, shape);
after(() => cache.dispose());

/** The ids that the cache runs while a function runs. */
async function run(work: () => Promise<unknown>): Promise<number> {
  let count = 0;
  const { append, step } = cache;
  cache.step = (token, length) => (count++, step.call(cache, token, length));
  cache.append = (ids, length) => {
    const inside = count;
    const logits = append.call(cache, ids, length);
    count = inside + ids.length;
    return logits;
  };
  await work();
  Object.assign(cache, { append, step });
  return count;
}

async function steps(ids: readonly number[]): Promise<Float32Array[]> {
  session.rewind(0);
  return Promise.all(ids.map(async (id) => Float32Array.from(await session.step(id))));
}

test("the path is the zero-copy path, which copies 12 bytes for a token", () => {
  assert.equal(path, "zero-copy");
  assert.equal(cache.bytesCopied, 12);
});

test("only the ids after the common beginning are run", async () => {
  session.rewind(0);
  assert.equal(await run(() => session.read([5, 6, 7])), 3);
  assert.equal(await run(() => session.read([5, 6, 7, 8, 9])), 2);
  assert.equal(await run(() => session.read([5, 6, 1])), 1);
  assert.deepEqual(session.ids, [5, 6, 1]);
  assert.equal(await run(() => session.read([5, 6])), 1);
});

test("a text that was just read is not run again, and has the same logits", async () => {
  session.rewind(0);
  const first = Float32Array.from(await session.read([5, 6, 7]));
  await session.step(8);
  assert.equal(await run(async () => assert.deepEqual(await session.read([5, 6, 7]), first)), 0);
  assert.deepEqual(session.ids, [5, 6, 7]);
  session.rewind(2);
  assert.equal(await run(() => session.read([5, 6, 7])), 1);
});

test("removed positions leave nothing behind", async () => {
  const fresh = await steps([1, 2, 3]);
  await steps([9, 8, 7, 6, 5]);
  session.rewind(1);
  assert.deepEqual(await steps([1, 2, 3]), fresh);
});

test("a context of blockSize tokens is filled to its last position", async () => {
  const ids = Array.from({ length: shape.blockSize }, (_, i) => i);
  session.rewind(0);
  await session.read(ids);
  assert.throws(() => session.step(1), /257 tokens do not fit the context of 256/);
  await assert.rejects(session.read([...ids, 1]), /do not fit/);
  assert.equal(session.ids.length, shape.blockSize);
});

test("ids that no token has, and no ids at all, are refused", async () => {
  session.rewind(0);
  for (const id of [-1, shape.vocabSize, 0.5, NaN]) assert.throws(() => session.step(id), /no token has the id/);
  await assert.rejects(session.read([]), /no tokens/);
  assert.equal(session.ids.length, 0);
});

test("the common beginning ends at the first difference", () => {
  assert.equal(sharedLength([1, 2, 3], [1, 2, 4]), 2);
  assert.equal(sharedLength([1, 2], [1, 2, 4]), 2);
  assert.equal(sharedLength([], [1]), 0);
});
