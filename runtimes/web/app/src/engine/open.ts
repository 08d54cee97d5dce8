/** Opens a model with the zero-copy path, or with the public API if that path is not possible here. */

import type { Cache } from "./cache.ts";
import type * as Fallback from "./fallback.ts";
import { startModule } from "./ort-module.ts";
import { selfTest } from "./selftest.ts";
import { ShapeError, SharedCache } from "./shared-cache.ts";
import type { EngineInfo, EngineOptions, ModelFiles, Shape } from "./types.ts";
import { Graph } from "./wasm.ts";

/** The script with `openPublic`, in the folder of scripts. */
const FALLBACK_SCRIPT = "fallback.js";

/** An opened model, and how it is driven. */
export interface Opened extends Pick<EngineInfo, "path" | "reason"> {
  cache: Cache;
}

/** Opens a model and tests it. An Error has onnxruntime's own message. */
export async function openModel(files: ModelFiles, shape: Shape, options: EngineOptions): Promise<Opened> {
  try {
    return { cache: await openShared(files, shape, options), path: "zero-copy" };
  } catch (error) {
    if (error instanceof ShapeError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    const script = new URL(FALLBACK_SCRIPT, options.scripts).href;
    const { openPublic } = (await import(script)) as typeof Fallback;
    const cache = await openPublic(files, shape, options);
    await cache.step(shape.begin, 0);
    cache.rewind(0);
    return { cache, path: "public API", reason };
  }
}

async function openShared(files: ModelFiles, shape: Shape, options: EngineOptions): Promise<Cache> {
  const module = await startModule(files.wasm, options.scripts, options.threads);
  const graph = await Graph.open(module, files.model, options.threads);
  try {
    const cache = new SharedCache(graph, shape);
    selfTest(graph, cache, shape);
    return cache;
  } catch (error) {
    graph.dispose();
    throw error;
  }
}
