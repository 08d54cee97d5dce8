/** The types that the engine shares with the loader, the worker and the page. */

/** How the next id is chosen; the same meaning, defaults and order as in runtimes/types.py. */
export interface Sampling {
  /** Divides the logits; 0 takes the most likely id. */
  temperature: number;
  /** Keeps the k most likely ids; 0 is off. */
  topK: number;
  /** Keeps the most likely ids up to this share of the probability; 1 is off. */
  topP: number;
  /** Keeps ids with at least this share of the probability of the most likely id; 0 is off. */
  minP: number;
  /** Divides positive logits of ids in the story so far, multiplies negative ones; 1 is off. */
  repetitionPenalty: number;
  /** The same seed and the same logits give the same ids; a whole number from 0 to 2^53 - 1. */
  seed: number;
}

/** Why a story ended. */
export type Finish = "end of text" | "max tokens" | "context full" | "interrupted";

/** The sizes of a model. `begin` and `end` are the ids that begin and end a text. */
export interface Shape {
  blockSize: number;
  vocabSize: number;
  layers: number;
  kvHeads: number;
  headSize: number;
  begin: number;
  end: number;
}

/** The content of the files that an engine needs. */
export interface ModelFiles {
  wasm: WebAssembly.Module | ArrayBuffer;
  model: Uint8Array;
  /** The text of tokenizer.json. */
  tokenizer: string;
  /** The text of manifest.json. */
  manifest: string;
}

/**
 * What an engine knows about its start. `reason` says why the path is the public API. That path does not know its
 * `heapBytes`, which are then 0.
 */
export interface EngineInfo {
  path: "zero-copy" | "public API";
  reason?: string;
  threads: number;
  loadMs: number;
  warmUpMs: number;
  bytesCopiedPerToken: number;
  heapBytes: number;
}

/** The figures of one story; times are in milliseconds. */
export interface StoryResult {
  finish: Finish;
  tokens: number;
  promptTokens: number;
  firstTokenMs: number;
  decodeMs: number;
  seed: number;
}

/** A model that is ready to write. */
export interface Engine {
  readonly info: EngineInfo;
  readonly shape: Shape;
  /** Returns the ids of a text, without the id that begins a text. */
  encode(text: string): number[];
  /**
   * Writes a story. About every 8 ms it yields to the event loop between two steps, so that a stop message arrives.
   * `ids` are the whole story so far; positions that are already in the cache are not run again.
   * `onText` gets only whole characters.
   */
  write(
    ids: readonly number[],
    sampling: Sampling,
    maxTokens: number | null,
    onText: (piece: string, tokens: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<StoryResult>;
  /** Frees the model. */
  dispose(): void;
}

/** Where the scripts lie, and how many threads run an operator. */
export interface EngineOptions {
  threads: number;
  /** The folder of ort-wasm-simd-threaded.js and fallback.js; it ends with a slash. */
  scripts: URL;
}
