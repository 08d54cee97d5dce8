/** Shows text at a pace that a person can read, or as fast as it comes. */
import type { Piece } from "../protocol.ts";
import type { Pace } from "./settings.ts";

/** Pieces (about a word each) in a second at reading pace. Adults read about 4 words a second, so nobody waits. */
const PIECES_PER_SECOND = 9;
const LONGEST_FRAME = 0.25; // seconds
const MOST_AT_ONCE = 40; // pieces in a frame, so that no frame takes long

/** A queue between the model, which is quick, and the reader. */
export class Reveal {
  private readonly show: (pieces: readonly Piece[]) => void;
  private readonly pace: () => Pace;
  private queue: Piece[] = [];
  private budget = 1;
  private last = 0;
  private frame = 0;
  private ended: (() => void) | null = null;

  /**
   * @param show Shows the next pieces.
   * @param pace The pace now. It may change at any time.
   */
  constructor(show: (pieces: readonly Piece[]) => void, pace: () => Pace) {
    this.show = show;
    this.pace = pace;
  }

  /** Adds pieces at the end of the queue. */
  push(pieces: readonly Piece[]): void {
    this.queue.push(...pieces);
    this.wake();
  }

  /** Calls `ended` when everything has been shown. */
  end(ended: () => void): void {
    this.ended = ended;
    this.wake();
  }

  /** Shows at once what has not been shown. */
  flush(): void {
    const held = this.queue;
    this.stop();
    if (held.length > 0) this.show(held);
  }

  /** Forgets the text that has not been shown. */
  stop(): void {
    this.queue = [];
    this.ended = null;
    this.budget = 1;
    cancelAnimationFrame(this.frame);
    this.frame = 0;
  }

  private wake(): void {
    if (this.frame) return;
    this.last = performance.now();
    this.frame = requestAnimationFrame((now) => this.tick(now));
  }

  private tick(now: number): void {
    this.frame = 0;
    const seconds = Math.min(Math.max(0, now - this.last) / 1000, LONGEST_FRAME);
    this.last = now;
    this.budget += seconds * PIECES_PER_SECOND;
    const count = Math.min(this.queue.length, this.pace() === "instant" ? MOST_AT_ONCE : Math.floor(this.budget));
    if (count > 0) {
      this.show(this.queue.splice(0, count));
      this.budget = Math.min(Math.max(0, this.budget - count), 1);
    }
    if (this.queue.length > 0) this.frame = requestAnimationFrame((next) => this.tick(next));
    else if (this.ended) {
      const { ended } = this;
      this.ended = null;
      this.budget = 1;
      ended();
    }
  }
}
