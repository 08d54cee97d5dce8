/** The API of the server: its models, and the events of a story. A key is asked for where the server needs one. */
import { BROKEN, errorOf, OUT_OF_REACH, ServerError } from "./errors.ts";
import type { KeyAsker } from "./key_form.ts";

/** A model of the server. */
export interface ServerModel {
  id: string;
  variant: string;
  parameters: number;
  max_model_len: number;
}

const KEPT = "slmx-key"; // in sessionStorage, which other tabs and other origins do not see
const KEY = /^[!-~]+$/; // what a header can hold

/** A story that the server has begun. */
export interface Begun {
  /** The bytes of its events. */
  body: ReadableStream<Uint8Array>;
  /** When the request was sent, as performance.now() tells it. */
  sent: number;
}

/** Asks the server. */
export class Api {
  private readonly base: URL;
  private readonly asker: KeyAsker;
  private key = recallKey();
  private sent = 0; // when the last request was sent

  /**
   * @param base The address of the page; the API is beside it.
   * @param asker Asks a person for the key.
   */
  constructor(base: URL, asker: KeyAsker) {
    this.base = base;
    this.asker = asker;
  }

  /** Returns the models, the default first; a ServerError if that is not possible. */
  async models(signal: AbortSignal): Promise<ServerModel[]> {
    const response = await this.ask("v1/models", { signal });
    const { data } = (await response.json().catch(() => ({}))) as { data?: ServerModel[] };
    if (!Array.isArray(data) || data.length === 0) throw new ServerError("The server lists no models. Load the page again.");
    return data;
  }

  /** Begins a story; a ServerError if the server refuses. */
  async complete(fields: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<Begun> {
    const headers = { "content-type": "application/json" };
    const response = await this.ask("v1/completions", { method: "POST", headers, body: JSON.stringify(fields), signal });
    if (!response.body) throw new ServerError(BROKEN);
    return { body: response.body, sent: this.sent };
  }

  /** Asks until the server accepts the key. */
  private async ask(path: string, request: RequestInit & { signal: AbortSignal }): Promise<Response> {
    try {
      for (;;) {
        const response = await this.send(path, request);
        if (response?.ok) {
          keepKey(this.key);
          return response;
        }
        if (response && response.status !== 401) throw await errorOf(response);
        void response?.body?.cancel().catch(() => undefined);
        request.signal.throwIfAborted();
        const isWrong = this.key !== "";
        this.key = "";
        keepKey("");
        this.key = await this.asker.ask(isWrong, request.signal);
      }
    } finally {
      this.asker.close();
    }
  }

  /** Sends a request with the key; null if the key cannot be sent, so that it is wrong. */
  private async send(path: string, request: RequestInit & { signal: AbortSignal }): Promise<Response | null> {
    if (this.key !== "" && !KEY.test(this.key)) return null;
    const authorization = this.key === "" ? {} : { authorization: `Bearer ${this.key}` };
    const headers = { ...request.headers, ...authorization };
    this.sent = performance.now();
    try {
      return await fetch(new URL(path, this.base), { ...request, headers, cache: "no-store" });
    } catch (error) {
      if (request.signal.aborted) throw error;
      throw new ServerError(OUT_OF_REACH);
    }
  }
}

function recallKey(): string {
  try {
    return sessionStorage.getItem(KEPT) ?? "";
  } catch {
    return "";
  }
}

/** Keeps a key for this tab, if the browser allows it. An empty one is forgotten. */
function keepKey(key: string): void {
  try {
    if (key === "") sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, key);
  } catch {
    // It is asked for again after a reload.
  }
}
