/** A host for the tests of the loader: a real server whose answers a test can spoil. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { brotliCompressSync, gzipSync } from "node:zlib";
import type { TestContext } from "node:test";
import { loadSite, type Site, WASM_FILE } from "../../src/site/loader.ts";

/** Answers a request; returns whether it did. */
export type Answer = (name: string, request: IncomingMessage, response: ServerResponse) => boolean;

/** A site and what was asked of its host. */
export interface Hosted {
  site: Site;
  base: URL;
  /** Method and name of each request, in order. */
  asked: string[];
  files: Map<string, Buffer>;
}

/** A WebAssembly module with a custom section of 200 kB: valid, large, and easy to pack. */
export const WASM = Buffer.concat([
  Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 0, ...unsigned(200_000), 1, 0x78]),
  Buffer.alloc(199_998, "wasm "),
]);
export const MODEL = Buffer.from(Array.from({ length: 150_000 }, (_, index) => (index * index) >> 12));
const TEXTS = { "models/nano/tokenizer.json": '{"model":"é"}', "models/nano/manifest.json": "{}", "app.js": "1;", "index.html": "<p>" };

/** The content of site.json for files. */
export function tableOf(files: Map<string, Buffer>): Record<string, unknown> {
  const names = [...files.keys()].filter((name) => !/\.(gz|br)$|^site.json$/.test(name));
  const entries = names.map((name) => {
    const bytes = files.get(name) as Buffer;
    const gz = files.get(`${name}.gz`)?.length;
    return [name, { bytes: bytes.length, sha256: hash(bytes), ...(gz ? { gz } : {}) }];
  });
  const model = { name: "nano", variant: "int8", model: "models/nano/onnx/model_int8.onnx", tokenizer: "models/nano/tokenizer.json", manifest: "models/nano/manifest.json", parameters: 7, source: "s", licence: "l" };
  return { format_version: 1, version: hash(Buffer.from(JSON.stringify(entries))), slmx: "0", files: Object.fromEntries(entries), models: [model] };
}

/** Returns the files of a small site. */
export function someFiles(): Map<string, Buffer> {
  const files = new Map<string, Buffer>([[WASM_FILE, WASM], ["models/nano/onnx/model_int8.onnx", MODEL]]);
  for (const [name, bytes] of [...files]) files.set(`${name}.gz`, gzipSync(bytes));
  for (const [name, text] of Object.entries(TEXTS)) files.set(name, Buffer.from(text));
  files.set("site.json", Buffer.from(JSON.stringify(tableOf(files))));
  return files;
}

/** Starts a host in a folder below its root, and loads the site; the test ends it. */
export async function host(test: TestContext, answer: Answer = () => false, files = someFiles()): Promise<Hosted> {
  const asked: string[] = [];
  let spoil = false;
  const server = createServer((request, response) => {
    const name = decodeURI(request.url ?? "").replace("/some where/", "").replace(/[?].*/, "");
    if (spoil) asked.push(`${request.method} ${name}`);
    if (spoil && answer(name, request, response)) return;
    const content = files.get(name);
    response.writeHead(content ? 200 : 404, { "content-length": content?.length ?? 0 });
    response.end(request.method === "HEAD" ? undefined : content);
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const base = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/some%20where/`);
  const site = await loadSite(base);
  spoil = true;
  return { site, base, asked, files };
}

/** A host that packs what it sends, as browsers expect it. */
export function packing(coding: "gzip" | "br", files: Map<string, Buffer>): Answer {
  return (name, request, response) => {
    const content = files.get(name);
    if (!content || /\.(gz|br)$/.test(name)) return false;
    const packed = coding === "gzip" ? gzipSync(content) : brotliCompressSync(content);
    response.writeHead(200, { "content-encoding": coding, "content-length": packed.length });
    response.end(request.method === "HEAD" ? undefined : packed);
    return true;
  };
}

/** Answers each request for a file with these bytes. */
export function sending(file: string, content: Buffer, headers: Record<string, string> = {}, status = 200): Answer {
  return (name, request, response) => {
    if (name !== file) return false;
    response.writeHead(status, { "content-length": content.length, ...headers });
    response.end(request.method === "HEAD" ? undefined : content);
    return true;
  };
}

function hash(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...unsigned(value >>> 7)];
}
