/** What the page needs of the models, wherever they run: in a worker of the browser, or on a server. */
import type { EngineInfo, Sampling, StoryResult } from "../engine/types.ts";
import type { FailureKind, ModelEntry, Part, Piece } from "../protocol.ts";

/** What the page does when something happens to a model or to the present story. */
export interface Handlers {
  models: (models: readonly ModelEntry[]) => void;
  progress: (loaded: number, total: number) => void;
  /** `info` is null if the model does not run in this browser. */
  ready: (model: ModelEntry, info: EngineInfo | null, blockSize: number) => void;
  /** The story waits for others. */
  waiting: () => void;
  pieces: (pieces: readonly Piece[]) => void;
  done: (result: StoryResult) => void;
  figures: (result: StoryResult, heapBytes?: number) => void;
  stalled: () => void;
  notKept: (message: string) => void;
  failed: (kind: FailureKind, message: string) => void;
}

/** Loads models and writes stories. It reports to its handlers. */
export interface StoryClient {
  /** Makes a model ready; an empty name takes the first one. */
  load(model: string): void;
  /** Writes on from the parts of a story. */
  write(parts: readonly Part[], sampling: Sampling, maxTokens: number | null): void;
  /** Ends the present story. */
  stop(): void;
}
