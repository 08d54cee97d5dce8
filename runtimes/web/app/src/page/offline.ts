/** Registers the service worker, and says whether the page works without a network. */
import type { Notices } from "./notices.ts";

/** What the service worker reports (site/service-worker.ts). */
type Report = { type: "cached" } | { type: "storage"; message: string };

/**
 * Registers the service worker.
 *
 * @param show Shows a few words about the state, for the line of figures.
 * @param notices Where an update or a problem is shown.
 */
export function watchOffline(show: (words: string) => void, notices: Notices): void {
  if (!window.isSecureContext) return show("offline use needs https");
  const container = navigator.serviceWorker as ServiceWorkerContainer | undefined;
  if (!container) return show("this browser cannot keep the page for offline use");
  let isAsked = false; // whether this tab asked for the new version
  const controlled = container.controller !== null;
  container.addEventListener("message", (event: MessageEvent<Report>) => {
    if (event.data.type === "cached") show("works offline");
    else notices.show("storage", event.data.message);
  });
  container.addEventListener("controllerchange", () => {
    if (!controlled) return;
    if (isAsked) return location.reload();
    const run = (): void => location.reload();
    notices.show("update", "Another tab has loaded a new version of this page.", { label: "Reload", run });
  });
  const offer = (registration: ServiceWorkerRegistration): void => {
    const { waiting } = registration;
    if (!waiting || !controlled) return;
    const run = (): void => {
      isAsked = true;
      waiting.postMessage({ type: "skip-waiting" });
    };
    notices.show("update", "A new version of this page is ready.", { label: "Load it", run });
  };
  container
    .register("sw.js", { updateViaCache: "none" })
    .then(async (registration) => {
      const watch = (worker: ServiceWorker | null): void =>
        worker?.addEventListener("statechange", () => {
          if (worker.state === "redundant" && !registration.active) show("not kept for offline use: a file was changed or is missing");
          offer(registration);
        });
      offer(registration);
      watch(registration.installing);
      registration.addEventListener("updatefound", () => watch(registration.installing));
      await container.ready;
      show("works offline");
    })
    .catch((error: unknown) => {
      const reason = error instanceof Error ? error.message : String(error);
      show("not kept for offline use");
      notices.show("storage", `The browser could not keep this page for offline use (${reason}). It works with a network.`);
    });
}
