/**
 * The copies of files that the browser keeps for offline use.
 *
 * Each version of a site has a cache of its own, whose name holds the path of the site, because several sites can share
 * an origin. A file is checked before it is stored, and its SHA-256 is in a header of the copy.
 */
import { type Site, SiteError } from "./site.ts";

/** The header of a copy with the SHA-256 of its file. */
export const HASH_HEADER = "x-slmx-sha256";

/** These headers make the page cross-origin isolated, also where the host cannot send them; threads need that. */
export const ISOLATION: Readonly<Record<string, string>> = {
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
  "cross-origin-resource-policy": "same-origin",
};

const TYPES: Readonly<Record<string, string>> = {
  css: "text/css; charset=utf-8",
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  json: "application/json",
  md: "text/markdown; charset=utf-8",
  mjs: "text/javascript; charset=utf-8",
  svg: "image/svg+xml",
  txt: "text/plain; charset=utf-8",
  wasm: "application/wasm",
  webmanifest: "application/manifest+json",
};

const VERSION = /^[0-9a-f]{64}$/;

/** Returns the media type for the name of a file. */
export function typeOf(name: string): string {
  return TYPES[name.slice(name.lastIndexOf(".") + 1)] ?? "application/octet-stream";
}

/** Returns the name of the cache of this version of a site. */
export function cacheName(site: Site): string {
  return prefixOf(site) + site.version;
}

/** Returns whether a cache is of the same site, in any version. */
export function isOfSite(site: Pick<Site, "base">, name: string): boolean {
  const prefix = prefixOf(site);
  return name.startsWith(prefix) && VERSION.test(name.slice(prefix.length));
}

function prefixOf(site: Pick<Site, "base">): string {
  return `slmx:${site.base.pathname}:`;
}

/** Returns the browser's caches, or null where it has none or denies them. */
export function storage(): CacheStorage | null {
  try {
    return (globalThis.caches as CacheStorage | undefined) ?? null;
  } catch {
    return null;
  }
}

/** Returns the copy of a file, which an earlier version of the site may have stored. Null if there is none. */
export async function findCopy(site: Site, name: string): Promise<Response | null> {
  const all = storage();
  const hash = site.files[name]?.sha256;
  if (!all || !hash) return null;
  const url = new URL(name, site.base).href;
  try {
    const names = (await all.keys()).filter((key) => isOfSite(site, key));
    names.sort((one, other) => Number(other === cacheName(site)) - Number(one === cacheName(site)));
    for (const key of names) {
      const copy = await (await all.open(key)).match(url, { ignoreVary: true });
      if (copy?.headers.get(HASH_HEADER) !== hash) continue;
      if (key !== cacheName(site)) await (await all.open(cacheName(site))).put(url, copy.clone());
      return copy;
    }
  } catch {
    // Without the caches, the file comes from the network.
  }
  return null;
}

/** Stores a checked file; a SiteError if the browser refuses it. Does nothing where there are no caches. */
export async function keepCopy(site: Site, name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
  const all = storage();
  const hash = site.files[name]?.sha256;
  if (!all || !hash) return;
  const headers = { "content-type": typeOf(name), "content-length": String(bytes.length), [HASH_HEADER]: hash, ...ISOLATION };
  try {
    const cache = await all.open(cacheName(site));
    await cache.put(new URL(name, site.base).href, new Response(bytes, { headers }));
  } catch (error) {
    throw storageProblem(error);
  }
}

/** Says in a SiteError why the browser did not keep a file. */
export function storageProblem(error: unknown): SiteError {
  const full = error instanceof Error && error.name === "QuotaExceededError";
  const why = full ? "its storage is full" : "it denies this page storage, as in a private window";
  return new SiteError("storage", `The browser cannot keep this page for offline use: ${why}. With a network the page works.`);
}

/** Runs a task while no other tab, worker or service worker loads the same file, so that it is downloaded once. */
export async function alone<T>(site: Site, name: string, task: () => Promise<T>): Promise<T> {
  const locks = storage() ? (globalThis.navigator?.locks as LockManager | undefined) : undefined;
  if (!locks) return task();
  let begun = false;
  try {
    return (await locks.request(`${cacheName(site)}:${name}`, () => {
      begun = true;
      return task();
    })) as T;
  } catch (error) {
    if (begun) throw error;
    return task();
  }
}
