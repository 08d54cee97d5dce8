import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import type { StoryResult } from "../../src/engine/types.ts";
import type { Handlers } from "../../src/page/client.ts";
import { Api } from "../../src/server/api.ts";
import type { KeyAsker } from "../../src/server/key_form.ts";
import { ServerClient } from "../../src/server/server_client.ts";

type Answer = (request: IncomingMessage, response: ServerResponse, body: string) => void;

const MODELS = { data: [{ id: "nano", variant: "int8", parameters: 3e6, max_model_len: 256 }, { id: "micro", variant: "fp32", parameters: 9e6, max_model_len: 512 }] };
const SAMPLING = { temperature: 0.5, topK: 3, topP: 0.9, minP: 0.1, repetitionPenalty: 1.2, seed: 7 };

/** An event with text. */
function telling(text: string, ids: number[], finish: string | null = null): object {
  return { seed: 7, choices: [{ index: 0, text, finish_detail: finish, token_ids: ids }], usage: null };
}

const USAGE = { seed: 7, choices: [], usage: { prompt_tokens: 4, completion_tokens: 3 } };

/** A server whose answers to `POST /v1/completions` a test gives, a client of it, and what the client reports. */
async function connect(t: TestContext, answer: Answer, keys: readonly string[] = [], accepted = "") {
  (globalThis.sessionStorage as Storage | undefined)?.clear(); // newer versions of Node.js have one
  const asked: { path: string; key: string; body: string }[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () => {
      const key = request.headers.authorization ?? "";
      asked.push({ path: request.url ?? "", key, body });
      if (accepted !== "" && key !== `Bearer ${accepted}`) {
        response.writeHead(401).end('{"error":{"message":"this key is wrong","code":"invalid_api_key"}}');
      } else if (request.url === "/sub/v1/models") response.end(JSON.stringify(MODELS));
      else answer(request, response, body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const told: unknown[] = [];
  const waiting: (() => void)[] = [];
  const tell = (...what: unknown[]): void => {
    told.push(what);
    for (const wake of waiting.splice(0)) wake();
  };
  const handlers: Handlers = {
    models: (models) => tell("models", models.map(({ name }) => name)),
    progress: () => assert.fail(),
    ready: (model, info, blockSize) => tell("ready", model.name, info, blockSize),
    waiting: () => tell("waiting"),
    pieces: (pieces) => tell("pieces", pieces.map(({ text }) => text)),
    done: (result) => tell("done", result.finish),
    figures: (result) => tell("figures", result),
    stalled: () => assert.fail(),
    notKept: () => assert.fail(),
    failed: (kind, message) => tell("failed", kind, message),
  };
  const rest = [...keys];
  const asker: KeyAsker = {
    ask: (isWrong, signal) => {
      tell("key", isWrong);
      const key = rest.shift();
      return key === undefined ? new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))) : Promise.resolve(key);
    },
    close: () => undefined,
  };
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/sub/`);
  const client = new ServerClient(handlers, new Api(url, asker));
  /** Waits until something was reported whose name is among these. */
  const until = async (...names: string[]): Promise<unknown[]> => {
    for (;;) {
      const found = told.find((what) => names.includes((what as unknown[])[0] as string)) as unknown[] | undefined;
      if (found) return found;
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
  };
  const figures = (): StoryResult => (told.find((what) => (what as unknown[])[0] === "figures") as [string, StoryResult])[1];
  return { client, server, told, asked, until, figures };
}

/** Answers with events. */
function events(...all: (object | string)[]): Answer {
  return (_, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const event of all) response.write(typeof event === "string" ? event : `data: ${JSON.stringify(event)}\n\n`);
    response.end();
  };
}

/** Answers with an error. */
function refusing(status: number, body: string, headers: Record<string, string> = {}): Answer {
  return (_, response) => response.writeHead(status, headers).end(body);
}

const error = (code: string | null, message: string): string => JSON.stringify({ error: { message, type: "x", param: null, code } });

test("a model is made ready: the wanted one, or the first", async (t) => {
  const { client, until, told } = await connect(t, events());
  client.load("micro");
  assert.deepEqual(await until("ready"), ["ready", "micro", null, 512]);
  assert.deepEqual(told[0], ["models", ["nano", "micro"]]);
  told.length = 0;
  client.load("no such model");
  assert.deepEqual(await until("ready"), ["ready", "nano", null, 256]);
});

test("a story: its settings are those of the API, and its text comes in words", async (t) => {
  const story = events(": waiting\n\n", telling(" there was a", [1, 2]), telling(" cat.", [3], "end of text"), USAGE, "data: [DONE]\n\n");
  const { client, until, told, asked, figures } = await connect(t, story);
  client.load("");
  await until("ready");
  told.length = 0;
  client.write([{ text: "Once" }, { text: " upon", ids: [5] }], SAMPLING, 40);
  await until("done", "failed");
  assert.deepEqual(told.filter((what) => (what as unknown[])[0] !== "figures"), [
    ["waiting"],
    ["pieces", [" there", " was", " a"]],
    ["pieces", [" cat."]],
    ["done", "end of text"],
  ]);
  const { tokens, promptTokens, seed } = figures();
  assert.deepEqual([tokens, promptTokens, seed], [3, 4, 7]);
  assert.deepEqual(JSON.parse(asked.at(-1)?.body ?? ""), {
    model: "nano",
    prompt: "Once upon",
    temperature: 0.5,
    top_k: 3,
    top_p: 0.9,
    min_p: 0.1,
    repetition_penalty: 1.2,
    seed: 7,
    max_tokens: 40,
    stream: true,
    stream_options: { include_usage: true },
    return_token_ids: true,
  });
});

const FAILURES: readonly [what: string, answer: Answer, expected: RegExp][] = [
  ["429 with seconds", refusing(429, error("queue_full", "64 stories wait"), { "retry-after": "3" }), /more stories to write than it takes\. Try again in 3 seconds\.$/],
  ["429 with one second", refusing(429, error("queue_full", "64 stories wait"), { "retry-after": "1" }), /Try again in 1 second\.$/],
  ["429 of a proxy", refusing(429, "<html>"), /Try again later\.$/],
  ["503 stopping", refusing(503, error("stopping", "the server is stopping")), /^The server is stopping\. Try again when it runs again\.$/],
  ["400", refusing(400, error("invalid_value", "max_tokens: at most 5")), /^The server says: max_tokens: at most 5\.$/],
  ["a text that is too long", refusing(400, error("context_length_exceeded", "prompt: 300 tokens")), /^The text is longer than this model can read\. Shorten it\.$/],
  ["a model that is gone", refusing(404, error("model_not_found", "x")), /^The server has this model no more\./],
  ["a name in every object", refusing(400, error("constructor", "a message")), /^The server says: a message\.$/],
  ["502 of a proxy", refusing(502, "<html>Bad gateway</html>"), /^The server answered with the status 502\. Try again later\.$/],
  ["an error without a message", refusing(500, '{"error":null}'), /^The server failed\./],
  ["an error event", events(telling(" a", [1]), JSON.parse(error("model_error", "the model failed")) as object, "data: [DONE]\n\n"), /^The server says: the model failed\.$/],
  ["an error event of the end", events(JSON.parse(error("stopping", "x")) as object, "data: [DONE]\n\n"), /^The server is stopping\./],
  ["a story that the server cut", events(telling(" a", [1], "interrupted"), USAGE, "data: [DONE]\n\n"), /^The server is stopping, so the story ends here\./],
  ["a stream without its end", events(telling(" a", [1])), /^The connection to the server broke before the story ended\./],
  ["a stream that is no JSON", events("data: {\n\n"), /^The server sent something that this page cannot read\./],
  ["a connection that breaks", (_, response) => void response.writeHead(200).write("data: ", () => response.destroy()), /^The connection to the server broke/],
  ["no answer", (_, response) => void response.destroy(), /^The server is out of reach\./],
];

for (const [what, answer, expected] of FAILURES) {
  test(`${what} is a sentence`, async (t) => {
    const { client, until, told } = await connect(t, answer);
    client.load("");
    await until("ready");
    client.write([{ text: "Once" }], SAMPLING, null);
    const [, kind, message] = (await until("failed", "done")) as [string, string, string];
    assert.equal(kind, "server");
    assert.match(message, expected);
    assert.equal(told.filter((one) => (one as unknown[])[0] === "done").length, 0);
  });
}

test("a key is asked for until it is right, and sent with every request after that", async (t) => {
  const story = events(telling(" a", [1], "end of text"), USAGE, "data: [DONE]\n\n");
  const { client, until, told, asked } = await connect(t, story, ["wrong-key", "no ké", "right-key"], "right-key");
  client.load("");
  await until("ready");
  assert.deepEqual(told.slice(0, 3), [["key", false], ["key", true], ["key", true]]);
  client.write([{ text: "Once" }], SAMPLING, null);
  await until("done");
  assert.deepEqual(asked.map(({ key }) => key), ["", "Bearer wrong-key", "Bearer right-key", "Bearer right-key"]);
  assert.ok(asked.every(({ path, body }) => !`${path}${body}`.includes("key")));
});

test("a server without a key never asks for one", async (t) => {
  const { client, until, told } = await connect(t, events());
  client.load("");
  await until("ready");
  assert.ok(told.every((what) => (what as unknown[])[0] !== "key"));
});

test("stop closes the connection, and reports the figures and nothing else", async (t) => {
  let closed: () => void = () => undefined;
  const isClosed = new Promise<void>((resolve) => (closed = resolve));
  const { client, until, told, figures } = await connect(t, (_, response) => {
    response.on("close", closed);
    response.writeHead(200).write(`data: ${JSON.stringify(telling(" a", [1, 2]))}\n\n`);
  });
  client.load("");
  await until("ready");
  client.write([{ text: "Once" }], SAMPLING, null);
  await until("pieces");
  client.stop();
  await isClosed;
  await until("figures");
  assert.equal(figures().tokens, 2);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(told.slice(-2).map((what) => (what as unknown[])[0]), ["pieces", "figures"]);
});

test("an event that cannot be read closes the connection, so the server stops the story", { timeout: 10_000 }, async (t) => {
  let closed: () => void = () => undefined;
  const isClosed = new Promise<void>((resolve) => (closed = resolve));
  const { client, until } = await connect(t, (_, response) => {
    response.on("close", closed);
    response.writeHead(200).write("data: {\n\n"); // and the story goes on
  });
  client.load("");
  await until("ready");
  client.write([{ text: "Once" }], SAMPLING, null);
  assert.match(String((await until("failed"))[2]), /^The server sent something that this page cannot read\./);
  await isClosed;
});

test("stop while a key is asked for ends the task", async (t) => {
  const { client, until, told } = await connect(t, events(), [], "right-key");
  client.load("");
  await until("key");
  client.stop();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.deepEqual(told, [["key", false]]);
});

test("a server that is gone is said when the models are asked for", async (t) => {
  const { client, server, until } = await connect(t, events());
  await new Promise((resolve) => server.close(resolve));
  client.load("");
  assert.match(String((await until("failed"))[2]), /^The server is out of reach\. Check that slmx serve runs/);
});
