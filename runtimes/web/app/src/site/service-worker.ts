/**
 * The service worker: it keeps the files of this version of the site and serves them, so that the page works offline.
 *
 * `slmx web` writes the table of the site into the first line of sw.js, as SITE. So sw.js changes with the site, and the
 * browser then installs the new version beside the running one. It takes over when the page asks.
 */
import { fetchFile, SITE_FILE, SiteError } from "./loader.ts";
import { readSite } from "./site.ts";
import { cacheName, findCopy, ISOLATION, isOfSite, storage, storageProblem } from "./store.ts";

declare const SITE: unknown;
declare const self: ServiceWorkerGlobalScope;

const PAGE = "index.html";
const site = readSite(SITE, new URL(self.registration.scope));

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(removeOldVersions()));
self.addEventListener("message", (event) => {
  const message: unknown = event.data;
  if (typeof message === "object" && message !== null && "type" in message && message.type === "skip-waiting") {
    event.waitUntil(self.skipWaiting());
  }
});
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const name = request.method === "GET" ? nameOf(new URL(request.url)) : null;
  const pastEveryCache = request.destination === "" && request.cache === "reload"; // of the loader
  if (name === null || pastEveryCache) return;
  event.respondWith(name === SITE_FILE ? table() : serve(event, name));
});

/** Stores every file of the page and of the first model, and the other models that an earlier version stored. */
async function install(): Promise<void> {
  let problem = storage() ? null : storageProblem(null);
  site.onStorageProblem = (error) => {
    problem ??= error;
  };
  try {
    for (const name of await wanted()) {
      if (problem) throw problem;
      await fetchFile(site, name);
    }
    if (problem) throw problem;
  } catch (error) {
    if (error instanceof SiteError && error.kind === "storage") {
      await storage()?.delete(cacheName(site));
      await tell({ type: "storage", message: error.message });
    }
    throw error;
  }
  await tell({ type: "cached" });
}

/** The names of the files to store, the small ones first: the page itself loads the large ones meanwhile. */
async function wanted(): Promise<string[]> {
  const [first] = site.models;
  const isExtra = (name: string): boolean => name.startsWith("models/") && !name.startsWith(`models/${first?.name}/`);
  const names: string[] = [];
  for (const name of Object.keys(site.files)) {
    if (!isExtra(name) || (await findCopy(site, name))) names.push(name);
  }
  const size = (name: string): number => site.files[name]?.bytes ?? 0;
  return names.sort((one, other) => size(one) - size(other));
}

async function removeOldVersions(): Promise<void> {
  const all = storage();
  const names = (await all?.keys()) ?? [];
  await Promise.all(names.filter((name) => isOfSite(site, name) && name !== cacheName(site)).map((name) => all?.delete(name)));
}

/** The name of a file of this site for its address; null for any other address. */
function nameOf(url: URL): string | null {
  const { base } = site;
  if (url.origin !== base.origin || !url.pathname.startsWith(base.pathname)) return null;
  const name = url.pathname.slice(base.pathname.length) || PAGE;
  return name === SITE_FILE || site.files[name] ? name : null;
}

function table(): Promise<Response> {
  const headers = { "content-type": "application/json", ...ISOLATION };
  return Promise.resolve(new Response(JSON.stringify(SITE), { headers }));
}

async function serve(event: FetchEvent, name: string): Promise<Response> {
  const copy = await findCopy(site, name);
  if (copy) return copy;
  // The browser or the person has deleted the copies.
  if (name === PAGE) event.waitUntil(install().catch(() => undefined));
  return isolated(await fetch(event.request));
}

/** An answer of the network with the headers of a copy. */
function isolated(response: Response): Response {
  if (response.type === "opaqueredirect" || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [header, value] of Object.entries(ISOLATION)) headers.set(header, value);
  const { status, statusText } = response;
  return new Response(status === 204 || status === 304 ? null : response.body, { status, statusText, headers });
}

/** Tells every open page of this site. */
async function tell(message: { type: "cached" } | { type: "storage"; message: string }): Promise<void> {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  for (const page of pages) if (nameOf(new URL(page.url)) === PAGE) page.postMessage(message);
}
