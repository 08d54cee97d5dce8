/** One sequence in progress: the ids in the cache, and which of them a new sequence can keep. */

import type { Cache, Logits } from "./cache.ts";
import type { Shape } from "./types.ts";

/** Returns the length of the common beginning of two sequences. */
export function sharedLength(one: readonly number[], other: readonly number[]): number {
  const shortest = Math.min(one.length, other.length);
  for (let i = 0; i < shortest; i++) if (one[i] !== other[i]) return i;
  return shortest;
}

/** A sequence of ids and its cache. */
export class Session {
  /** The ids in the cache. */
  readonly ids: number[] = [];
  // What was read last. The same text read again needs no run, and gets exactly the same logits: int8 rounds
  // differently when a text is read in parts.
  private lastRead: readonly number[] = [];
  private lastLogits: Logits = new Float32Array(0);

  constructor(readonly cache: Cache, private readonly shape: Shape) {}

  /** Appends one id; returns its logits, valid until the next run. */
  step(token: number): Logits | Promise<Logits> {
    this.check([token], this.ids.length + 1);
    const logits = this.cache.step(token, this.ids.length);
    this.ids.push(token);
    return logits;
  }

  /** Replaces the sequence by these ids. It runs only those after the common beginning; returns the last logits. */
  async read(ids: readonly number[]): Promise<Logits> {
    if (!ids.length) throw new Error("no tokens to read: give at least one");
    this.check(ids, ids.length);
    const shared = sharedLength(this.ids, ids);
    if (ids.length === this.lastRead.length && shared === ids.length && sharedLength(ids, this.lastRead) === shared) {
      this.rewind(shared);
      return this.lastLogits.slice();
    }
    this.rewind(Math.min(shared, ids.length - 1));
    const rest = ids.slice(this.ids.length);
    const logits = await this.cache.append(rest, this.ids.length);
    this.ids.push(...rest);
    this.lastRead = [...ids];
    this.lastLogits = logits.slice();
    return logits;
  }

  /** Removes all but the first `length` positions. */
  rewind(length: number): void {
    this.cache.rewind(length);
    this.ids.length = length;
    if (length < this.lastRead.length) this.lastRead = [];
  }

  private check(ids: readonly number[], length: number): void {
    const { blockSize, vocabSize } = this.shape;
    if (length > blockSize) {
      throw new Error(`${length} tokens do not fit the context of ${blockSize}; shorten the text`);
    }
    const wrong = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabSize));
    if (wrong !== undefined) throw new Error(`no token has the id ${wrong}; ids go from 0 to ${vocabSize - 1}`);
  }
}
