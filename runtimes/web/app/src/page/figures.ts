/** The quiet lines at the bottom: speed, model, memory, seed, offline use, and where the model comes from. */
import type { EngineInfo, StoryResult } from "../engine/types.ts";
import type { ModelEntry } from "../protocol.ts";
import { megabytes } from "./texts.ts";

/** Shows what is known about the model and its last passage. */
export class Figures {
  private readonly line: HTMLElement;
  private readonly about: HTMLElement;
  private model: ModelEntry | null = null;
  private info: EngineInfo | null = null;
  private result: StoryResult | null = null;
  private offline = "";

  /**
   * @param line Where the figures go.
   * @param about Where the source and the licence of the model go.
   */
  constructor(line: HTMLElement, about: HTMLElement) {
    this.line = line;
    this.about = about;
  }

  /** Shows a model that is ready. `info` is null if it runs on the server. */
  showModel(model: ModelEntry, info: EngineInfo | null): void {
    this.model = model;
    this.info = info;
    this.result = null;
    const sentences = [model.source && `Made from ${model.source}.`, model.licence && `Licence of the text: ${model.licence}.`];
    this.about.textContent = sentences.filter(Boolean).join(" ");
    this.update();
  }

  /** Shows the figures of a passage. */
  showResult(result: StoryResult, heapBytes = 0): void {
    this.result = result;
    if (this.info) this.info.heapBytes = heapBytes;
    this.update();
  }

  /** Shows whether the page works without a network. */
  showOffline(words: string): void {
    this.offline = words;
    this.update();
  }

  private update(): void {
    const { model, info, result } = this;
    if (!model) return;
    const parts = [`${model.name} ${model.variant}${info ? `, ${megabytes(model.bytes)}` : " on this server"}`];
    if (info?.heapBytes) parts.push(`${megabytes(info.heapBytes)} of memory`);
    if (info && info.path !== "zero-copy") parts.push(`slow path: ${info.reason ?? "the quick one is not available"}`);
    if (result && result.tokens > 1 && result.decodeMs > 0) {
      parts.unshift(`${Math.round(((result.tokens - 1) * 1000) / result.decodeMs).toLocaleString("en")} tokens/s`);
    }
    if (result) parts.push(`seed ${result.seed}`);
    if (this.offline) parts.push(this.offline);
    this.line.textContent = parts.join(" · ");
  }
}
