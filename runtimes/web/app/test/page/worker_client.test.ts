import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Handlers } from "../../src/page/client.ts";
import { WorkerClient } from "../../src/page/worker_client.ts";
import type { FromWorker } from "../../src/protocol.ts";

const MODEL = { name: "nano", variant: "int8", parameters: 1, bytes: 1, source: "", licence: "" };
const SHAPE = { blockSize: 256 } as Extract<FromWorker, { type: "ready" }>["shape"];
const INFO = {} as Extract<FromWorker, { type: "ready" }>["info"];

const IN_A_LOAD: readonly FromWorker[] = [
  { type: "models", models: [MODEL] },
  { type: "progress", loaded: 1, total: 2 },
  { type: "not kept", message: "The storage is full." },
];
const ENDS: readonly FromWorker[] = [
  { type: "ready", model: MODEL, info: INFO, shape: SHAPE },
  { type: "failed", id: null, kind: "damaged", message: "It failed." },
];

/** A worker that a test speaks for. */
class FakeWorker extends EventTarget {
  static last: FakeWorker;

  constructor() {
    super();
    FakeWorker.last = this;
  }

  say(data: FromWorker): void {
    this.dispatchEvent(new MessageEvent("message", { data }));
  }

  break(): void {
    this.dispatchEvent(new Event("error"));
  }

  postMessage(): void {}

  terminate(): void {}
}

/** A client that loads a model, its worker, a clock, and how often the client said that nothing arrives. */
function loading(t: TestContext) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  Object.assign(globalThis, { window: globalThis, document: { baseURI: "http://localhost/" }, Worker: FakeWorker });
  let stalls = 0;
  const nothing = (): void => undefined;
  const handlers: Handlers = {
    models: nothing,
    progress: nothing,
    ready: nothing,
    waiting: nothing,
    pieces: nothing,
    done: nothing,
    figures: nothing,
    stalled: () => (stalls += 1),
    notKept: nothing,
    failed: nothing,
  };
  new WorkerClient(handlers).load("nano");
  return { worker: FakeWorker.last, wait: (seconds: number) => t.mock.timers.tick(seconds * 1000), stalls: () => stalls };
}

test("a load of which nothing arrives is reported", (t) => {
  const { wait, stalls } = loading(t);
  wait(14);
  assert.equal(stalls(), 0);
  wait(2);
  assert.equal(stalls(), 1);
});

for (const message of IN_A_LOAD) {
  test(`silence after "${message.type}" is reported, and again after more of it`, (t) => {
    const { worker, wait, stalls } = loading(t);
    for (const expected of [1, 2]) {
      wait(14);
      worker.say(message);
      wait(14);
      assert.equal(stalls(), expected - 1);
      wait(2);
      assert.equal(stalls(), expected);
    }
  });
}

for (const message of ENDS) {
  test(`silence after "${message.type}" is not reported, even if a part of the load still arrives`, (t) => {
    const { worker, wait, stalls } = loading(t);
    worker.say(message);
    worker.say({ type: "progress", loaded: 1, total: 2 });
    wait(60);
    assert.equal(stalls(), 0);
  });
}

test("silence of a worker that broke is not reported", (t) => {
  const { worker, wait, stalls } = loading(t);
  worker.break();
  wait(60);
  assert.equal(stalls(), 0);
});
