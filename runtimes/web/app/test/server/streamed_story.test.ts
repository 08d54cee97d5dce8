import assert from "node:assert/strict";
import { test } from "node:test";
import { StreamedStory } from "../../src/server/streamed_story.ts";

/** An event with text. */
function event(text: string, ids: number[], more: object = {}): string {
  return JSON.stringify({ seed: 5, choices: [{ text, finish_detail: null, token_ids: ids, ...more }] });
}

/** The tokens in a second, as the page computes them. */
function speedOf(story: StreamedStory): number {
  const { tokens, decodeMs } = story.result;
  return Math.round(((tokens - 1) * 1000) / decodeMs);
}

test("the speed is that of all tokens since the request was sent", () => {
  const story = new StreamedStory(5, 1000);
  story.read(event(" a b", [1, 2, 3, 4, 5]), 1200);
  assert.equal(story.result.firstTokenMs, 200);
  assert.equal(speedOf(story), 25); // 5 in 200 ms
  story.read(event(" c", Array(20).fill(1) as number[]), 1250);
  assert.equal(speedOf(story), 100); // 25 in 250 ms
  assert.equal(story.result.finish, "interrupted");
});

test("events that arrive all at once make no story quick", () => {
  const story = new StreamedStory(5, 1000);
  for (let count = 0; count < 20; count++) story.read(event(" a", [1]), 1267 + count / 1000);
  assert.equal(speedOf(story), 75); // 20 in 267 ms
});

test("the time in which a story waits for others does not count, and a later comment changes nothing", () => {
  const story = new StreamedStory(5, 0);
  story.wait(5000);
  story.wait(10_000);
  story.read(event(" a b", [1, 2, 3, 4]), 10_100);
  story.wait(10_150);
  story.read(event(" a b", [1, 2, 3, 4]), 10_200);
  assert.equal(speedOf(story), 40); // 8 in 200 ms
  assert.equal(story.result.firstTokenMs, 100);
});

test("the pieces of a text are words that join to it again", () => {
  const story = new StreamedStory(5, 0);
  for (const text of [" there was", "a", "\n\n “No,” said", "  ", "", "é 🐉 "]) {
    assert.equal(story.read(event(text, [1]), 0).map((piece) => piece.text).join(""), text);
  }
  assert.deepEqual(story.read(event(" one two", [1]), 0).map((piece) => piece.text), [" one", " two"]);
});

test("the reasons of an end", () => {
  const reasons = { "end of text": "end of text", "max tokens": "max tokens", "context full": "context full", "stop string": "end of text", interrupted: "interrupted" };
  for (const [detail, finish] of Object.entries(reasons)) {
    const story = new StreamedStory(5, 0);
    story.read(event("", [1], { finish_detail: detail }), 0);
    assert.equal(story.result.finish, finish);
  }
});

test("the seed is the one that the server states, and the counts are those of its last event", () => {
  const story = new StreamedStory(9, 0);
  assert.equal(story.result.seed, 9);
  story.read(event(" a", [1, 2]), 0);
  story.read(JSON.stringify({ seed: 5, choices: [], usage: { prompt_tokens: 3, completion_tokens: 1 } }), 0);
  const { seed, tokens, promptTokens } = story.result;
  assert.deepEqual([seed, tokens, promptTokens], [5, 1, 3]);
  assert.equal(story.isWhole, false);
  story.read("[DONE]", 0);
  assert.equal(story.isWhole, true);
});
