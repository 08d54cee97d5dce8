/** How a text leaves the page: by the clipboard, or as a file. */
import type { Notices } from "./notices.ts";

/**
 * Copies a text. If the browser refuses, the page shows the text.
 *
 * @param text The text.
 * @param done What to say when it is copied.
 * @param notices Where to say it.
 */
export async function copyText(text: string, done: string, notices: Notices): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    notices.show("copied", done);
  } catch {
    notices.show("copied", `This page may not use the clipboard. Copy this: ${text}`);
  }
}

/** Downloads a text as story.txt. */
export function downloadText(text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([`${text}\n`], { type: "text/plain" }));
  link.download = "story.txt";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
