// Bundles the tests with esbuild and runs them with node's test runner: `npm test`, or `npm test -- engine/sampler`.
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const app = join(import.meta.dirname, "..");
const out = mkdtempSync(join(app, "node_modules", ".slmx-test-")); // of its own, so that two runs do not meet
const wanted = process.argv.slice(2);
const tests = readdirSync(join(app, "test"), { recursive: true })
  .filter((name) => name.endsWith(".test.ts") && (!wanted.length || wanted.some((part) => name.includes(part))))
  .map((name) => join(app, "test", name));
const common = { bundle: true, format: "esm", platform: "node", target: "es2022", logLevel: "warning", outdir: out };

process.on("exit", () => rmSync(out, { recursive: true, force: true }));
await build({ ...common, entryPoints: tests, outbase: join(app, "test"), packages: "external", sourcemap: "inline" });
// The scripts that the engine imports at run time.
await build({
  ...common,
  entryPoints: [join(app, "src", "engine", "fallback.ts")],
  conditions: ["onnxruntime-web-use-extern-wasm"],
  external: ["node:*"],
});
const ort = join(app, "node_modules", "onnxruntime-web", "dist");
for (const [kind, copy] of [["mjs", "js"], ["wasm", "wasm"]]) {
  copyFileSync(join(ort, `ort-wasm-simd-threaded.${kind}`), join(out, `ort-wasm-simd-threaded.${copy}`));
}
const built = readdirSync(out, { recursive: true }).filter((name) => name.endsWith(".test.js"));
const { status } = spawnSync(process.execPath, ["--enable-source-maps", "--test", ...built.map((name) => join(out, name))], {
  cwd: app,
  env: { ...process.env, SLMX_WEB_SCRIPTS: out },
  stdio: "inherit",
});
process.exit(status ?? 1);
