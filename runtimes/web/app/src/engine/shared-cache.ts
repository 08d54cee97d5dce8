/** The zero-copy cache: keys and values lie in buffers of the heap that are bound as past and as present. */

import type { Cache, Logits } from "./cache.ts";
import type { Pointer } from "./ort-module.ts";
import type { Shape } from "./types.ts";
import { type Binding, FLOAT, type Graph, INT64, type Tensor } from "./wasm.ts";

const LOGITS_TO_KEEP = "num_logits_to_keep";
const ID_BYTES = 8; // int64, of which we write the lower word; the upper word stays zero
const WORD_BYTES = 4;

/** Returns the names of the inputs and outputs of the KV cache, layer by layer, key before value. */
export function cacheNames(layers: number): { past: string; present: string }[] {
  return Array.from({ length: layers }, (_, layer) =>
    ["key", "value"].map((part) => ({ past: `past_key_values.${layer}.${part}`, present: `present.${layer}.${part}` })),
  ).flat();
}

/**
 * Keys and values in buffers [1, heads, blockSize, headSize].
 *
 * GroupQueryAttention writes each new position into its place. The mask is as long as the buffers, and the number of
 * ones in it is the number of filled positions. So a step writes an id, a position and one entry of the mask.
 */
export class SharedCache implements Cache {
  /** The buffers of the cache in the heap. */
  readonly buffers: readonly { pointer: Pointer; bytes: number }[];
  /** The binding of a step. */
  readonly stepBinding: Binding;
  bytesCopied = 0;
  private bytesWritten = 0;
  private readonly ids: Pointer;
  private readonly positions: Pointer;
  private readonly mask: Pointer;
  private readonly keep: Pointer;
  private readonly logits: Pointer;
  private readonly past = new Map<string, Tensor>();
  private readonly present = new Map<string, Tensor>();
  private readonly maskTensor: Tensor;
  private readonly fixed: Tensor[] = [];
  private readonly hasPositions: boolean;
  private keepsLogits = true;
  // Views of the heap, made again when it has grown.
  private words = new Int32Array(0) as Int32Array<ArrayBufferLike>;
  private logitsView = new Float32Array(0) as Logits;

  constructor(private readonly graph: Graph, private readonly shape: Shape) {
    checkPorts(graph, shape);
    const { blockSize, vocabSize, kvHeads, headSize } = shape;
    this.hasPositions = graph.inputs.some(({ name }) => name === "position_ids");
    this.ids = graph.allocate(ID_BYTES * blockSize);
    this.positions = graph.allocate(ID_BYTES * blockSize);
    this.mask = graph.allocate(ID_BYTES * blockSize);
    this.keep = graph.allocate(ID_BYTES);
    this.logits = graph.allocate(4 * vocabSize);
    const sizes = [1, kvHeads, blockSize, headSize];
    const bytes = 4 * kvHeads * blockSize * headSize;
    this.buffers = cacheNames(shape.layers).map(({ past, present }) => {
      const pointer = graph.allocate(bytes);
      // onnxruntime wants two tensors, but both are the same memory.
      this.past.set(past, this.fix(graph.tensor(FLOAT, pointer, sizes)));
      this.present.set(present, this.fix(graph.tensor(FLOAT, pointer, sizes)));
      return { pointer, bytes };
    });
    this.maskTensor = this.fix(graph.tensor(INT64, this.mask, [1, blockSize]));
    const [ids, positions] = this.idTensors(1).map((tensor) => this.fix(tensor));
    this.stepBinding = this.bind(ids!, positions!, this.fix(graph.tensor(FLOAT, this.logits, [1, 1, vocabSize])), null);
    this.refresh();
    this.put(this.keep, 0, 1);
  }

  get heapBytes(): number {
    return this.graph.buffer.byteLength;
  }

  step(token: number, length: number): Logits {
    this.refresh();
    const before = this.bytesWritten;
    this.put(this.ids, 0, token);
    this.put(this.positions, 0, length);
    this.put(this.mask, length, 1);
    this.bytesCopied = this.bytesWritten - before;
    try {
      this.graph.run(this.stepBinding);
    } catch (error) {
      this.rewind(length);
      throw error;
    }
    this.refresh();
    return this.logitsView;
  }

  append(ids: readonly number[], length: number): Logits {
    if (ids.length === 1) return this.step(ids[0]!, length);
    this.refresh();
    ids.forEach((id, i) => {
      this.put(this.ids, i, id);
      this.put(this.positions, i, length + i);
      this.put(this.mask, length + i, 1);
    });
    try {
      return this.runMany(ids.length);
    } catch (error) {
      this.rewind(length);
      throw error;
    }
  }

  rewind(length: number): void {
    this.refresh();
    const place = (position: number): number => (this.mask + ID_BYTES * position) / WORD_BYTES;
    this.words.fill(0, place(length), place(this.shape.blockSize));
  }

