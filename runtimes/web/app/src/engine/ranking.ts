/** Finds the largest of many numbers without sorting them all. */

/** The largest `count` values of an array, the largest first. It uses one buffer for all tokens. */
export class Ranking {
  /** The values in falling order; only the first `size` count. */
  values = new Float64Array(64);
  size = 0;

  /**
   * Ranks the largest `count` values that are not below `least`.
   *
   * A heap has the lowest kept value in its first place, so almost every value of the array is compared only once.
   */
  rank(numbers: Float32Array<ArrayBufferLike>, count: number, least = -Infinity): void {
    const most = Math.min(count, numbers.length);
    if (this.values.length < most) this.values = new Float64Array(most);
    const { values } = this;
    let size = 0;
    let place = 0;
    for (; place < numbers.length && size < most; place++) {
      if (numbers[place]! >= least) values[size++] = numbers[place]!;
    }
    for (let i = (size >> 1) - 1; i >= 0; i--) sink(values, i, size);
    let lowest = values[0]!;
    for (; place < numbers.length; place++) {
      if (numbers[place]! > lowest) {
        values[0] = numbers[place]!;
        sink(values, 0, size);
        lowest = values[0]!;
      }
    }
    for (let last = size - 1; last > 0; last--) {
      const value = values[last]!;
      values[last] = values[0]!;
      values[0] = value;
      sink(values, 0, last);
    }
    this.size = size;
  }
}

/** Moves the value at a place of a heap down until none below it is lower. */
function sink(heap: Float64Array, place: number, size: number): void {
  const value = heap[place]!;
  for (;;) {
    let child = 2 * place + 1;
    if (child >= size) break;
    if (child + 1 < size && heap[child + 1]! < heap[child]!) child++;
    if (heap[child]! >= value) break;
    heap[place] = heap[child]!;
    place = child;
  }
  heap[place] = value;
}
