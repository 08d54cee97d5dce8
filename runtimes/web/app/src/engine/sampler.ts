/**
 * Chooses the next id from logits, as runtimes/engine/sampler.py does.
 *
 * The order is fixed: repetition penalty, temperature, top-k, top-p, min-p, draw. Top-p uses the probabilities that
 * top-k kept, divided by their sum. Min-p compares with the most likely id. Of equal logits, the lower id is first.
 */

import { RepetitionPenalty } from "./penalty.ts";
import { Random } from "./random.ts";
import { Ranking } from "./ranking.ts";
import type { Sampling } from "./types.ts";

type Numbers = Float32Array<ArrayBufferLike>;

const FIRST_LOOK = 64;

/** Raises an Error unless every setting is in the range of runtimes/types.py. */
export function checkSampling(sampling: Sampling): void {
  const { temperature, topK, topP, minP, repetitionPenalty } = sampling;
  const check = (fits: boolean, rule: string, value: number): void => {
    if (!fits) throw new Error(`${rule}, not ${value}`);
  };
  check(temperature >= 0 && temperature < Infinity, "temperature must be a finite number, 0 or more", temperature);
  check(Number.isInteger(topK) && topK >= 0, "top-k must be a whole number, 0 (off) or more", topK);
  check(topP > 0 && topP <= 1, "top-p must lie above 0 and up to 1 (off)", topP);
  check(minP >= 0 && minP <= 1, "min-p must lie between 0 (off) and 1", minP);
  check(
    repetitionPenalty > 0 && repetitionPenalty <= 1e30,
    "repetition penalty must be above 0, up to 1e30 (1 is off)",
    repetitionPenalty,
  );
}

/** Chooses ids one after another. The same seed and the same logits give the same ids. */
export class Sampler {
  private readonly random: Random;
  private readonly penalty: RepetitionPenalty | null;
  private readonly ranking = new Ranking();
  private masses = new Float64Array(64);

  /**
   * @param sampling How to choose.
   * @param prompt Ids that the repetition penalty counts from the start.
   */
  constructor(private readonly sampling: Sampling, prompt: readonly number[]) {
    checkSampling(sampling);
    this.random = new Random(sampling.seed);
    this.penalty = sampling.repetitionPenalty === 1 ? null : new RepetitionPenalty(sampling.repetitionPenalty, prompt);
  }

  /** Chooses the next id. It may change the logits. An Error says that the logits are NaN or infinite. */
  choose(logits: Numbers): number {
    this.penalty?.apply(logits);
    const best = largest(logits);
    const chosen = this.sampling.temperature === 0 ? best : this.draw(logits, logits[best]!);
    if (!Number.isFinite(logits[chosen])) throw damaged();
    this.penalty?.chose(chosen);
    return chosen;
  }

  private draw(logits: Numbers, highest: number): number {
    const { topK, topP, minP, temperature } = this.sampling;
    const { ranking } = this;
    if (!topK && topP === 1 && !minP) return this.drawFromAll(logits, highest);
    const least = minP ? highest + temperature * Math.log(minP) : -Infinity;
    let last: number;
    if (topK) {
      ranking.rank(logits, topK);
      last = this.addUp(highest);
      if (topP < 1) last = lowerBound(this.masses, topP * this.masses[last]!, last);
    } else if (topP < 1) {
      last = this.keepShare(logits, highest);
    } else {
      ranking.rank(logits, logits.length, Math.fround(least)); // numpy compares with the bound as float32
      return this.drawRanked(logits, this.addUp(highest));
    }
    if (minP) while (last > 0 && ranking.values[last]! < least) last--;
    return this.drawRanked(logits, last);
  }

  /** Keeps the most likely ids up to the share top-p of all; returns the last rank. */
  private keepShare(logits: Numbers, highest: number): number {
    const { topP, temperature } = this.sampling;
    let mass = 0;
    for (let i = 0; i < logits.length; i++) mass += Math.exp(Math.fround(logits[i]! - highest) / temperature);
    for (let look = FIRST_LOOK; ; look *= 4) {
      this.ranking.rank(logits, look);
      const last = this.addUp(highest);
      if (this.masses[last]! >= topP * mass || look >= logits.length) {
        return lowerBound(this.masses, topP * mass, last);
      }
    }
  }

  /** Adds up the probabilities of the ranked ids, not divided by their sum; returns the last rank. */
  private addUp(highest: number): number {
    const { values, size } = this.ranking;
    if (this.masses.length < size) this.masses = new Float64Array(values.length);
    let mass = 0;
    for (let i = 0; i < size; i++) {
      mass += Math.exp((values[i]! - highest) / this.sampling.temperature);
      this.masses[i] = mass;
    }
    return size - 1;
  }

  private drawRanked(logits: Numbers, last: number): number {
    const { values } = this.ranking;
    let rank = upperBound(this.masses, this.random.next() * this.masses[last]!, last);
    const value = values[rank]!;
    let place = logits.indexOf(value);
    for (; rank > 0 && values[rank - 1] === value; rank--) place = logits.indexOf(value, place + 1);
    return place;
  }

  private drawFromAll(logits: Numbers, highest: number): number {
    const { length } = logits;
    if (this.masses.length < length) this.masses = new Float64Array(length);
    let mass = 0;
    for (let i = 0; i < length; i++) {
      mass += Math.exp(Math.fround(logits[i]! - highest) / this.sampling.temperature);
      this.masses[i] = mass;
    }
    return upperBound(this.masses, this.random.next() * mass, length - 1);
  }
}

/** Returns the first id with the largest logit. */
function largest(logits: Numbers): number {
  let best = 0;
  let highest = -Infinity;
  for (let i = 0; i < logits.length; i++) {
    const value = logits[i]!;
    if (value <= highest) continue;
    if (Number.isNaN(value)) throw damaged();
    highest = value;
    best = i;
  }
  if (!Number.isFinite(highest)) throw damaged();
  return best;
}

function damaged(): Error {
  return new Error("the model's logits are no numbers: its file is damaged or overflows; delete it and load it again");
}

/** Returns the first of the places 0 to `last` whose number is at least `wanted`; `last` if there is none before it. */
function lowerBound(numbers: Float64Array, wanted: number, last: number): number {
  let low = 0;
  for (let high = last; low < high; ) {
    const middle = (low + high) >> 1;
    if (numbers[middle]! < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Returns the first of the places 0 to `last` whose number is above `wanted`; `last` if there is none before it. */
function upperBound(numbers: Float64Array, wanted: number, last: number): number {
  let low = 0;
  for (let high = last; low < high; ) {
    const middle = (low + high) >> 1;
    if (wanted < numbers[middle]!) high = middle;
    else low = middle + 1;
  }
  return low;
}
