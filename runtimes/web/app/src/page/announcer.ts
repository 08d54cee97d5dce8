/** Reads a story to a screen reader in whole sentences, so that the live region is not flooded. */

const PAUSE = 1500; // milliseconds between two announcements
const SENTENCE = /^[\s\S]*[.!?]["'”’)]*\s/;

/** Announces the sentences of a text that grows. */
export class Announcer {
  private readonly region: HTMLElement;
  private waiting = "";
  private timer = 0;

  /** @param region An element with aria-live="polite". */
  constructor(region: HTMLElement) {
    this.region = region;
  }

  /** Adds text. Only whole sentences are announced. */
  push(text: string): void {
    this.waiting += text;
    if (!this.timer) this.timer = window.setTimeout(() => this.announce(), PAUSE);
  }

  /** Announces the rest, and then a sentence about the end if there is one. */
  end(message = ""): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
    this.say(`${this.waiting} ${message}`);
    this.waiting = "";
  }

  private announce(): void {
    this.timer = 0;
    const sentences = SENTENCE.exec(this.waiting)?.[0];
    if (!sentences) return;
    this.waiting = this.waiting.slice(sentences.length);
    this.say(sentences);
  }

  private say(text: string): void {
    this.region.textContent = text.trim();
  }
}
