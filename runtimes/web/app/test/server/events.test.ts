import assert from "node:assert/strict";
import { test } from "node:test";
import { BROKEN, ServerError } from "../../src/server/errors.ts";
import { EventParser, readEvents, type StreamEvent } from "../../src/server/events.ts";

const encoder = new TextEncoder();

/** A body that comes in the given parts. */
function bodyOf(parts: readonly Uint8Array[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const part of parts) controller.enqueue(part);
      controller.close();
    },
  });
}

async function readAll(parts: readonly Uint8Array[]): Promise<StreamEvent[]> {
  const found: StreamEvent[] = [];
  for await (const event of readEvents(bodyOf(parts))) found.push(event);
  return found;
}

/** Random numbers below a limit, the same in every run. */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** Cuts bytes at random places. */
function cut(bytes: Uint8Array, random: (limit: number) => number): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = random(4) === 0 ? 0 : 1 + random(random(2) ? 3 : 40);
    parts.push(bytes.subarray(at, at + length));
    at += length;
  }
  return parts;
}

const CASES: readonly [what: string, text: string, expected: StreamEvent[]][] = [
  ["one event", "data: a\n\n", [{ data: "a" }]],
  ["no space after the colon, and only one is taken away", "data:a\n\ndata:  b\n\n", [{ data: "a" }, { data: " b" }]],
  ["several lines of data", "data: a\ndata: b\n\n", [{ data: "a\nb" }]],
  ["data without a colon, and empty data", "data\n\ndata:\n\n", [{ data: "" }, { data: "" }]],
  ["comments, also inside an event", ": waiting\n\ndata: a\n:b\ndata: c\n\n", [{ comment: "waiting" }, { comment: "b" }, { data: "a\nc" }]],
  ["other fields are ignored", "event: x\nid: 1\nretry: 5\ndatax: no\ndata: a\n\n", [{ data: "a" }]],
  ["blank lines alone are no events", "\n\n\ndata: a\n\n\n\n", [{ data: "a" }]],
  ["colons in data", 'data: {"a":"b: c"}\n\n', [{ data: '{"a":"b: c"}' }]],
  ["an event that has not ended is left out", "data: a\n\ndata: b\n", [{ data: "a" }]],
  ["a line that has not ended is left out", "data: a\n\ndata: b", [{ data: "a" }]],
  ["a mark of the byte order", "\ufeffdata: a\n\n", [{ data: "a" }]],
  ["characters of several bytes", "data: é 中 🐉\n\n", [{ data: "é 中 🐉" }]],
  ["U+2028 ends no line", "data: a\u2028b\n\n", [{ data: "a\u2028b" }]],
];

for (const [what, text, expected] of CASES) {
  for (const [name, end] of [["LF", "\n"], ["CRLF", "\r\n"], ["CR", "\r"]] as const) {
    test(`${what} (${name}), whole and cut at every byte`, async () => {
      const bytes = encoder.encode(text.replaceAll("\n", end));
      assert.deepEqual(await readAll([bytes]), expected);
      assert.deepEqual(await readAll([...bytes].map((byte) => Uint8Array.of(byte))), expected);
      for (let at = 0; at <= bytes.length; at++) {
        assert.deepEqual(await readAll([bytes.subarray(0, at), bytes.subarray(at)]), expected, `cut at ${at}`);
      }
    });
  }
}

test("random streams in random cuts give the events that were written", async () => {
  const random = numbers(7);
  const letters = ["a", " ", ":", "é", "🐉", "data", "\ufeff", "x"];
  const word = (): string => Array.from({ length: random(6) }, () => letters[random(letters.length)]).join("");
  for (let round = 0; round < 400; round++) {
    const ends = ["\n", "\r\n", "\r"];
    let text = "";
    const expected: StreamEvent[] = [];
    // A lone return before a line feed is one line end, so the ends of one stream do not mix these two.
    const kind = random(3);
    const end = (): string => ends[kind]!;
    for (let count = random(6); count > 0; count--) {
      if (random(3) === 0) {
        const comment = word();
        text += `: ${comment}${end()}`;
        expected.push({ comment });
        continue;
      }
      const lines = Array.from({ length: 1 + random(3) }, word);
      text += lines.map((line) => `data: ${line}${end()}`).join("") + end();
      expected.push({ data: lines.join("\n") });
    }
    const parts = cut(encoder.encode(text), random);
    assert.deepEqual(await readAll(parts), expected, JSON.stringify(text));
  }
});

test("line ends that mix, in one part and in two", () => {
  const text = "data: a\r\n\ndata: b\r\rdata: c\n\r\n";
  const expected = [{ data: "a" }, { data: "b" }, { data: "c" }];
  for (let at = 0; at <= text.length; at++) {
    const parser = new EventParser();
    assert.deepEqual([...parser.push(text.slice(0, at)), ...parser.push(text.slice(at))], expected, `cut at ${at}`);
  }
});

test("an event comes as soon as its blank line begins", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.push("data: a\r\n\r"), [{ data: "a" }]);
  assert.deepEqual(parser.push("\ndata: b\r\n\r\n"), [{ data: "b" }]);
});

test("a reader that stops cancels the body", async () => {
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(encoder.encode("data: a\n\n")),
    cancel: () => {
      cancelled = true;
    },
  });
  for await (const _ of readEvents(body)) break;
  await new Promise((resolve) => setTimeout(resolve));
  assert.ok(cancelled);
});

test("a body that breaks is said, after the events that came before", async () => {
  const parts = [encoder.encode("data: a\n\n")];
  const body = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      const part = parts.shift();
      if (part) controller.enqueue(part);
      else controller.error(new TypeError("network error"));
    },
  });
  const found: StreamEvent[] = [];
  const reading = async (): Promise<void> => {
    for await (const event of readEvents(body)) found.push(event);
  };
  await assert.rejects(reading, (error) => error instanceof ServerError && error.message === BROKEN);
  assert.deepEqual(found, [{ data: "a" }]);
});

test("an error of the caller is not one of the body", async () => {
  const reading = async (): Promise<void> => {
    for await (const _ of readEvents(bodyOf([encoder.encode("data: a\n\n")]))) throw new RangeError("of the caller");
  };
  await assert.rejects(reading, RangeError);
});
