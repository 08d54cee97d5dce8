/** The worker that runs the model, as the page sees it. */
import type { Sampling } from "../engine/types.ts";
import type { FromWorker, Part, ToWorker } from "../protocol.ts";
import type { Handlers, StoryClient } from "./client.ts";

const LONGEST_SILENCE = 15_000; // milliseconds

/** Sends the worker its tasks and passes on what belongs to the present one. */
export class WorkerClient implements StoryClient {
  private readonly handlers: Handlers;
  private worker: Worker | null = null;
  private watch: number | null = null; // the timer of a silence; null if no model loads
  private task = 0;
  private stoppedTask = 0;

  /** @param handlers What the page does when the worker reports something. */
  constructor(handlers: Handlers) {
    this.handlers = handlers;
  }

  /**
   * Loads a model. Each model has a worker of its own, because WebAssembly gives no memory back while a worker lives.
   *
   * @param model The name of the model; an empty name takes the first of the site.
   */
  load(model: string): void {
    this.task += 1;
    this.worker?.terminate();
    this.worker = new Worker(new URL("worker.js", document.baseURI), { type: "module" });
    this.worker.addEventListener("message", (event: MessageEvent<FromWorker>) => this.receive(event.data));
    this.worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.endWatch();
      this.handlers.failed("engine", event.message || "worker.js could not be loaded.");
    });
    this.send({ type: "load", model });
    this.beginWatch();
  }

  /** Reports it when nothing comes from the worker for long from now on. */
  private beginWatch(): void {
    this.endWatch();
    this.watch = window.setTimeout(() => this.handlers.stalled(), LONGEST_SILENCE);
  }

  private endWatch(): void {
    if (this.watch !== null) window.clearTimeout(this.watch);
    this.watch = null;
  }

  write(parts: readonly Part[], sampling: Sampling, maxTokens: number | null): void {
    this.task += 1;
    this.send({ type: "write", id: this.task, parts, sampling, maxTokens });
  }

  /** Ends the present story. Of what the worker still reports about it, only the figures are passed on. */
  stop(): void {
    this.stoppedTask = this.task;
    this.task += 1;
    this.send({ type: "stop" });
  }

  private send(message: ToWorker): void {
    this.worker?.postMessage(message);
  }

  private receive(message: FromWorker): void {
    const { handlers } = this;
    if (message.type === "ready" || message.type === "failed") this.endWatch();
    else if (this.watch !== null) this.beginWatch();
    switch (message.type) {
      case "models":
        return handlers.models(message.models);
      case "progress":
        return handlers.progress(message.loaded, message.total);
      case "ready":
        return handlers.ready(message.model, message.info, message.shape.blockSize);
      case "not kept":
        return handlers.notKept(message.message);
      case "failed":
        return message.id === null || message.id === this.task ? handlers.failed(message.kind, message.message) : undefined;
      case "pieces":
        return message.id === this.task ? handlers.pieces(message.pieces) : undefined;
      case "done":
        if (message.id === this.task || message.id === this.stoppedTask) handlers.figures(message.result, message.heapBytes);
        return message.id === this.task ? handlers.done(message.result) : undefined;
    }
  }
}
