/** The messages between the page and the worker that runs the model. */
import type { EngineInfo, Sampling, Shape, StoryResult } from "./engine/types.ts";
import type { SiteErrorKind } from "./site/loader.ts";

/** A part of a story. `ids` are there if the same model wrote it in this browser. */
export interface Part {
  text: string;
  ids?: readonly number[];
}

/** Text that the model wrote, with the ids that it came from. The ids of an incomplete character come with the text that completes it. */
export interface Piece {
  text: string;
  ids: readonly number[];
}

/** A model of the site, as the menu shows it. */
export interface ModelEntry {
  name: string;
  variant: string;
  parameters: number;
  bytes: number;
  source: string;
  licence: string;
}

/** What went wrong, so that the page can say what to do. */
export type FailureKind = SiteErrorKind | "memory" | "prompt" | "engine" | "server";

export type ToWorker =
  | { type: "load"; model: string }
  | { type: "write"; id: number; parts: readonly Part[]; sampling: Sampling; maxTokens: number | null }
  | { type: "stop" };

export type FromWorker =
  | { type: "models"; models: readonly ModelEntry[] }
  | { type: "progress"; loaded: number; total: number }
  | { type: "ready"; model: ModelEntry; info: EngineInfo; shape: Shape }
  | { type: "pieces"; id: number; pieces: readonly Piece[] }
  | { type: "done"; id: number; result: StoryResult; heapBytes: number }
  | { type: "not kept"; message: string }
  | { type: "failed"; id: number | null; kind: FailureKind; message: string };
