/** Loads the files of a site: from the copies that the browser keeps, or over the network. Every file is checked. */
import { sha256 } from "./sha256.ts";
import { readSite, type Site, SiteError } from "./site.ts";
import { alone, findCopy, keepCopy, storageProblem } from "./store.ts";
import { type Asking, ask, damaged, entryOf, openFile, type Progress, readWhole } from "./transfer.ts";

export { type FileEntry, type Site, SiteError, type SiteErrorKind, type SiteModel } from "./site.ts";
export type { Progress } from "./transfer.ts";

/** The file with the table of files and models. */
export const SITE_FILE = "site.json";
/** The WebAssembly of onnxruntime. */
export const WASM_FILE = "ort-wasm-simd-threaded.wasm";

type Bytes = Uint8Array<ArrayBuffer>;

/**
 * Loads the table of a site.
 *
 * @param base The folder of the site; it ends with a slash.
 * @returns The site; a SiteError if it cannot be loaded or read.
 */
export async function loadSite(base: URL): Promise<Site> {
  const response = await ask({ base }, SITE_FILE, { cache: "no-cache", packed: false });
  let values: unknown;
  try {
    values = JSON.parse(await response.text());
  } catch {
    throw new SiteError("damaged", `${SITE_FILE} is not whole. Reload the page; if it stays, make the site again with slmx web.`);
  }
  return readSite(values, base);
}

/**
 * Loads a file.
 *
 * @param site The site.
 * @param name The name of the file in the site.
 * @param onProgress Called with the bytes that have come and with their number in the whole file.
 * @param signal Ends the transfer; the promise is then rejected with its AbortError.
 * @returns The bytes, which have the SHA-256 that site.json lists; a SiteError otherwise.
 */
export async function fetchFile(site: Site, name: string, onProgress: Progress = ignore, signal?: AbortSignal): Promise<Bytes> {
  const entry = entryOf(site, name);
  return alone(site, name, async () => {
    const copy = await findCopy(site, name);
    const kept = copy && new Uint8Array(await copy.arrayBuffer());
    if (kept && (await isRight(kept, entry.sha256))) {
      onProgress(kept.length, kept.length);
      return kept;
    }
    const bytes = await twice(site, name, signal, async (asking) =>
      check(site, name, await readWhole(await openFile(site, name, asking), name, entry, onProgress)),
    );
    await keep(site, name, bytes);
    return bytes;
  });
}

/**
 * Loads onnxruntime and compiles it while it arrives.
 *
 * @param site The site.
 * @param onProgress As in `fetchFile`.
 * @param signal As in `fetchFile`.
 * @returns The compiled module, or its bytes where the browser does not compile them here. The bytes were checked: now,
 *   or when the browser stored its copy.
 */
export async function fetchWasm(
  site: Site,
  onProgress: Progress = ignore,
  signal?: AbortSignal,
): Promise<WebAssembly.Module | ArrayBuffer> {
  if (typeof WebAssembly.compileStreaming !== "function") {
    return (await fetchFile(site, WASM_FILE, onProgress, signal)).buffer;
  }
  const entry = entryOf(site, WASM_FILE);
  const copy = await findCopy(site, WASM_FILE);
  if (copy) {
    try {
      const compiled = await WebAssembly.compileStreaming(copy);
      onProgress(entry.bytes, entry.bytes);
      return compiled;
    } catch {
      // The bytes themselves say what is wrong.
    }
  } else {
    const compiled = await alone(site, WASM_FILE, () => compileOnArrival(site, onProgress, signal));
    if (compiled) return compiled;
  }
  return (await fetchFile(site, WASM_FILE, onProgress, signal)).buffer;
}

/** Compiles the module from the network; null if it was stored meanwhile, or if the compiler refuses it. */
async function compileOnArrival(site: Site, onProgress: Progress, signal?: AbortSignal): Promise<WebAssembly.Module | null> {
  if (await findCopy(site, WASM_FILE)) return null;
  const entry = entryOf(site, WASM_FILE);
  return twice(site, WASM_FILE, signal, async (asking) => {
    const [one, other] = (await openFile(site, WASM_FILE, asking)).tee();
    const headers = { "content-type": "application/wasm" };
    const compiling = WebAssembly.compileStreaming(new Response(one, { headers })).catch(() => null);
    const bytes = await check(site, WASM_FILE, await readWhole(other, WASM_FILE, entry, onProgress));
    await keep(site, WASM_FILE, bytes);
    return compiling;
  });
}

/**
 * Runs a transfer, and once more if its bytes are wrong: the browser's cache or a packed file can be of another version.
 */
async function twice<T>(
  site: Site,
  name: string,
  signal: AbortSignal | undefined,
  transfer: (asking: Asking) => Promise<T>,
): Promise<T> {
  try {
    return await transfer({ cache: "default", packed: true, signal });
  } catch (error) {
    if (!(error instanceof SiteError) || error.kind !== "damaged") throw error;
  }
  try {
    return await transfer({ cache: "reload", packed: false, signal });
  } catch (error) {
    if (!(error instanceof SiteError) || error.kind !== "damaged") throw error;
    const now = await ask(site, SITE_FILE, { cache: "reload", packed: false, signal }).then(
      (response) => response.text(),
      () => "",
    );
    if (now === "" || now.includes(site.version)) throw error;
    throw new SiteError("damaged", `The site was changed after this page was opened, and ${name} is a new one. Reload the page.`);
  }
}

async function check(site: Site, name: string, bytes: Bytes): Promise<Bytes> {
  if (await isRight(bytes, entryOf(site, name).sha256)) return bytes;
  throw damaged(name, "its SHA-256 differs");
}

async function isRight(bytes: Bytes, hash: string): Promise<boolean> {
  return (await sha256(bytes)) === hash;
}

/** Stores a file. If the browser refuses, the page is told, and the file is used all the same. */
async function keep(site: Site, name: string, bytes: Bytes): Promise<void> {
  try {
    await keepCopy(site, name, bytes);
  } catch (error) {
    site.onStorageProblem(error instanceof SiteError ? error : storageProblem(error));
  }
}

function ignore(): void {
  // Nobody asked for the progress.
}
