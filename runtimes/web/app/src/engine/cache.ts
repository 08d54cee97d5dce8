/** A KV cache: it runs ids to logits and stores keys and values. The zero-copy path and the public API have one each. */

/** Logits [vocab]. The next run may overwrite them, and the caller may change them. */
export type Logits = Float32Array<ArrayBufferLike>;

/** What a session needs of a cache. The public API answers with promises. */
export interface Cache {
  /** Runs ids after `length` positions; returns the logits of the last. */
  append(ids: readonly number[], length: number): Logits | Promise<Logits>;
  /** Runs one id after `length` positions; returns its logits. */
  step(token: number, length: number): Logits | Promise<Logits>;
  /** Removes the positions from `length` on. */
  rewind(length: number): void;
  /** Bytes that the last step copied between JavaScript and the heap, counted where they are written. */
  readonly bytesCopied: number;
  /** Size of the module's memory; 0 if it cannot be known. */
  readonly heapBytes: number;
  /** Frees the model. */
  dispose(): void;
}
