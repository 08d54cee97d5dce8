/** Reads an answer in events (text/event-stream), as the standard describes it (html.spec.whatwg.org, 9.2.6). */
import { BROKEN, ServerError } from "./errors.ts";

/** An event, or a comment, which says that the connection is alive. */
export type StreamEvent = { data: string } | { comment: string };

const LINE_END = /\r\n|\n|\r/;

/** Finds the events in a text that comes in parts. A part may end anywhere. */
export class EventParser {
  private rest = ""; // of a line that has not ended
  private endedInReturn = false; // a line feed at the start of the next part belongs to that line end
  private data: string[] = [];

  /** Reads the next part. Returns what has become whole. */
  push(part: string): StreamEvent[] {
    const found: StreamEvent[] = [];
    let text = part;
    if (this.endedInReturn && text !== "") {
      if (text.startsWith("\n")) text = text.slice(1);
      this.endedInReturn = false;
    }
    if (part.endsWith("\r")) this.endedInReturn = true;
    const lines = (this.rest + text).split(LINE_END);
    this.rest = lines.pop() ?? "";
    for (const line of lines) this.read(line, found);
    return found;
  }

  private read(line: string, found: StreamEvent[]): void {
    if (line === "") {
      if (this.data.length > 0) found.push({ data: this.data.join("\n") });
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "") found.push({ comment: value });
    else if (name === "data") this.data.push(value);
  }
}

/**
 * Reads the events of a body; a ServerError if it breaks. An event that has not ended when the body ends is left out.
 *
 * @param body The bytes of the answer. They are cancelled if the caller stops reading.
 */
export async function* readEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new ServerError(BROKEN);
      });
      if (done) return;
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}
