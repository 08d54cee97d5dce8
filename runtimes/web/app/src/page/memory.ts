/** Keeps the story for this tab, so that it survives a reload or a tab that the browser discarded. */
import { type Link, readLink } from "./settings.ts";
import type { Passage } from "./story.ts";

const KEY = "slmx-story:";

/** What is kept. `link` is a fragment with the settings and the model (settings.ts); `shared` is the one to share. */
export interface Kept {
  passages: readonly Passage[];
  link: string;
  shared: string;
  draft: string;
  pace: string;
}

/** What was kept, with the link read. */
export interface Recalled extends Omit<Kept, "link"> {
  link: Link | null;
}

/** Keeps a story. Where the browser allows no storage, nothing is kept. */
export function keep(kept: Kept): void {
  try {
    sessionStorage.setItem(KEY + location.pathname, JSON.stringify(kept));
  } catch {
    // A story that cannot be kept is still on the page.
  }
}

/** Returns what was kept for this tab, or null. */
export function recall(): Recalled | null {
  try {
    const kept = JSON.parse(sessionStorage.getItem(KEY + location.pathname) ?? "null") as Partial<Kept> | null;
    if (!kept || !Array.isArray(kept.passages) || !kept.passages.every(isPassage)) return null;
    const [shared, draft] = [kept.shared, kept.draft].map((text) => (typeof text === "string" ? text : ""));
    return { passages: kept.passages, link: readLink(String(kept.link)), shared: shared!, draft: draft!, pace: String(kept.pace) };
  } catch {
    return null;
  }
}

function isPassage(value: unknown): value is Passage {
  const passage = value as Partial<Passage> | null;
  return (
    typeof passage === "object" && passage !== null && typeof passage.text === "string" && typeof passage.model === "string" &&
    (passage.by === "person" || passage.by === "model") &&
    Array.isArray(passage.ids) && passage.ids.every((id) => Number.isInteger(id) && id >= 0)
  );
}
