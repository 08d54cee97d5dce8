import assert from "node:assert/strict";
import { test } from "node:test";
import { failureOf } from "../../src/page/texts.ts";
import type { FailureKind } from "../../src/protocol.ts";

// What the page says of each kind of failure whose message is "It failed".
const SAID: Readonly<Record<FailureKind, string>> = {
  offline: "It failed.",
  missing: "It failed.",
  damaged: "It failed.",
  storage: "It failed.",
  other: "It failed.",
  memory: "It failed. Close other tabs, or choose a smaller model.",
  prompt: "It failed.",
  engine: "It failed. Reload the page, or try another browser.",
  server: "It failed.",
};

test("a failure is said in whole sentences, with the advice of its kind", () => {
  for (const [kind, said] of Object.entries(SAID) as [FailureKind, string][]) {
    for (const message of ["It failed", "It failed.", "It failed.\n"]) assert.equal(failureOf(kind, message), said);
  }
});
