/** The formulas of tests/runtimes/web/vectors.py, which make long inputs on both sides. */

import { createHash } from "node:crypto";

/** 24 bits of a linear congruential generator of 32 bits. */
export class Numbers {
  constructor(private state: number) {}

  next(): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) >>> 0;
    return this.state >>> 8;
  }
}

export type Kind = "flat" | "peaked" | "ties" | "negative" | "equal" | "nan";

/** Returns logits of a kind. */
export function madeLogits(kind: Kind, size: number, numbers: Numbers): Float32Array {
  if (kind === "nan") return new Float32Array(size).fill(NaN);
  const made: Record<Exclude<Kind, "nan">, (value: number) => number> = {
    flat: (value) => value / 16,
    peaked: (value) => (value * Math.abs(value)) / 512,
    ties: (value) => Math.floor(value / 16),
    negative: (value) => value / 16 - 20,
    equal: () => 0,
  };
  return Float32Array.from({ length: size }, () => made[kind](numbers.next() / 2 ** 16 - 128));
}

/** Returns a string of a few parts, runs of a part, and characters of the ranges. */
export function madeString(numbers: Numbers, parts: readonly string[], ranges: readonly [number, number][]): string {
  let made = "";
  for (let count = numbers.next() % 9; count > 0; count--) {
    const way = numbers.next() % 16;
    if (way < 4) {
      const [low, high] = ranges[numbers.next() % ranges.length]!;
      made += String.fromCodePoint(low + (numbers.next() % (high - low + 1)));
    } else {
      const part = parts[numbers.next() % parts.length]!;
      made += part.repeat(way === 4 ? 1 + (numbers.next() % 20) : 1);
    }
    made += way % 2 ? " " : "";
  }
  return made;
}

/** Returns a hash over rows of ids. */
export function digest(rows: readonly (readonly number[])[]): string {
  return createHash("sha256").update(rows.map((row) => row.join(",")).join("\n")).digest("hex").slice(0, 16);
}