  /** Fills the logits with NaN, so that a test sees whether a step writes them. */
  spoilLogits(): void {
    this.refresh();
    this.logitsView.fill(NaN);
  }

  /** Where the outputs of a step must lie, in the order of its binding. */
  get outputPointers(): Pointer[] {
    return [this.logits, ...this.buffers.map(({ pointer }) => pointer)];
  }

  dispose(): void {
    this.graph.unbind(this.stepBinding);
    this.fixed.forEach((tensor) => this.graph.release(tensor));
    for (const { pointer } of this.buffers) this.graph.free(pointer);
    for (const pointer of [this.ids, this.positions, this.mask, this.keep, this.logits]) this.graph.free(pointer);
    this.graph.dispose();
  }

  private runMany(count: number): Logits {
    if (this.keepsLogits) {
      try {
        return this.runOnce(count, 1, this.logits);
      } catch (error) {
        if (!String(error).includes(LOGITS_TO_KEEP)) throw error;
        this.keepsLogits = false; // an older graph, which always computes the logits of all positions
      }
    }
    const { vocabSize } = this.shape;
    const rows = this.graph.allocate(4 * count * vocabSize);
    try {
      this.runOnce(count, count, rows);
      this.logitsView.set(new Float32Array(this.graph.buffer, rows + 4 * (count - 1) * vocabSize, vocabSize));
      return this.logitsView;
    } finally {
      this.graph.free(rows);
    }
  }

  private runOnce(count: number, kept: number, place: Pointer): Logits {
    const { graph } = this;
    const [ids, positions] = this.idTensors(count);
    const logits = graph.tensor(FLOAT, place, [1, kept, this.shape.vocabSize]);
    const keep = kept < count ? graph.tensor(INT64, this.keep, [1]) : null;
    const binding = this.bind(ids!, positions!, logits, keep);
    try {
      graph.run(binding);
    } finally {
      graph.unbind(binding);
      for (const tensor of [ids!, positions!, logits, keep]) if (tensor) graph.release(tensor);
    }
    this.refresh();
    return this.logitsView;
  }

  private idTensors(count: number): Tensor[] {
    return [this.ids, this.positions].map((pointer) => this.graph.tensor(INT64, pointer, [1, count]));
  }

  private bind(ids: Tensor, positions: Tensor, logits: Tensor, keep: Tensor | null): Binding {
    const inputs = new Map([["input_ids", ids]]);
    if (this.hasPositions) inputs.set("position_ids", positions);
    inputs.set("attention_mask", this.maskTensor);
    if (keep) inputs.set(LOGITS_TO_KEEP, keep);
    return this.graph.bind(new Map([...inputs, ...this.past]), new Map([["logits", logits], ...this.present]));
  }

  /** Writes one number of an array int64, below 2^31. */
  private put(array: Pointer, place: number, value: number): void {
    this.words[(array + ID_BYTES * place) / WORD_BYTES] = value;
    this.bytesWritten += WORD_BYTES;
  }

  private fix(tensor: Tensor): Tensor {
    this.fixed.push(tensor);
    return tensor;
  }

  private refresh(): void {
    const { buffer } = this.graph;
    if (this.words.buffer === buffer) return;
    this.words = new Int32Array(buffer);
    this.logitsView = new Float32Array(buffer, this.logits, this.shape.vocabSize);
  }
}

/** The graph is not a model of the shape in manifest.json, so no path can run it. */
export class ShapeError extends Error {}

/** Refuses a graph that is not a model of this shape. */
function checkPorts(graph: Graph, shape: Shape): void {
  const { vocabSize, kvHeads, headSize, layers } = shape;
  const check = (ports: typeof graph.inputs, name: string, type: number, sizes: (number | null)[]): void => {
    const port = ports.find((port) => port.name === name);
    const fits =
      port?.type === type &&
      port.sizes.length === sizes.length &&
      sizes.every((size, i) => size === null || size === port.sizes[i]);
    if (!fits) {
      const found = port ? `type ${port.type}, [${port.sizes.join(", ")}]` : "missing";
      throw new ShapeError(`the graph does not fit manifest.json: ${name} is ${found}; export the bundle again`);
    }
  };
  check(graph.inputs, "input_ids", INT64, [null, null]);
  check(graph.inputs, "attention_mask", INT64, [null, null]);
  check(graph.outputs, "logits", FLOAT, [null, null, vocabSize]);
  for (const { past, present } of cacheNames(layers)) {
    check(graph.inputs, past, FLOAT, [null, kvHeads, null, headSize]);
    check(graph.outputs, present, FLOAT, [null, kvHeads, null, headSize]);
  }
  if (graph.inputs.some(({ name }) => name === `past_key_values.${layers}.key`)) {
    throw new ShapeError(`the graph does not fit manifest.json: it has more than ${layers} layers; export the bundle again`);
  }
}
