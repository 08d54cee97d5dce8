/** The internals of onnxruntime's WebAssembly module that wasm.ts uses, and the start of the module. */

/** A number that names an object of onnxruntime; 0 is none. */
export type Handle = number;
/** An address in the heap of the module, in bytes. */
export type Pointer = number;

/** The functions and fields of the module that we use; lib/wasm/wasm-types.ts of onnxruntime-web declares them all. */
export interface OrtModule {
  readonly PTR_SIZE: number;
  readonly HEAPU8: Uint8Array<ArrayBufferLike>;
  _malloc(bytes: number): Pointer;
  _free(pointer: Pointer): void;
  stackSave(): Pointer;
  stackRestore(stack: Pointer): void;
  stackAlloc(bytes: number): Pointer;
  getValue(pointer: Pointer, type: "i32" | "*"): number;
  setValue(pointer: Pointer, value: number, type: "i32" | "*"): void;
  UTF8ToString(pointer: Pointer): string;
  lengthBytesUTF8(text: string): number;
  stringToUTF8(text: string, pointer: Pointer, bytes: number): void;
  _OrtInit(threads: number, logLevel: number): number;
  _OrtGetLastError(code: Pointer, message: Pointer): number;
  _OrtCreateSessionOptions(
    optimizationLevel: number,
    cpuArena: boolean,
    memoryPattern: boolean,
    executionMode: number,
    profile: boolean,
    profilePrefix: Pointer,
    logId: Pointer,
    logSeverity: number,
    logVerbosity: number,
    optimizedModelPath: Pointer,
  ): Handle;
  _OrtReleaseSessionOptions(options: Handle): number;
  _OrtCreateSession(model: Pointer, bytes: number, options: Handle): Handle | Promise<Handle>;
  _OrtReleaseSession(session: Handle): number;
  _OrtGetInputOutputCount(session: Handle, inputs: Pointer, outputs: Pointer): number;
  _OrtGetInputOutputMetadata(session: Handle, index: number, name: Pointer, metadata: Pointer): number;
  _OrtFree(pointer: Pointer): number;
  _OrtCreateTensor(
    type: number,
    data: Pointer,
    bytes: number,
    sizes: Pointer,
    sizeCount: number,
    location: number,
  ): Handle;
  _OrtGetTensorData(tensor: Handle, type: Pointer, data: Pointer, sizes: Pointer, sizeCount: Pointer): number;
  _OrtReleaseTensor(tensor: Handle): number;
  _OrtCreateRunOptions(logSeverity: number, logVerbosity: number, terminate: boolean, tag: Pointer): Handle;
  _OrtReleaseRunOptions(options: Handle): number;
  _OrtRun(
    session: Handle,
    inputNames: Pointer,
    inputs: Pointer,
    inputCount: number,
    outputNames: Pointer,
    outputCount: number,
    outputs: Pointer,
    runOptions: Handle,
  ): number;
}

/** The functions of the module that must exist. */
export const FUNCTIONS = [
  "_malloc", "_free", "stackSave", "stackRestore", "stackAlloc", "getValue", "setValue", "UTF8ToString",
  "lengthBytesUTF8", "stringToUTF8", "_OrtInit", "_OrtGetLastError", "_OrtCreateSessionOptions",
  "_OrtReleaseSessionOptions", "_OrtCreateSession", "_OrtReleaseSession", "_OrtGetInputOutputCount",
  "_OrtGetInputOutputMetadata", "_OrtFree", "_OrtCreateTensor", "_OrtGetTensorData", "_OrtReleaseTensor",
  "_OrtCreateRunOptions", "_OrtReleaseRunOptions", "_OrtRun",
] as const satisfies readonly (keyof OrtModule)[];

/** The script of onnxruntime-web that loads the module, beside fallback.js. nginx knows no type for .mjs files. */
export const ORT_SCRIPT = "ort-wasm-simd-threaded.js";

type Factory = (options: {
  numThreads: number;
  instantiateWasm(imports: WebAssembly.Imports, done: (instance: WebAssembly.Instance, module: WebAssembly.Module) => void): object;
}) => Promise<Partial<OrtModule>>;

/**
 * Starts onnxruntime's module.
 * @param wasm The compiled module, or its bytes.
 * @param scripts The folder of `ORT_SCRIPT`.
 * @param threads Threads inside an operator. More than one needs a page that is cross-origin isolated.
 */
export async function startModule(
  wasm: WebAssembly.Module | ArrayBuffer,
  scripts: URL,
  threads: number,
): Promise<Partial<OrtModule>> {
  const { default: factory } = (await import(new URL(ORT_SCRIPT, scripts).href)) as { default: Factory };
  const compiled = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
  return new Promise((resolve, reject) => {
    const started = factory({
      numThreads: threads,
      instantiateWasm(imports, done) {
        // The factory never hears of a failure here, so this promise reports it.
        WebAssembly.instantiate(compiled, imports).then((instance) => done(instance, compiled), reject);
        return {};
      },
    });
    started.then(resolve, reject);
  });
}
