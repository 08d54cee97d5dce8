/** The sampler draws the ids of Python's sampler. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../src/engine/random.ts";
import { Ranking } from "../../src/engine/ranking.ts";
import { Sampler } from "../../src/engine/sampler.ts";
import type { Sampling } from "../../src/engine/types.ts";
import { vectors } from "./files.ts";
import { type Kind, Numbers, madeLogits } from "./formulas.ts";

interface Case {
  kind: Kind;
  vocabulary: number;
  count: number;
  seed: number;
  prompt: number[];
  settings: Record<"temperature" | "top_k" | "top_p" | "min_p" | "repetition_penalty", number>;
  ids: number[] | null;
}
interface Vectors {
  cases: Case[];
  random: { seed: number; first: number[]; last: number }[];
}

const { cases, random } = vectors<Vectors>("sampling.json");
const GREEDY: Sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

function draw({ kind, vocabulary, count, seed, prompt, settings }: Case): number[] {
  const sampler = new Sampler(
    {
      temperature: settings.temperature,
      topK: settings.top_k,
      topP: settings.top_p,
      minP: settings.min_p,
      repetitionPenalty: settings.repetition_penalty,
      seed,
    },
    prompt,
  );
  const numbers = new Numbers(seed % 2 ** 32);
  return Array.from({ length: count }, () => sampler.choose(madeLogits(kind, vocabulary, numbers)));
}

for (const [number, sample] of cases.entries()) {
  const { kind, vocabulary, settings, ids } = sample;
  test(`case ${number}: ${kind}, ${vocabulary} ids, ${JSON.stringify(settings)}`, () => {
    if (ids === null) assert.throws(() => draw(sample), /no numbers/);
    else assert.deepEqual(draw(sample), ids);
  });
}

test("the random numbers are those of Python", () => {
  for (const { seed, first, last } of random) {
    const numbers = new Random(seed);
    const drawn = Array.from({ length: 1000 }, () => numbers.next());
    assert.deepEqual([drawn.slice(0, 3), drawn.at(-1)], [first, last]);
  }
});

test("a seed that is no whole number, or too large, is refused", () => {
  for (const seed of [-1, 0.5, NaN, 2 ** 53]) assert.throws(() => new Random(seed), /the seed must be/);
});

test("the ranking is the beginning of the sorted values", () => {
  const ranking = new Ranking();
  const numbers = new Numbers(7);
  for (const kind of ["flat", "peaked", "ties", "equal"] as const) {
    for (const [size, count, least] of [[1, 1, -9], [50, 7, -9], [50, 99, 0], [3000, 500, -2], [100, 100, -99]] as const) {
      const logits = madeLogits(kind, size, numbers);
      const sorted = [...logits].sort((a, b) => b - a).filter((value) => value >= least);
      ranking.rank(logits, count, least);
      assert.deepEqual([...ranking.values.subarray(0, ranking.size)], sorted.slice(0, count));
    }
  }
});

test("one NaN or an infinite logit is refused, and minus infinity is never drawn", () => {
  for (const bad of [NaN, Infinity]) {
    for (const settings of [GREEDY, { ...GREEDY, temperature: 1 }, { ...GREEDY, temperature: 1, topK: 2 }]) {
      const logits = Float32Array.of(1, 2, bad, 0);
      assert.throws(() => new Sampler(settings, []).choose(logits), /no numbers/);
    }
  }
  const sampler = new Sampler({ ...GREEDY, temperature: 1 }, []);
  for (let i = 0; i < 100; i++) assert.equal(sampler.choose(Float32Array.of(-Infinity, 2, -Infinity)), 1);
  assert.throws(() => sampler.choose(new Float32Array(5).fill(-Infinity)), /no numbers/);
});

test("settings out of range are refused by name", () => {
  const wrong: [Partial<Sampling>, RegExp][] = [
    [{ temperature: -1 }, /temperature/],
    [{ temperature: Infinity }, /temperature/],
    [{ temperature: NaN }, /temperature/],
    [{ topK: 1.5 }, /top-k/],
    [{ topP: 0 }, /top-p/],
    [{ minP: 1.1 }, /min-p/],
    [{ repetitionPenalty: 0 }, /repetition penalty/],
  ];
  for (const [change, message] of wrong) assert.throws(() => new Sampler({ ...GREEDY, ...change }, []), message);
});
