/** The worker: it loads one model of the site and writes stories, so that the page never waits. */
import { createEngine } from "./engine/engine.ts";
import type { Engine } from "./engine/types.ts";
import type { FailureKind, FromWorker, ModelEntry, Part, Piece, ToWorker } from "./protocol.ts";
import { fetchFile, fetchWasm, loadSite, SiteError } from "./site/loader.ts";

const BASE = new URL("./", self.location.href);
const SEND_EVERY = 12; // milliseconds between two messages with text
const PARAMETERS_FOR_THREADS = 8_000_000; // smaller models are not quicker with more threads (docs/browser.md)
const MOST_THREADS = 4;

let engine: Engine | null = null;
let writing: AbortController | null = null;
let lastTask: Promise<void> = Promise.resolve();

function send(message: FromWorker): void {
  self.postMessage(message);
}

/** A prompt that the model cannot read. */
class PromptError extends Error {}

function kindOf(error: unknown): FailureKind {
  if (error instanceof SiteError) return error.kind;
  if (error instanceof PromptError) return "prompt";
  const text = String(error);
  if (error instanceof RangeError || /memory|allocat/i.test(text)) return "memory";
  return "engine";
}

function report(id: number | null, error: unknown): void {
  send({ type: "failed", id, kind: kindOf(error), message: error instanceof Error ? error.message : String(error) });
}

/** How many threads a model gets: more than one only where the page is isolated and the model is large. */
function threadsFor(parameters: number): number {
  if (!self.crossOriginIsolated || parameters < PARAMETERS_FOR_THREADS) return 1;
  return Math.max(1, Math.min(MOST_THREADS, Math.floor((navigator.hardwareConcurrency || 2) / 2)));
}

async function load(name: string): Promise<void> {
  const site = await loadSite(BASE);
  site.onStorageProblem = ({ message }) => send({ type: "not kept", message });
  const entries: ModelEntry[] = site.models.map((model) => ({ ...model, bytes: site.files[model.model]?.bytes ?? 0 }));
  send({ type: "models", models: entries });
  const place = Math.max(0, entries.findIndex((entry) => entry.name === name));
  const model = site.models[place]!; // a site has at least one model
  const entry = entries[place]!;
  const parts = new Map<string, [loaded: number, total: number]>();
  const progress = (file: string) => (loaded: number, total: number) => {
    parts.set(file, [loaded, total]);
    const sums = [...parts.values()].reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
    send({ type: "progress", loaded: sums[0], total: sums[1] });
  };
  const text = async (file: string) => new TextDecoder().decode(await fetchFile(site, file, progress(file)));
  const [wasm, bytes, tokenizer, manifest] = await Promise.all([
    fetchWasm(site, progress("wasm")),
    fetchFile(site, model.model, progress(model.model)),
    text(model.tokenizer),
    text(model.manifest),
  ]);
  const options = { threads: threadsFor(model.parameters), scripts: BASE };
  engine = await createEngine({ wasm, model: bytes, tokenizer, manifest }, options);
  send({ type: "ready", model: entry, info: engine.info, shape: engine.shape });
}

/** The ids of a story, beginning token included. */
function idsOf(parts: readonly Part[], running: Engine): number[] {
  const ids = [running.shape.begin];
  for (const part of parts) {
    if (part.ids) ids.push(...part.ids);
    else for (const id of running.encode(part.text)) ids.push(id);
  }
  const most = running.shape.blockSize;
  if (ids.length > most) {
    throw new PromptError(`The text has ${ids.length} tokens, and this model reads ${most} at most. Shorten it.`);
  }
  return ids;
}

async function write(task: Extract<ToWorker, { type: "write" }>, abort: AbortController): Promise<void> {
  if (!engine) throw new PromptError("No model is loaded yet.");
  let pieces: Piece[] = [];
  let sent = 0;
  const flush = (): void => {
    if (pieces.length > 0) send({ type: "pieces", id: task.id, pieces });
    pieces = [];
    sent = performance.now();
  };
  const onText = (text: string, ids: readonly number[]): void => {
    pieces.push({ text, ids: [...ids] });
    if (performance.now() - sent >= SEND_EVERY) flush();
  };
  const result = await engine.write(idsOf(task.parts, engine), task.sampling, task.maxTokens, onText, abort.signal);
  flush();
  send({ type: "done", id: task.id, result, heapBytes: engine.info.heapBytes });
}

self.addEventListener("message", (event: MessageEvent<ToWorker>) => {
  const message = event.data;
  writing?.abort();
  if (message.type === "stop") return;
  const abort = new AbortController();
  writing = abort;
  lastTask = lastTask.then(() =>
    message.type === "load"
      ? load(message.model).catch((error: unknown) => report(null, error))
      : write(message, abort).catch((error: unknown) => report(message.id, error)),
  );
});
