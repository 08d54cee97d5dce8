/** Opened models for several tests. */

import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createEngine } from "../../src/engine/engine.ts";
import { type Opened, openModel } from "../../src/engine/open.ts";
import { readManifest } from "../../src/engine/shape.ts";
import { Tokenizer } from "../../src/engine/tokenizer.ts";
import type { Engine, ModelFiles, Sampling, Shape, StoryResult } from "../../src/engine/types.ts";
import { BUNDLES, SCRIPTS, modelFiles, wasmBytes } from "./files.ts";

/** The module of onnxruntime, compiled once. */
export const WASM = await WebAssembly.compile(wasmBytes());
export const NANO = modelFiles(join(BUNDLES, "nano"), WASM);
export const GREEDY: Sampling = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

/** Returns the shape of a model. */
export function shapeOf(files: ModelFiles): Shape {
  const { sizes, settings } = readManifest(files.manifest);
  const { begin, end } = new Tokenizer(files.tokenizer, settings);
  return { ...sizes, begin, end };
}

/** Opens a model on one thread. */
export function opened(files: ModelFiles = NANO, scripts: URL = SCRIPTS): Promise<Opened> {
  return openModel(files, shapeOf(files), { threads: 1, scripts });
}

/** Opens an engine on one thread. */
export function engineOf(files: ModelFiles = NANO, scripts: URL = SCRIPTS): Promise<Engine> {
  return createEngine(files, { threads: 1, scripts });
}

/** A story with all that the engine reported about it. */
export interface Written extends StoryResult {
  text: string;
  ids: number[];
  pieces: string[];
}

/** Writes a story. */
export async function written(
  engine: Engine,
  ids: readonly number[],
  sampling: Sampling = GREEDY,
  maxTokens: number | null = null,
  signal: AbortSignal = new AbortController().signal,
  onText: () => void = () => {},
): Promise<Written> {
  const pieces: string[] = [];
  const found: number[] = [];
  const collect = (piece: string, tokens: readonly number[]): void => {
    pieces.push(piece);
    found.push(...tokens);
    onText();
  };
  const result = await engine.write(ids, sampling, maxTokens, collect, signal);
  return { ...result, text: pieces.join(""), ids: found, pieces };
}

/**
 * Returns a folder of scripts in which onnxruntime's module is changed before the engine gets it.
 * @param change A statement about `m`, the module. The public API gets the module as it is.
 */
export function sabotaged(change: string): URL {
  const folder = mkdtempSync(join(tmpdir(), "slmx-engine-test-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  copyFileSync(new URL("fallback.js", SCRIPTS), join(folder, "real.js"));
  writeFileSync(
    join(folder, "ort-wasm-simd-threaded.js"),
    `import factory from ${JSON.stringify(new URL("ort-wasm-simd-threaded.js", SCRIPTS).href)};
     export default async (options) => { const m = await factory(options); ${change}; return m; };`,
  );
  writeFileSync(
    join(folder, "fallback.js"),
    `import { openPublic as open } from "./real.js";
     export const openPublic = (files, shape, options) =>
       open(files, shape, { ...options, scripts: new URL(${JSON.stringify(SCRIPTS.href)}) });`,
  );
  return pathToFileURL(join(folder, "/"));
}

/** Returns the content of a bundle's manifest after a change. */
export function changedManifest(files: ModelFiles, change: (shape: Record<string, number>) => void): ModelFiles {
  const manifest = JSON.parse(files.manifest) as { shape: Record<string, number> };
  change(manifest.shape);
  return { ...files, manifest: JSON.stringify(manifest) };
}

