/** Bundles that tests/runtimes/web/test_engine.py exports, with the stories that Python writes greedily. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { modelFiles } from "./files.ts";
import { GREEDY, WASM, engineOf, written } from "./models.ts";

interface Case {
  folder: string;
  variant: string;
  prompt: string;
  ids: number[];
  finish: string;
}

const CASES = process.env["SLMX_WEB_CASES"];
const cases = CASES ? (JSON.parse(readFileSync(CASES, "utf8")) as Case[]) : [];

for (const { folder, variant, prompt, ids, finish } of cases) {
  test(variant, async () => {
    const engine = await engineOf(modelFiles(folder, WASM, variant));
    assert.equal(engine.info.path, "zero-copy");
    const story = await written(engine, engine.encode(prompt), GREEDY, 200);
    assert.deepEqual([story.ids, story.finish], [ids, finish]);
    engine.dispose();
  });
}
