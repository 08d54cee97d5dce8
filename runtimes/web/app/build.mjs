// Builds the pages into slmx_web/: that of `slmx web` and that of `slmx serve`. `npm run build` calls it. The same sources
// give the same bytes.
//
//     node build.mjs [SRC OUT]     other folders, for the tests of this script
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { brotliCompressSync, brotliDecompressSync, constants } from "node:zlib";
import { build } from "esbuild";

const app = import.meta.dirname;
const [src = join(app, "src"), out = join(app, "slmx_web")] = process.argv.slice(2).map((path) => resolve(path));
const ort = join(app, "node_modules", "onnxruntime-web", "dist");

const common = {
  absWorkingDir: app,
  bundle: true,
  charset: "utf8",
  conditions: ["onnxruntime-web-use-extern-wasm"],
  external: ["node:*"],
  legalComments: "none", // LICENSES.txt has them all
  logLevel: "warning",
  minify: true,
  nodePaths: [join(app, "node_modules")],
  platform: "browser",
  target: "es2022",
};
// The built script, its source and its format. Firefox runs service workers that are no modules, so sw.js is none.
const SCRIPTS = [
  ["app.js", "page/main.ts", "esm"],
  ["server.js", "server/main.ts", "esm"],
  ["worker.js", "worker.ts", "esm"],
  ["fallback.js", "engine/fallback.ts", "esm"],
  ["sw.js", "site/service-worker.ts", "iife"],
  ["unregister.js", "site/unregister.ts", "iife"],
];
const PAGE_FILES = ["style.css", "icon.svg"];

// The software in the built files, and the files with its licences. onnxruntime's are from its package for Python of the
// same version, because the package for the web has none.
const LICENCES = [
  ["slmx", [join(app, "..", "..", "..", "LICENSE")]],
  [named("onnxruntime-web"), [join(app, "licences", "onnxruntime.txt")]],
  [named("@huggingface/tokenizers"), [join(app, "node_modules", "@huggingface", "tokenizers", "LICENSE")]],
  ["what onnxruntime holds of others", [join(app, "licences", "onnxruntime-third-party.txt")]],
];
const KNOWN = ["onnxruntime-web", "onnxruntime-common", "@huggingface/tokenizers"];

mkdirSync(out, { recursive: true });
for (const [name, source, format] of SCRIPTS) {
  const entryPoints = [join(src, source)];
  const { metafile } = await build({ ...common, entryPoints, format, metafile: true, outfile: join(out, name) });
  check(name, Object.keys(metafile.inputs));
}
const template = readFileSync(join(src, "page", "index.html"), "utf8");
for (const [name, words] of Object.entries(JSON.parse(readFileSync(join(src, "page", "pages.json"), "utf8")))) {
  writeFileSync(join(out, name), filled(template, words));
}
for (const name of PAGE_FILES) copyFileSync(join(src, "page", name), join(out, name));
// nginx sends .mjs files with a type that browsers refuse for a script.
copyFileSync(join(ort, "ort-wasm-simd-threaded.mjs"), join(out, "ort-wasm-simd-threaded.js"));
pack(join(ort, "ort-wasm-simd-threaded.wasm"), join(out, "ort-wasm-simd-threaded.wasm.br"));
writeFileSync(join(out, "LICENSES.txt"), licences());

/** Puts words into the places of a template. Throws if a word or a place is missing. */
function filled(template, words) {
  const unused = new Set(Object.keys(words));
  const page = template.replace(/\{\{(\w+)\}\}/g, (_, place) => {
    if (!(place in words)) throw new Error(`pages.json has no ${place}`);
    unused.delete(place);
    return words[place];
  });
  if (unused.size > 0) throw new Error(`index.html has no place for ${[...unused].join(", ")}`);
  return page;
}

/** The name of a package with its version. */
function named(name) {
  return `${name} ${JSON.parse(readFileSync(join(app, "node_modules", name, "package.json"), "utf8")).version}`;
}

/** Throws if a script holds a package whose licence is not in LICENSES.txt, or if the worker holds the slow path. */
function check(script, inputs) {
  for (const input of inputs) {
    const found = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input)?.[1];
    if (found && !KNOWN.includes(found)) throw new Error(`${script} holds ${found}: add its licence to build.mjs`);
    if (found?.startsWith("onnxruntime") && script !== "fallback.js") throw new Error(`${script} holds ${found}`);
  }
}

/** Packs a file, unless the packed one already holds it: packing 14 MB takes half a minute. */
function pack(source, target) {
  const content = readFileSync(source);
  if (existsSync(target) && brotliDecompressSync(readFileSync(target)).equals(content)) return;
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: 11,
    [constants.BROTLI_PARAM_LGWIN]: 24,
    [constants.BROTLI_PARAM_SIZE_HINT]: content.length,
  };
  writeFileSync(target, brotliCompressSync(content, { params }));
}

/** The text of LICENSES.txt. */
function licences() {
  const line = "=".repeat(78);
  return LICENCES.map(([what, files]) => {
    const texts = files.map((file) => readFileSync(file, "utf8").replaceAll("\r\n", "\n").trim());
    return `${line}\n${what}\n${line}\n\n${texts.join("\n\n")}\n`;
  }).join("\n");
}
