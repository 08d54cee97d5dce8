/** Drives onnxruntime's WebAssembly module directly. Only this module and ort-module.ts touch its internals. */

import { FUNCTIONS, type Handle, type OrtModule, type Pointer } from "./ort-module.ts";

/** The element types of ONNX that slmx's graphs have. */
export const FLOAT = 1;
export const INT64 = 7;

/** A tensor whose memory is ours. */
export interface Tensor {
  readonly handle: Handle;
  readonly pointer: Pointer;
}

/** An input or output of a graph. A size that is not fixed has a name instead of a number. */
export interface Port {
  readonly name: string;
  readonly type: number;
  readonly sizes: readonly (number | string)[];
}

/** The inputs and outputs of one kind of run, as arrays in the heap. */
export interface Binding {
  readonly inputNames: Pointer;
  readonly inputs: Pointer;
  readonly inputCount: number;
  readonly outputNames: Pointer;
  readonly outputs: Pointer;
  readonly outputCount: number;
}

const ALL_OPTIMIZATIONS = 99;
const FATAL_ONLY = 4; // every error is in an exception, so the console does not repeat it
const ON_CPU = 1;

/** onnxruntime in the module, with a graph. Every error of it becomes an Error with its own message. */
export class Graph {
  private readonly session: Handle;
  private readonly runOptions: Handle;
  private readonly texts = new Map<string, Pointer>();
  /** The inputs and outputs in the order of the graph. */
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];

  private constructor(private readonly module: OrtModule, session: Handle) {
    this.session = session;
    [this.inputs, this.outputs] = this.readPorts();
    this.runOptions = this.made(module._OrtCreateRunOptions(FATAL_ONLY, 0, false, 0), "run options");
  }

  /** Opens a model. The module is used by this graph alone. */
  static async open(found: Partial<OrtModule>, model: Uint8Array, threads: number): Promise<Graph> {
    const missing = FUNCTIONS.filter((name) => typeof found[name] !== "function");
    if (missing.length || !found.HEAPU8 || found.PTR_SIZE !== 4) {
      throw new Error(`this onnxruntime-web has no ${missing.join(", ") || "heap of 32 bits"}`);
    }
    const module = found as OrtModule;
    if (module._OrtInit(threads, FATAL_ONLY)) throw lastError(module, "start");
    const options = module._OrtCreateSessionOptions(
      ALL_OPTIMIZATIONS, false, false, 0, false, 0, 0, FATAL_ONLY, 0, 0,
    );
    if (!options) throw lastError(module, "make session options");
    const pointer = module._malloc(model.byteLength);
    if (!pointer) throw new Error(`not enough memory for a model of ${model.byteLength} bytes`);
    try {
      bytesOf(module).set(model, pointer);
      const session = await module._OrtCreateSession(pointer, model.byteLength, options);
      if (!session) throw lastError(module, "open this model");
      return new Graph(module, session);
    } finally {
      module._free(pointer);
      module._OrtReleaseSessionOptions(options);
    }
  }

  /** The whole memory of the module. Views of it are valid until it grows, so compare their buffer with this one. */
  get buffer(): ArrayBufferLike {
    return bytesOf(this.module).buffer;
  }

  /** Takes memory of the heap and fills it with zeros. */
  allocate(bytes: number): Pointer {
    const pointer = this.module._malloc(bytes);
    if (!pointer) throw new Error(`not enough memory: ${bytes} bytes are needed`);
    bytesOf(this.module).fill(0, pointer, pointer + bytes);
    return pointer;
  }

  /** Returns memory that `allocate` took. */
  free(pointer: Pointer): void {
    this.module._free(pointer);
  }

  /** Makes a tensor of memory that `allocate` took; nothing is copied. */
  tensor(type: typeof FLOAT | typeof INT64, pointer: Pointer, sizes: readonly number[]): Tensor {
    const { module } = this;
    const bytes = sizes.reduce((product, size) => product * size, type === FLOAT ? 4 : 8);
    const handle = this.onStack(4 * sizes.length, (place) => {
      sizes.forEach((size, i) => module.setValue(place + 4 * i, size, "i32"));
      return module._OrtCreateTensor(type, pointer, bytes, place, sizes.length, ON_CPU);
    });
    return { handle: this.made(handle, "a tensor"), pointer };
  }

  /** Frees a tensor, but not its memory. */
  release(tensor: Tensor): void {
    this.module._OrtReleaseTensor(tensor.handle);
  }

  /** Returns where the data of a tensor lies, as onnxruntime sees it. */
  dataOf(handle: Handle): Pointer {
    const { module } = this;
    return this.onStack(16, (place) => {
      const failed = module._OrtGetTensorData(handle, place, place + 4, place + 8, place + 12);
      if (failed) throw lastError(module, "read a tensor");
      const sizes = module.getValue(place + 8, "*");
      if (sizes) module._OrtFree(sizes);
      return module.getValue(place + 4, "*");
    });
  }

  /** Prepares runs with these tensors. */
  bind(inputs: ReadonlyMap<string, Tensor>, outputs: ReadonlyMap<string, Tensor>): Binding {
    const names = (tensors: ReadonlyMap<string, Tensor>): Pointer =>
      this.addresses([...tensors.keys()].map((name) => this.text(name)));
    const handles = (tensors: ReadonlyMap<string, Tensor>): Pointer =>
      this.addresses([...tensors.values()].map(({ handle }) => handle));
    return {
      inputNames: names(inputs),
      inputs: handles(inputs),
      inputCount: inputs.size,
      outputNames: names(outputs),
      outputs: handles(outputs),
      outputCount: outputs.size,
    };
  }

  /** Returns the tensors of the outputs as they are after a run; they are still those of `bind`. */
  outputHandles(binding: Binding): Handle[] {
    return Array.from({ length: binding.outputCount }, (_, i) => this.module.getValue(binding.outputs + 4 * i, "*"));
  }

  /** Frees what `bind` made. */
  unbind(binding: Binding): void {
    for (const array of [binding.inputNames, binding.inputs, binding.outputNames, binding.outputs]) this.free(array);
  }

  /** Runs the graph. It reads and writes the tensors of the binding where they lie. */
  run(binding: Binding): void {
    const failed = this.module._OrtRun(
      this.session,
      binding.inputNames,
      binding.inputs,
      binding.inputCount,
      binding.outputNames,
      binding.outputCount,
      binding.outputs,
      this.runOptions,
    );
    if (failed !== 0) throw lastError(this.module, "run this model");
  }

  /** Frees the graph. */
  dispose(): void {
    this.texts.forEach((pointer) => this.free(pointer));
    this.texts.clear();
    this.module._OrtReleaseRunOptions(this.runOptions);
    this.module._OrtReleaseSession(this.session);
  }

  private readPorts(): [Port[], Port[]] {
    const { module } = this;
    return this.onStack(8, (place) => {
      if (module._OrtGetInputOutputCount(this.session, place, place + 4)) throw lastError(module, "count the inputs");
      const [inputs, outputs] = [module.getValue(place, "i32"), module.getValue(place + 4, "i32")];
      const ports = Array.from({ length: inputs + outputs }, (_, index) => this.readPort(index, place));
      return [ports.slice(0, inputs), ports.slice(inputs)];
    });
  }

  /** Reads a port. Its metadata are the type, the number of sizes, a name or 0 for each size, and the fixed sizes. */
  private readPort(index: number, place: Pointer): Port {
    const { module } = this;
    if (module._OrtGetInputOutputMetadata(this.session, index, place, place + 4)) throw lastError(module, "read an input");
    const [name, metadata] = [module.getValue(place, "*"), module.getValue(place + 4, "*")];
    const type = module.getValue(metadata, "i32");
    const count = type ? module.getValue(metadata + 4, "i32") : 0;
    const sizes = Array.from({ length: count }, (_, i) => {
      const symbol = module.getValue(metadata + 8 + 4 * i, "*");
      return symbol ? module.UTF8ToString(symbol) : module.getValue(metadata + 8 + 4 * (count + i), "*");
    });
    const port = { name: module.UTF8ToString(name), type, sizes };
    module._OrtFree(name);
    module._OrtFree(metadata);
    return port;
  }

  private addresses(values: readonly number[]): Pointer {
    const pointer = this.allocate(4 * Math.max(1, values.length));
    values.forEach((value, i) => this.module.setValue(pointer + 4 * i, value, "*"));
    return pointer;
  }

  private text(value: string): Pointer {
    let pointer = this.texts.get(value);
    if (pointer === undefined) {
      const bytes = this.module.lengthBytesUTF8(value) + 1;
      pointer = this.allocate(bytes);
      this.module.stringToUTF8(value, pointer, bytes);
      this.texts.set(value, pointer);
    }
    return pointer;
  }

  private made(handle: Handle, what: string): Handle {
    if (!handle) throw lastError(this.module, `make ${what}`);
    return handle;
  }

  private onStack<T>(bytes: number, use: (place: Pointer) => T): T {
    const stack = this.module.stackSave();
    try {
      return use(this.module.stackAlloc(bytes));
    } finally {
      this.module.stackRestore(stack);
    }
  }
}

/** Returns the heap. The module refreshes its view when it reads a value: another thread may have grown the memory. */
function bytesOf(module: OrtModule): Uint8Array<ArrayBufferLike> {
  module.getValue(0, "i32");
  return module.HEAPU8;
}

function lastError(module: OrtModule, what: string): Error {
  const stack = module.stackSave();
  try {
    const place = module.stackAlloc(8);
    module._OrtGetLastError(place, place + 4);
    const message = module.getValue(place + 4, "*");
    return new Error(`onnxruntime cannot ${what} (${message ? module.UTF8ToString(message) : "it gives no reason"})`);
  } finally {
    module.stackRestore(stack);
  }
}
