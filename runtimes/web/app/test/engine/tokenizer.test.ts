/** The tokenizer gives the ids and the text of Python's. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { type TokenizerSettings, readManifest } from "../../src/engine/shape.ts";
import { Tokenizer } from "../../src/engine/tokenizer.ts";
import { BUNDLES, vectors } from "./files.ts";
import { Numbers, digest, madeString } from "./formulas.ts";

interface Text {
  ids: number[];
  pieces: string[];
}
interface Scheme {
  settings: TokenizerSettings;
  json: string;
  digest: string;
  sample: number[][];
  begin: number;
  end: number;
  texts: Text[];
}
interface Vectors {
  parts: string[];
  ranges: [number, number][];
  block: number;
  digests: string[];
  sample: number[][];
  begin: number;
  end: number;
  texts: Text[];
  schemes: Scheme[];
}

const expected = vectors<Vectors>("tokens.json");
const folder = `${BUNDLES}/nano`;
const settings = readManifest(readFileSync(`${folder}/manifest.json`, "utf8")).settings;
const tokenizer = new Tokenizer(readFileSync(`${folder}/tokenizer.json`, "utf8"), settings);

test("10,000 strings have the ids of Python", () => {
  const { parts, ranges, block, digests, sample } = expected;
  const numbers = new Numbers(1);
  const strings = Array.from({ length: block * digests.length }, () => madeString(numbers, parts, ranges));
  assert.equal(strings.length, 10_000);
  const rows = strings.map((text) => tokenizer.encode(text));
  sample.forEach((ids, i) => assert.deepEqual(rows[i], ids, JSON.stringify(strings[i])));
  digests.forEach((found, i) => {
    assert.equal(digest(rows.slice(i * block, (i + 1) * block)), found, `strings ${i * block} to ${(i + 1) * block}`);
  });
});

test("the ids that begin and end a text are those of Python", () => {
  assert.deepEqual([tokenizer.begin, tokenizer.end], [expected.begin, expected.end]);
});

test("text arrives in the pieces of Python's story", () => checkTexts(tokenizer, expected.texts));

for (const { settings, json, digest: found, sample, begin, end, texts } of expected.schemes) {
  test(`${settings.scheme}, prefix ${settings.prefix}: the ids and the text of Python`, () => {
    const small = new Tokenizer(json, settings);
    assert.deepEqual([small.begin, small.end], [begin, end]);
    const numbers = new Numbers(3);
    const strings = Array.from({ length: 2000 }, () => madeString(numbers, expected.parts, expected.ranges));
    const rows = strings.map((text) => small.encode(text));
    sample.forEach((ids, i) => assert.deepEqual(rows[i], ids, JSON.stringify(strings[i])));
    assert.equal(digest(rows), found);
    checkTexts(small, texts);
  });
}

function checkTexts(tokenizer: Tokenizer, texts: readonly Text[]): void {
  for (const { ids, pieces } of texts) {
    const reader = tokenizer.reader([tokenizer.begin]);
    const found = ids.map((id) => reader.read(id));
    found.push(found.pop()! + reader.finish());
    assert.deepEqual(found, pieces, `ids ${ids}`);
  }
}

test("a special token in the text is plain text", () => {
  const ids = tokenizer.encode("The end.<|endoftext|>");
  assert.ok(ids.every((id) => id < tokenizer.end));
  const reader = tokenizer.reader([tokenizer.begin]);
  assert.equal(ids.map((id) => reader.read(id)).join("") + reader.finish(), "The end.<|endoftext|>");
});

test("half a surrogate pair is read as U+FFFD", () => {
  assert.deepEqual(tokenizer.encode("a\ud800b"), tokenizer.encode("a\ufffdb"));
});

test("a special token has no text", () => {
  assert.equal(tokenizer.reader([]).read(tokenizer.end), "");
});

test("an unknown scheme and a missing special token are named", () => {
  const json = readFileSync(`${folder}/tokenizer.json`, "utf8");
  assert.throws(() => new Tokenizer(json, { ...settings, scheme: "morse" }), /scheme morse/);
  assert.throws(() => new Tokenizer(json, { ...settings, end: "<nothing>" }), /no token <nothing>/);
});
