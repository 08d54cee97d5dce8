/** The models of a server, as the page sees them. */
import type { Sampling } from "../engine/types.ts";
import type { Handlers, StoryClient } from "../page/client.ts";
import type { ModelEntry, Part } from "../protocol.ts";
import type { Api, ServerModel } from "./api.ts";
import { BROKEN, CUT, ServerError } from "./errors.ts";
import { readEvents } from "./events.ts";
import { StreamedStory } from "./streamed_story.ts";

/** Writes stories with the API of the server. It does one thing at a time: a new task ends the one before. */
export class ServerClient implements StoryClient {
  private readonly handlers: Handlers;
  private readonly api: Api;
  private model = "";
  private task = new AbortController();

  /**
   * @param handlers What the page does when something happens.
   * @param api Asks the server.
   */
  constructor(handlers: Handlers, api: Api) {
    this.handlers = handlers;
    this.api = api;
  }

  load(name: string): void {
    const signal = this.begin();
    void this.open(name, signal).catch((error: unknown) => this.fail(error, signal));
  }

  write(parts: readonly Part[], sampling: Sampling, maxTokens: number | null): void {
    const signal = this.begin();
    const fields = {
      model: this.model,
      prompt: parts.map(({ text }) => text).join(""),
      temperature: sampling.temperature,
      top_k: sampling.topK,
      top_p: sampling.topP,
      min_p: sampling.minP,
      repetition_penalty: sampling.repetitionPenalty,
      seed: sampling.seed,
      max_tokens: maxTokens,
      stream: true,
      stream_options: { include_usage: true },
      return_token_ids: true, // their number gives the speed of a story that is stopped
    };
    void this.follow(fields, sampling.seed, signal).catch((error: unknown) => this.fail(error, signal));
  }

  /** Ends the present story: the connection is closed, so the server stops at its next step. */
  stop(): void {
    this.task.abort();
  }

  private begin(): AbortSignal {
    this.task.abort();
    this.task = new AbortController();
    return this.task.signal;
  }

  private async open(name: string, signal: AbortSignal): Promise<void> {
    const models = await this.api.models(signal);
    const model = models.find(({ id }) => id === name) ?? models[0]!;
    this.handlers.models(models.map(entryOf));
    this.model = model.id;
    this.handlers.ready(entryOf(model), null, model.max_model_len);
  }

  private async follow(fields: Readonly<Record<string, unknown>>, seed: number, signal: AbortSignal): Promise<void> {
    const { body, sent } = await this.api.complete(fields, signal);
    const story = new StreamedStory(seed, sent);
    try {
      await this.receive(story, body, signal);
    } finally {
      if (story.result.tokens > 0) this.handlers.figures(story.result);
    }
    if (!story.isWhole) throw new ServerError(BROKEN);
    if (story.result.finish === "interrupted") throw new ServerError(CUT);
    this.handlers.done(story.result);
  }

  private async receive(story: StreamedStory, body: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<void> {
    for await (const event of readEvents(body)) {
      if (signal.aborted) return;
      if ("comment" in event) {
        story.wait(performance.now());
        this.handlers.waiting();
        continue;
      }
      const pieces = story.read(event.data, performance.now());
      if (pieces.length > 0) this.handlers.pieces(pieces);
      if (story.isWhole) return;
    }
  }

  /** Reports an error, unless the task was ended. */
  private fail(error: unknown, signal: AbortSignal): void {
    if (signal.aborted) return;
    if (!(error instanceof ServerError)) throw error;
    this.handlers.failed("server", error.message);
  }
}

function entryOf({ id, variant, parameters }: ServerModel): ModelEntry {
  return { name: id, variant, parameters, bytes: 0, source: "", licence: "" };
}
