/** Writes stories with a model: `createEngine` opens it, and `Engine.write` writes. */

import type { Cache } from "./cache.ts";
import { openModel } from "./open.ts";
import { Pauses } from "./pauses.ts";
import { Sampler } from "./sampler.ts";
import { Session } from "./session.ts";
import { readManifest } from "./shape.ts";
import { Tokenizer } from "./tokenizer.ts";
import type { Engine, EngineInfo, EngineOptions, Finish, ModelFiles, Sampling, Shape, StoryResult } from "./types.ts";

// A browser runs the first steps slowly, until its optimizing compiler has compiled what they run often. These steps run
// while the person reads the page, so that it starts early (docs/browser.md).
const WARM_UP_STEPS = 400;
const LONGEST_WARM_UP = 1500; // milliseconds

/** Opens a model. It is ready when the promise is fulfilled; it then warms up until the first story begins. */
export async function createEngine(files: ModelFiles, options: EngineOptions): Promise<Engine> {
  const started = performance.now();
  const { sizes, settings } = readManifest(files.manifest);
  const tokenizer = new Tokenizer(files.tokenizer, settings);
  const shape: Shape = { ...sizes, begin: tokenizer.begin, end: tokenizer.end };
  const threads = threadsHere(options.threads);
  const { cache, ...how } = await openModel(files, shape, { ...options, threads });
  const engine = new StoryEngine(cache, tokenizer, shape, {
    ...how,
    threads,
    loadMs: performance.now() - started,
    warmUpMs: 0,
    bytesCopiedPerToken: cache.bytesCopied,
    heapBytes: cache.heapBytes,
  });
  // A run that fails here fails again in the first story, which reports it.
  if (how.path === "zero-copy") engine.warmUp().catch(() => {});
  return engine;
}

/** Returns the threads that can run here: one, unless the page is cross-origin isolated. */
function threadsHere(wanted: number): number {
  if (!Number.isInteger(wanted) || wanted < 1) throw new Error(`threads must be a whole number from 1, not ${wanted}`);
  return globalThis.crossOriginIsolated === false ? 1 : wanted;
}

class StoryEngine implements Engine {
  private readonly session: Session;
  private used = false;
  private writing = false;
  private disposed = false;

  constructor(
    private readonly cache: Cache,
    private readonly tokenizer: Tokenizer,
    readonly shape: Shape,
    readonly info: EngineInfo,
  ) {
    this.session = new Session(cache, shape);
  }

  encode(text: string): number[] {
    return this.tokenizer.encode(text);
  }

  /** Runs steps in short slices until the first story begins. The cache is empty between two slices. */
  async warmUp(): Promise<void> {
    const pauses = new Pauses();
    for (let steps = 0; steps < WARM_UP_STEPS && this.info.warmUpMs < LONGEST_WARM_UP; ) {
      await pauses.pause();
      if (this.used) break;
      const started = performance.now();
      const most = Math.min(this.shape.blockSize, WARM_UP_STEPS - steps);
      let length = 0;
      do this.cache.step(this.shape.begin, length++);
      while (length < most && !pauses.due);
      this.cache.rewind(0);
      steps += length;
      this.info.warmUpMs += performance.now() - started;
    }
    pauses.close();
  }

  async write(
    ids: readonly number[],
    sampling: Sampling,
    maxTokens: number | null,
    onText: (piece: string, tokens: readonly number[]) => void,
    signal: AbortSignal,
  ): Promise<StoryResult> {
    if (this.disposed) throw new Error("this model was closed; load it again");
    if (this.writing) throw new Error("a story is being written; stop it first");
    if (maxTokens !== null && !(Number.isInteger(maxTokens) && maxTokens >= 1)) {
      throw new Error(`max tokens must be a whole number, at least 1, not ${maxTokens}`);
    }
    this.used = this.writing = true;
    const pauses = new Pauses();
    try {
      const prompt = ids[0] === this.shape.begin ? ids : [this.shape.begin, ...ids];
      return await this.story(prompt, sampling, maxTokens ?? Infinity, onText, signal, pauses);
    } catch (error) {
      this.session.rewind(0);
      throw error;
    } finally {
      pauses.close();
      this.writing = false;
    }
  }

  dispose(): void {
    if (this.disposed) return;
    this.used = this.disposed = true;
    this.cache.dispose();
  }

  private async story(
    prompt: readonly number[],
    sampling: Sampling,
    maxTokens: number,
    onText: (piece: string, tokens: readonly number[]) => void,
    signal: AbortSignal,
    pauses: Pauses,
  ): Promise<StoryResult> {
    const { blockSize, end } = this.shape;
    const started = performance.now();
    const sampler = new Sampler(sampling, prompt);
    const reader = this.tokenizer.reader(prompt);
    let [first, last, tokens, length] = [started, started, 0, prompt.length];
    let held: number[] = []; // ids whose last character is not complete
    let finish: Finish | null = signal.aborted ? "interrupted" : null;
    let logits = finish ? null : await this.session.read(prompt);
    while (!finish) {
      const id = sampler.choose(logits!);
      last = performance.now();
      if (!tokens) first = last;
      if (id === end) {
        finish = "end of text";
        break;
      }
      tokens++;
      held.push(id);
      const piece = reader.read(id);
      if (piece) {
        onText(piece, held);
        held = [];
      }
      if (tokens >= maxTokens) finish = "max tokens";
      else if (length >= blockSize) finish = "context full";
      if (finish) break;
      if (pauses.due) await pauses.pause();
      if (signal.aborted || this.disposed) {
        finish = "interrupted";
        break;
      }
      const next = this.session.step(id);
      logits = next instanceof Promise ? await next : next;
      length++;
    }
    const rest = reader.finish();
    if (rest || held.length) onText(rest, held);
    this.info.heapBytes = this.cache.heapBytes;
    return {
      finish: finish!,
      tokens,
      promptTokens: prompt.length,
      firstTokenMs: first - started,
      decodeMs: last - first,
      seed: sampling.seed,
    };
  }
}
