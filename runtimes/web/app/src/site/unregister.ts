/**
 * The service worker of a server that has no offline page. Where an earlier page kept itself for offline use at the same
 * address, the browser takes this one for its new version. It removes the copies and itself, and loads the server's page.
 */
import { isOfSite } from "./store.ts";

declare const self: ServiceWorkerGlobalScope;

self.addEventListener("install", (event) => event.waitUntil(self.skipWaiting()));
self.addEventListener("activate", (event) => event.waitUntil(leave()));

async function leave(): Promise<void> {
  const base = new URL(self.registration.scope);
  const names = (await caches.keys()).filter((name) => isOfSite({ base }, name));
  await Promise.all(names.map((name) => caches.delete(name)));
  await self.registration.unregister();
  const pages = await self.clients.matchAll({ type: "window" });
  await Promise.all(pages.map((page) => page.navigate(page.url)));
}
