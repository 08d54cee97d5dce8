/**
 * The slow path: onnxruntime-web's public API, built as fallback.js and loaded only if the zero-copy path fails.
 *
 * Each run copies the whole cache into the heap and a longer one out of it.
 */

import { env, InferenceSession, Tensor } from "onnxruntime-web/wasm";
import type { Cache, Logits } from "./cache.ts";
import type { EngineOptions, ModelFiles, Shape } from "./types.ts";

/** Opens a model with the public API. */
export async function openPublic(
  files: Pick<ModelFiles, "wasm" | "model">,
  shape: Shape,
  options: EngineOptions,
): Promise<Cache> {
  env.logLevel = "fatal";
  env.wasm.numThreads = options.threads;
  const script = (kind: string): string => new URL(`ort-wasm-simd-threaded.${kind}`, options.scripts).href;
  env.wasm.wasmPaths = { mjs: script("js"), wasm: script("wasm") };
  if (!(files.wasm instanceof WebAssembly.Module)) env.wasm.wasmBinary = files.wasm;
  const session = await InferenceSession.create(files.model, {
    executionProviders: ["wasm"],
    enableCpuMemArena: false,
    enableMemPattern: false,
    logSeverityLevel: 4,
  });
  return new GrowingCache(session, shape);
}

/** A cache whose past is an input and whose longer present is an output. */
class GrowingCache implements Cache {
  bytesCopied = 0;
  readonly heapBytes = 0;
  private readonly past: readonly string[];
  private values: Tensor[];

  constructor(private readonly session: InferenceSession, private readonly shape: Shape) {
    this.past = session.inputNames.filter((name) => name.startsWith("past_key_values."));
    const empty = [1, shape.kvHeads, 0, shape.headSize];
    this.values = this.past.map(() => new Tensor("float32", new Float32Array(0), empty));
  }

  step(token: number, length: number): Promise<Logits> {
    return this.append([token], length);
  }

  async append(ids: readonly number[], length: number): Promise<Logits> {
    const integers = (values: readonly number[]): Tensor =>
      new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
    const feeds: Record<string, Tensor> = { input_ids: integers(ids) };
    if (this.session.inputNames.includes("position_ids")) {
      feeds["position_ids"] = integers(ids.map((_, i) => length + i));
    }
    feeds["attention_mask"] = integers(new Array<number>(length + ids.length).fill(1));
    this.past.forEach((name, i) => (feeds[name] = this.values[i]!));
    const found = await this.session.run(feeds);
    this.bytesCopied = [...Object.values(feeds), ...Object.values(found)].reduce((sum, { data }) => sum + bytesOf(data), 0);
    this.values = this.past.map((name) => found[name.replace("past_key_values", "present")]!);
    const logits = found["logits"]!.data as Float32Array;
    return logits.subarray(logits.length - this.shape.vocabSize);
  }

  rewind(length: number): void {
    this.values = this.values.map((value) => {
      const [rows, heads, filled, size] = value.dims as [number, number, number, number];
      if (filled === length) return value;
      const data = new Float32Array(heads * length * size);
      for (let head = 0; head < heads; head++) {
        const start = head * filled * size;
        data.set((value.data as Float32Array).subarray(start, start + length * size), head * length * size);
      }
      return new Tensor("float32", data, [rows, heads, length, size]);
    });
  }

  dispose(): void {
    void this.session.release();
  }
}

function bytesOf(data: Tensor["data"]): number {
  return ArrayBuffer.isView(data) ? data.byteLength : 0;
}
