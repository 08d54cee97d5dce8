import assert from "node:assert/strict";
import { test } from "node:test";
import type { EngineInfo } from "../../src/engine/types.ts";
import { Figures } from "../../src/page/figures.ts";

const MODEL = { name: "nano", variant: "int8", parameters: 1, bytes: 2_500_000, source: "", licence: "" };
const FAST: EngineInfo = { path: "zero-copy", threads: 1, loadMs: 0, warmUpMs: 0, bytesCopiedPerToken: 0, heapBytes: 9_000_000 };

/** What the page shows about a model. */
function shown(info: EngineInfo | null): string {
  const line = { textContent: "" } as HTMLElement;
  new Figures(line, { textContent: "" } as HTMLElement).showModel(MODEL, info);
  return line.textContent ?? "";
}

test("memory is shown where it is known", () => {
  assert.equal(shown(FAST), "nano int8, 2.5 MB · 9.0 MB of memory");
  const slow: EngineInfo = { ...FAST, path: "public API", reason: "no memory of its own", heapBytes: 0 };
  assert.equal(shown(slow), "nano int8, 2.5 MB · slow path: no memory of its own");
  assert.equal(shown(null), "nano int8 on this server");
});
