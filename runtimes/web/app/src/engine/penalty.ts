/** The repetition penalty, as in runtimes/engine/penalties.py. */

/** Divides positive logits of the ids in the story so far by the penalty, and multiplies negative ones. */
export class RepetitionPenalty {
  private readonly seen: Set<number>;
  private readonly penalty: number;

  constructor(penalty: number, prompt: readonly number[]) {
    this.penalty = Math.fround(penalty);
    this.seen = new Set(prompt);
  }

  /** Changes the logits where they lie, with the arithmetic of float32. */
  apply(logits: Float32Array<ArrayBufferLike>): void {
    for (const id of this.seen) {
      const value = logits[id]!;
      logits[id] = value > 0 ? value / this.penalty : value * this.penalty;
    }
  }

  /** Remembers an id that was written. */
  chose(id: number): void {
    this.seen.add(id);
  }
}
