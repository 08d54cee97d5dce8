/** Pauses of long work, in which the event loop delivers messages. */

/** The longest time without a pause, in milliseconds. */
export const LONGEST_SLICE = 8;

/** Gives pauses through a channel of messages. setTimeout would wait 4 ms each time. */
export class Pauses {
  private readonly channel = new MessageChannel();
  private resume: (() => void) | null = null;
  private last = performance.now();
  private before = this.last;

  constructor() {
    this.channel.port1.onmessage = () => this.resume?.();
  }

  /** Whether the next piece of work, if it takes as long as the last one, ends too late. */
  get due(): boolean {
    const now = performance.now();
    const next = now + (now - this.before);
    this.before = now;
    return next - this.last > LONGEST_SLICE;
  }

  /** Lets the event loop deliver what is waiting. */
  async pause(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.resume = resolve;
      this.channel.port2.postMessage(null);
    });
    this.last = this.before = performance.now();
  }

  /** Ends the pauses; without it, node does not end. */
  close(): void {
    this.channel.port1.close();
    this.channel.port2.close();
  }
}
