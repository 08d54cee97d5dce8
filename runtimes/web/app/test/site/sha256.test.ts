import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { sha256, sha256InJavaScript } from "../../src/site/sha256.ts";

test("our own SHA-256 is that of OpenSSL for every length around a block, and for long inputs", () => {
  for (const length of [...Array(260).keys(), 4096, 100_003]) {
    const bytes = new Uint8Array(randomBytes(length + 3)).subarray(3); // also where the view does not start at 0
    const ours = Buffer.from(sha256InJavaScript(bytes)).toString("hex");
    assert.equal(ours, createHash("sha256").update(bytes).digest("hex"), `${length} bytes`);
  }
});

test("the hexadecimal form, with and without crypto.subtle", async (t) => {
  const expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  const bytes = new Uint8Array([...Buffer.from("abc")]);
  assert.equal(await sha256(bytes), expected);
  const before = Object.getOwnPropertyDescriptor(globalThis, "crypto") as PropertyDescriptor;
  t.after(() => Object.defineProperty(globalThis, "crypto", before));
  Object.defineProperty(globalThis, "crypto", { value: {}, configurable: true });
  assert.equal(await sha256(bytes), expected);
});
