/** The three ways to write a story with one bundle, each timed in the same worker on one thread. */
import { pipeline, env, TextStreamer } from "@huggingface/transformers";
import * as ort from "onnxruntime-web/wasm";
import { createEngine } from "../../runtimes/web/app/src/engine/engine.ts";

/** Where the files are, relative to the page. `bundle` ends with a slash. */
export interface Task {
  side: "slmx" | "public API" | "transformers.js";
  bundle: string;
  file: string; // onnx/model_int8.onnx
  dtype: string; // as transformers.js names it
  tokens: number;
  stories: number;
  readingMs: number; // a person reads the page, and each story, for so long
}

/** For each story the milliseconds from its start to each token, and what else is known. */
export interface Outcome {
  stories: number[][];
  loadMs: number;
  ids: number[]; // of the first story
  copiedBytesPerToken: number | null;
}

const PROMPT = "Once upon a time";
const bytesOf = async (url: string): Promise<Uint8Array> => new Uint8Array(await (await fetch(url)).arrayBuffer());
const textOf = async (url: string): Promise<string> => (await fetch(url)).text();
const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };

async function runSlmx(task: Task): Promise<Outcome> {
  const scripts = new URL("/slmx/", location.href);
  const wasm = await (await fetch(new URL("ort-wasm-simd-threaded.wasm", scripts))).arrayBuffer();
  const [model, tokenizer, manifest] = await Promise.all([
    bytesOf(task.bundle + task.file),
    textOf(`${task.bundle}tokenizer.json`),
    textOf(`${task.bundle}manifest.json`),
  ]);
  const started = performance.now();
  const engine = await createEngine({ wasm, model, tokenizer, manifest }, { threads: 1, scripts });
  if (engine.info.path !== "zero-copy") throw new Error(`slmx took the slow path: ${engine.info.reason}`);
  const loadMs = performance.now() - started;
  const outcome: Outcome = { stories: [], loadMs, ids: [], copiedBytesPerToken: engine.info.bytesCopiedPerToken };
  for (let story = 0; story < task.stories; story += 1) {
    await new Promise((resolve) => setTimeout(resolve, task.readingMs));
    const times: number[] = [];
    const ids: number[] = [];
    const begin = performance.now();
    const onText = (_: string, tokens: readonly number[]): void => {
      ids.push(...tokens);
      for (const _token of tokens) times.push(performance.now() - begin);
    };
    await engine.write(engine.encode(PROMPT), { ...GREEDY }, task.tokens, onText, new AbortController().signal);
    outcome.stories.push(times);
    if (story === 0) outcome.ids = ids;
  }
  engine.dispose();
  return outcome;
}

/** A bare loop over the public API: every cache is copied into and out of WebAssembly at each step. */
async function runPublic(task: Task): Promise<Outcome> {
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  const manifest = JSON.parse(await textOf(`${task.bundle}manifest.json`)) as { shape: Record<string, number> };
  const vocab = (JSON.parse(await textOf(`${task.bundle}tokenizer.json`)) as { model: { vocab: Record<string, number> }; added_tokens: { id: number }[] });
  const started = performance.now();
  const session = await ort.InferenceSession.create(await bytesOf(task.bundle + task.file), { executionProviders: ["wasm"] });
  const loadMs = performance.now() - started;
  const shape = manifest.shape;
  const heads = shape["n_kv_head"] ?? shape["n_head"]!;
  const width = shape["head_size"] ?? shape["n_embd"]! / shape["n_head"]!;
  const prompt = [vocab.added_tokens[0]!.id, ...["Once", "Ġupon", "Ġa", "Ġtime"].map((token) => vocab.model.vocab[token]!)];
  const outcome: Outcome = { stories: [], loadMs, ids: [], copiedBytesPerToken: null };
  const whole = (values: number[], dims: number[]): ort.Tensor => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
  for (let story = 0; story < task.stories; story += 1) {
    await new Promise((resolve) => setTimeout(resolve, task.readingMs));
    const times: number[] = [];
    const ids: number[] = [];
    const begin = performance.now();
    let past: Record<string, ort.Tensor> = {};
    for (const name of session.inputNames.filter((input) => input.startsWith("past"))) {
      past[name] = new ort.Tensor("float32", new Float32Array(0), [1, heads, 0, width]);
    }
    let next = prompt;
    let length = 0;
    while (ids.length < task.tokens) {
      length += next.length;
      const positions = next.map((_, place) => length - next.length + place);
      const feeds: Record<string, ort.Tensor> = {
        input_ids: whole(next, [1, next.length]),
        attention_mask: whole(new Array<number>(length).fill(1), [1, length]),
        position_ids: whole(positions, [1, next.length]),
        ...past,
      };
      const results = await session.run(Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]!])));
      const logits = (results["logits"]!.data as Float32Array).subarray(-shape["vocab_size"]!);
      let best = 0;
      for (let id = 1; id < logits.length; id += 1) if (logits[id]! > logits[best]!) best = id;
      ids.push(best);
      times.push(performance.now() - begin);
      next = [best];
      past = {};
      for (const name of session.inputNames.filter((input) => input.startsWith("past"))) {
        past[name] = results[name.replace("past_key_values", "present")]!;
      }
    }
    outcome.stories.push(times);
    if (story === 0) outcome.ids = ids;
  }
  await session.release();
  return outcome;
}

async function runTransformers(task: Task): Promise<Outcome> {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/";
  env.useBrowserCache = false;
  env.backends.onnx.wasm!.numThreads = 1;
  env.backends.onnx.wasm!.wasmPaths = "/transformers-ort/";
  const started = performance.now();
  const name = task.bundle.replace(/^\/|\/$/g, "");
  const generator = await pipeline("text-generation", name, { device: "wasm", dtype: task.dtype as "int8" });
  const loadMs = performance.now() - started;
  const outcome: Outcome = { stories: [], loadMs, ids: [], copiedBytesPerToken: null };
  for (let story = 0; story < task.stories; story += 1) {
    await new Promise((resolve) => setTimeout(resolve, task.readingMs));
    const times: number[] = [];
    const ids: number[] = [];
    const begin = performance.now();
    const streamer = new TextStreamer(generator.tokenizer, {
      skip_prompt: true,
      callback_function: () => undefined,
      token_callback_function: (tokens) => {
        ids.push(...tokens.map(Number));
        times.push(performance.now() - begin);
      },
    });
    const inputs = generator.tokenizer(`<|endoftext|>${PROMPT}`);
    await generator.model.generate({ ...inputs, max_new_tokens: task.tokens, min_new_tokens: task.tokens, do_sample: false, streamer });
    outcome.stories.push(times);
    if (story === 0) outcome.ids = ids;
  }
  await generator.dispose();
  return outcome;
}

const RUN = { slmx: runSlmx, "public API": runPublic, "transformers.js": runTransformers };

self.addEventListener("message", (event: MessageEvent<Task>) => {
  RUN[event.data.side](event.data).then(
    (outcome) => self.postMessage({ outcome }),
    (error: unknown) => self.postMessage({ error: error instanceof Error ? `${error.message}\n${error.stack}` : String(error) }),
  );
});
