/** Checks at each start that the zero-copy path does what it promises. It runs a few tokens and loads nothing. */

import type { Logits } from "./cache.ts";
import type { SharedCache } from "./shared-cache.ts";
import type { Shape } from "./types.ts";
import type { Graph } from "./wasm.ts";

const STEPS = 3;
// How far the logits of one run of several ids may be from those of single steps, as a share of their spread. int8
// rounds the activations of a whole run together and comes to at most 0.07; a run that forgets the past, to 0.2 or more.
const MOST_DIFFERENCE = 0.2;

/** Raises an Error that says what is wrong with the zero-copy path. The cache is empty afterwards. */
export function selfTest(graph: Graph, cache: SharedCache, shape: Shape): void {
  const count = Math.min(STEPS, shape.blockSize);
  const ids = Array.from({ length: count }, (_, i) => Math.floor(((i + 1) * shape.vocabSize) / (STEPS + 2)));
  const run = (sequence: readonly number[]): Logits[] => sequence.map((id, i) => cache.step(id, i).slice());
  require(graph.outputHandles(cache.stepBinding).length === cache.outputPointers.length, "outputs are missing");
  cache.spoilLogits();
  const logits = run(ids);
  checkPlaces(graph, cache);
  for (const row of logits) require(row.every(Number.isFinite), "the logits are no numbers, or are not written in place");
  checkBuffers(graph, cache, shape, count);
  cache.rewind(0);
  require(same(run(ids.slice(0, 1))[0]!, logits[0]!), "a step reads positions that were removed");
  if (count > 1) {
    cache.rewind(0);
    const other = run([ids[1]!, ...ids.slice(1)]);
    require(!same(other.at(-1)!, logits.at(-1)!), "a step does not read the positions before it");
    cache.rewind(0);
    const difference = distance(cache.append(ids, 0), logits.at(-1)!);
    require(difference <= MOST_DIFFERENCE, `a prompt read at once differs by ${difference.toFixed(2)} from single steps`);
    checkPlaces(graph, cache);
  }
  cache.rewind(0);
}

function require(holds: boolean, what: string): void {
  if (!holds) throw new Error(`self-test: ${what}`);
}

/** Checks that the outputs are still our memory. */
function checkPlaces(graph: Graph, cache: SharedCache): void {
  const places = graph.outputHandles(cache.stepBinding).map((handle) => graph.dataOf(handle));
  const ours = cache.outputPointers;
  require(places.every((place, i) => place === ours[i]), "the outputs are not in our memory");
}

/** Checks that each head has written its first `count` positions, and nothing after them. */
function checkBuffers(graph: Graph, cache: SharedCache, shape: Shape, count: number): void {
  const { blockSize, headSize, kvHeads } = shape;
  for (const { pointer, bytes } of cache.buffers) {
    const values = new Uint32Array(graph.buffer, pointer, bytes / 4);
    for (let head = 0; head < kvHeads; head++) {
      const start = head * blockSize * headSize;
      for (let position = 0; position < blockSize; position++) {
        const place = start + position * headSize;
        const written = values.subarray(place, place + headSize).some(Boolean);
        require(written === position < count, `position ${position} of the cache is ${written ? "" : "not "}written`);
      }
    }
  }
}

function same(one: Logits, other: Logits): boolean {
  return one.every((value, i) => value === other[i]);
}

/** Returns the root of the mean square of the difference, as a share of the spread of `expected`. */
function distance(found: Logits, expected: Logits): number {
  const mean = expected.reduce((sum, value) => sum + value, 0) / expected.length;
  let [difference, spread] = [0, 0];
  expected.forEach((value, i) => {
    difference += (found[i]! - value) ** 2;
    spread += (value - mean) ** 2;
  });
  return difference === 0 ? 0 : Math.sqrt(difference / spread);
}
