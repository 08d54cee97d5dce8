/** Python's `random.Random(seed).random()`: the Mersenne Twister MT19937, and 53 bits of two of its numbers. */

const SIZE = 624;
const SHIFT = 397;

/** Random numbers from 0 up to 1, the same as those of Python for the same seed. */
export class Random {
  private readonly state = new Uint32Array(SIZE);
  private place = SIZE;

  /** @param seed A whole number from 0 to 2^53 - 1. */
  constructor(seed: number) {
    if (!Number.isSafeInteger(seed) || seed < 0) {
      throw new Error(`the seed must be a whole number from 0 to ${Number.MAX_SAFE_INTEGER}, not ${seed}`);
    }
    const high = Math.floor(seed / 2 ** 32);
    this.fill(high ? [seed >>> 0, high] : [seed >>> 0]);
  }

  /** Returns the next number. */
  next(): number {
    return ((this.word() >>> 5) * 2 ** 26 + (this.word() >>> 6)) / 2 ** 53;
  }

  /** Seeds with the words of a number, the lowest first; `init_by_array` of the authors of MT19937. */
  private fill(key: readonly number[]): void {
    const { state } = this;
    state[0] = 19650218;
    for (let i = 1; i < SIZE; i++) state[i] = Math.imul(1812433253, mixed(state[i - 1]!)) + i;
    let place = 1;
    const wrap = (): void => {
      if (++place < SIZE) return;
      state[0] = state[SIZE - 1]!;
      place = 1;
    };
    for (let i = 0; i < SIZE; i++) {
      const j = i % key.length;
      state[place] = (state[place]! ^ Math.imul(mixed(state[place - 1]!), 1664525)) + key[j]! + j;
      wrap();
    }
    for (let i = 1; i < SIZE; i++) {
      state[place] = (state[place]! ^ Math.imul(mixed(state[place - 1]!), 1566083941)) - place;
      wrap();
    }
    state[0] = 0x80000000;
  }

  private word(): number {
    if (this.place === SIZE) this.twist();
    let word = this.state[this.place++]!;
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  private twist(): void {
    const { state } = this;
    for (let i = 0; i < SIZE; i++) {
      const word = (state[i]! & 0x80000000) | (state[(i + 1) % SIZE]! & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE]! ^ (word >>> 1) ^ (word & 1 ? 0x9908b0df : 0);
    }
    this.place = 0;
  }
}

function mixed(word: number): number {
  return word ^ (word >>> 30);
}
