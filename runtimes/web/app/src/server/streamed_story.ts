/** A story as it comes in the events of the server: its text, its figures and its end. */
import type { Finish, StoryResult } from "../engine/types.ts";
import type { Piece } from "../protocol.ts";
import { errorIn, ServerError } from "./errors.ts";

/** The parts of an event that the page uses (docs/server-api.md). */
interface CompletionEvent {
  seed?: number;
  choices?: { text: string; finish_detail: string | null; token_ids?: number[] }[];
  usage?: { prompt_tokens: number; completion_tokens: number } | null;
}

const DONE = "[DONE]";
const PIECE = /\s*\S+|\s+/g; // a word with the space before it, for a reader's pace
const FINISHES: Readonly<Record<string, Finish>> = { "max tokens": "max tokens", "context full": "context full", interrupted: "interrupted" };

/** Collects what the events of one story hold. */
export class StreamedStory {
  /** Whether the last event has come. */
  isWhole = false;
  private began: number;
  private first = 0; // when the first tokens came
  private last = 0;
  private tokens = 0;
  private promptTokens = 0;
  private seed: number;
  private finish: Finish = "interrupted";

  /**
   * @param seed The seed that was asked for.
   * @param sent When the request was sent, in milliseconds.
   */
  constructor(seed: number, sent: number) {
    this.seed = seed;
    this.began = this.first = this.last = sent;
  }

  /** Takes note that the story still waits: nothing of it was written before this time. */
  wait(now: number): void {
    if (this.tokens === 0) this.began = this.first = this.last = now;
  }

  /**
   * Reads an event.
   *
   * @param data What the event holds.
   * @param now The time in milliseconds.
   * @returns The text that it adds; a ServerError if it holds one, or cannot be read.
   */
  read(data: string, now: number): Piece[] {
    if (data === DONE) {
      this.isWhole = true;
      return [];
    }
    let event: CompletionEvent;
    try {
      event = Object(JSON.parse(data)) as CompletionEvent;
    } catch {
      throw new ServerError("The server sent something that this page cannot read. Try again.");
    }
    const error = errorIn(event);
    if (error) throw error;
    this.seed = event.seed ?? this.seed;
    if (event.usage) [this.promptTokens, this.tokens] = [event.usage.prompt_tokens, event.usage.completion_tokens];
    const choice = event.choices?.[0];
    if (!choice) return [];
    this.count(choice.token_ids?.length ?? 0, now);
    if (choice.finish_detail) this.finish = FINISHES[choice.finish_detail] ?? "end of text";
    return (choice.text.match(PIECE) ?? []).map((text) => ({ text, ids: [] }));
  }

  /**
   * The figures so far. Events can arrive all at once, so the time between them says nothing of the speed. The rate is that
   * of all tokens since the request was sent, or since the story last waited. It is never more than that of the model.
   */
  get result(): StoryResult {
    const { finish, tokens, promptTokens, seed } = this;
    const decodeMs = tokens > 0 ? ((this.last - this.began) * (tokens - 1)) / tokens : 0;
    return { finish, tokens, promptTokens, seed, firstTokenMs: this.first - this.began, decodeMs };
  }

  private count(tokens: number, now: number): void {
    if (tokens === 0) return;
    if (this.tokens === 0) this.first = now;
    this.last = now;
    this.tokens += tokens;
  }
}
