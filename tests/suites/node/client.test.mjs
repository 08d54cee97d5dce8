// OpenAI's client for JavaScript against `slmx serve`. tests/suites/test_node.py starts the servers and this file.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

// SERVER has a key and many slots. NARROW has one slot, no queue and no key.
const { SERVER, NARROW, KEY } = process.env;
const client = new OpenAI({ baseURL: `${SERVER}/v1`, apiKey: KEY, maxRetries: 0 });
const model = "nano";
const prompt = "Once upon a time";
const messages = [{ role: "user", content: prompt }];
const greedy = { model, temperature: 0, max_tokens: 20 };
const ENDLESS = { model, prompt, ignore_eos: true, on_full: "slide", max_tokens: 2 ** 31 - 1 };

/** The value of a figure of a server. */
async function figure(server, name) {
  const answer = await fetch(`${server}/metrics`, { headers: { Authorization: `Bearer ${KEY}` } });
  const line = (await answer.text()).split("\n").find((one) => one.startsWith(name));
  return Number(line.split(" ").at(-1));
}

/** Waits until no story runs. */
async function untilIdle(server) {
  for (let tries = 0; (await figure(server, "slmx_stories_running")) !== 0; tries++) {
    assert.ok(tries < 200, "the story goes on");
    await new Promise((done) => setTimeout(done, 50));
  }
}

test("a completion, and the same in a stream", async () => {
  const whole = await client.completions.create({ ...greedy, prompt });
  assert.equal(whole.object, "text_completion");
  assert.ok(whole.choices[0].text.length > 20);
  assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
  const parts = await client.completions.create({
    ...greedy, prompt, stream: true, stream_options: { include_usage: true },
  });
  let text = "", usage;
  for await (const part of parts) {
    text += part.choices[0]?.text ?? "";
    usage = part.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].text);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
});

test("several prompts, choices and log-probabilities", async () => {
  const answer = await client.completions.create({ model, prompt: [prompt, "One day"], n: 2, max_tokens: 4, logprobs: 2, seed: 1 });
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2, 3]);
  for (const { logprobs } of answer.choices) {
    assert.equal(logprobs.tokens.length, logprobs.token_logprobs.length);
    assert.ok(logprobs.token_logprobs.every((value) => value <= 0));
  }
});

test("a chat, and the same in a stream", async () => {
  const whole = await client.chat.completions.create({ ...greedy, messages });
  const { message, finish_reason } = whole.choices[0];
  assert.equal(message.role, "assistant");
  assert.equal(finish_reason, "length");
  const stream = client.chat.completions.stream({ ...greedy, messages });
  let text = "";
  stream.on("content", (delta) => (text += delta));
  const final = await stream.finalChatCompletion();
  assert.equal(text, message.content);
  assert.equal(final.choices[0].message.content, message.content);
  const more = await client.chat.completions.create({ ...greedy, messages: [...messages, message, ...messages] });
  assert.ok(more.choices[0].message.content);
});

test("models", async () => {
  const found = [];
  for await (const one of client.models.list()) found.push(one.id);
  assert.deepEqual(found, [model]);
  assert.equal((await client.models.retrieve(model)).owned_by, "slmx");
  await assert.rejects(client.models.retrieve("gpt-4o"), OpenAI.NotFoundError);
});

for (const how of ["the stream is left", "the stream is aborted", "the request is aborted"]) {
  test(`a story ends when ${how}`, async () => {
    const before = await figure(SERVER, "slmx_stories_cancelled_total");
    if (how === "the request is aborted") {
      const controller = new AbortController();
      const answer = client.completions.create(ENDLESS, { signal: controller.signal });
      while ((await figure(SERVER, "slmx_stories_running")) === 0);
      controller.abort();
      await assert.rejects(answer, OpenAI.APIUserAbortError);
    } else {
      const stream = await client.completions.create({ ...ENDLESS, stream: true });
      for await (const part of stream) {
        assert.ok(part.choices[0].text);
        if (how === "the stream is left") break;
        stream.controller.abort();
      }
    }
    await untilIdle(SERVER);
    assert.equal(await figure(SERVER, "slmx_stories_cancelled_total"), before + 1);
  });
}

test("a wrong field is 400 and named", async () => {
  const cases = [
    [{ ...greedy, prompt, temperature: 101 }, "temperature", "invalid_value"],
    [{ ...greedy, prompt, temprature: 1 }, "temprature", "unknown_field"],
    [{ ...greedy, prompt, best_of: 2 }, "best_of", "unsupported_value"],
    [greedy, "prompt", "missing_required_parameter"],
  ];
  for (const [fields, param, code] of cases) {
    await assert.rejects(client.completions.create(fields), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.deepEqual([error.status, error.param, error.code], [400, param, code]);
      assert.match(error.requestID, /^req_/);
      return true;
    });
  }
});

test("a wrong key is 401", async () => {
  const stranger = new OpenAI({ baseURL: `${SERVER}/v1`, apiKey: "a-wrong-key", maxRetries: 0 });
  await assert.rejects(stranger.completions.create({ ...greedy, prompt }), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, "invalid_api_key");
    return true;
  });
});

test("a full server is 429, and is asked again after the seconds of Retry-After", async () => {
  const narrow = new OpenAI({ baseURL: `${NARROW}/v1`, apiKey: "none", maxRetries: 0 });
  const busy = await narrow.completions.create({ ...ENDLESS, stream: true });
  for await (const part of busy) {
    assert.ok(part.choices[0].text);
    await assert.rejects(narrow.completions.create({ ...greedy, prompt }), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.equal(error.code, "queue_full");
      assert.ok(Number(error.headers.get("retry-after")) >= 1);
      return true;
    });
    let asked = 0;
    const counting = (...request) => (asked++, fetch(...request));
    const patient = new OpenAI({ baseURL: `${NARROW}/v1`, apiKey: "none", maxRetries: 5, fetch: counting });
    const answer = patient.completions.create({ ...greedy, prompt });
    while (asked === 0) await new Promise((done) => setTimeout(done, 10));
    setTimeout(() => busy.controller.abort(), 300);
    assert.ok((await answer).choices[0].text);
    assert.ok(asked > 1, "it was tried again");
    break;
  }
});
