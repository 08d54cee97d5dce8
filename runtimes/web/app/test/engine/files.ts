/** The files that the tests of the engine read. Tests run in the folder of package.json. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { ModelFiles } from "../../src/engine/types.ts";

/** The folder of the bundles that the package ships. */
export const BUNDLES = join(process.cwd(), "..", "..", "bundles");
/** The folder of a bundle that ships: small is in a package of its own. */
export function shippedFolder(name: string): string {
  return name === "small" ? join(BUNDLES, "..", "stories_small", "slmx_stories_small", name) : join(BUNDLES, name);
}
/** The scripts that the engine imports; test/run.mjs builds them and names their folder. */
export const SCRIPTS = pathToFileURL(join(process.env["SLMX_WEB_SCRIPTS"]!, "/"));

/** The bytes of onnxruntime's module. */
export function wasmBytes(): ArrayBuffer {
  return new Uint8Array(readFileSync(new URL("ort-wasm-simd-threaded.wasm", SCRIPTS))).buffer;
}

/** Reads a bundle. */
export function modelFiles(folder: string, wasm: WebAssembly.Module | ArrayBuffer, variant = "int8"): ModelFiles {
  const text = (name: string): string => readFileSync(join(folder, name), "utf8");
  const manifest = text("manifest.json");
  const { file } = (JSON.parse(manifest) as { variants: Record<string, { file: string }> }).variants[variant]!;
  return { wasm, model: readFileSync(join(folder, file)), tokenizer: text("tokenizer.json"), manifest };
}

/** Reads a file of vectors that tests/runtimes/web/vectors.py wrote. */
export function vectors<T>(name: string): T {
  return JSON.parse(readFileSync(join(process.cwd(), "test", "vectors", name), "utf8")) as T;
}
