/** Graphs that tests/runtimes/web/test_engine.py exports, with the logits of Python's session. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { openModel } from "../../src/engine/open.ts";
import { Session } from "../../src/engine/session.ts";
import { readManifest } from "../../src/engine/shape.ts";
import { SCRIPTS } from "./files.ts";
import { WASM } from "./models.ts";

interface Case {
  name: string;
  model: string;
  shape: object;
  limit: number;
  path: string;
  reads: number[][];
  steps: number[];
  logits: number[][];
}

const CASES = process.env["SLMX_WEB_CASES"];
const cases = CASES ? (JSON.parse(readFileSync(CASES, "utf8")) as Case[]) : [];

for (const { name, model, shape: sizes, limit, path, reads, steps, logits } of cases) {
  test(name, async () => {
    const manifest = JSON.stringify({ shape: sizes });
    const shape = { ...readManifest(manifest).sizes, begin: 0, end: 0 };
    const files = { wasm: WASM, model: readFileSync(model), tokenizer: "", manifest };
    const opened = await openModel(files, shape, { threads: 1, scripts: SCRIPTS });
    assert.equal(opened.path, path, opened.reason);
    const session = new Session(opened.cache, shape);
    const rows = logits.values();
    const check = (found: Float32Array<ArrayBufferLike>): void => {
      const expected = rows.next().value!;
      const spread = Math.max(...expected) - Math.min(...expected);
      const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - found[i]!)), 0);
      assert.ok(worst <= limit * spread, `a logit differs by ${worst}; they lie ${spread} apart`);
    };
    for (const ids of reads) {
      check(await session.read(ids));
      for (const id of steps) check(await session.step(id));
    }
    opened.cache.dispose();
  });
}
