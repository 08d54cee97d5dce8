/** The bytes of a file over the network: as the host sends them, or from the packed file beside it. */
import { type FileEntry, type Site, SiteError } from "./site.ts";

/** Called with the bytes that have come, unpacked, and their number in the whole file. */
export type Progress = (loaded: number, total: number) => void;

/** How a file is asked for. */
export interface Asking {
  /** How the browser's own cache is used. */
  cache: RequestCache;
  /** Whether the packed file may be taken. */
  packed: boolean;
  signal?: AbortSignal | undefined;
}

const PACKED_FROM = 50_000; // bytes that the packed file must save
const hosts = new WeakMap<Site, Promise<boolean>>();

/** Returns the entry of a file; a SiteError if the site has no such file. */
export function entryOf(site: Site, name: string): FileEntry {
  const entry = site.files[name];
  if (!entry) throw new SiteError("missing", `This site has no ${name}. Make it again with slmx web.`);
  return entry;
}

/** Opens the unpacked bytes of a file. They are not checked. */
export async function openFile(site: Site, name: string, asking: Asking): Promise<ReadableStream<Uint8Array>> {
  const { gz, bytes } = entryOf(site, name);
  const worthIt = asking.packed && gz !== undefined && bytes - gz >= PACKED_FROM && typeof DecompressionStream === "function";
  if (worthIt && !(await hostPacks(site, name))) {
    const response = await ask(site, `${name}.gz`, asking).catch((error: unknown) => {
      if (error instanceof SiteError && error.kind !== "offline") return null; // the plain file may be there
      throw error;
    });
    if (response) return unpacked(bodyOf(response, name));
  }
  return bodyOf(await ask(site, name, asking), name);
}

/**
 * Reads the whole of a file.
 *
 * @returns As many bytes as the entry says; a SiteError if there are more or fewer, or if the connection breaks.
 */
export async function readWhole(
  stream: ReadableStream<Uint8Array>,
  name: string,
  entry: FileEntry,
  onProgress: Progress,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(entry.bytes);
  const reader = stream.getReader();
  let loaded = 0;
  for (;;) {
    const { done, value } = await reader.read().catch((error: unknown) => {
      throw isOurs(error) ? error : damaged(name, "it cannot be unpacked");
    });
    if (done) break;
    if (loaded + value.length > entry.bytes) {
      void reader.cancel().catch(() => undefined);
      throw damaged(name, `it has more than its ${entry.bytes} bytes`);
    }
    bytes.set(value, loaded);
    loaded += value.length;
    onProgress(loaded, entry.bytes);
  }
  if (loaded < entry.bytes) throw damaged(name, `only ${loaded} of its ${entry.bytes} bytes came`);
  return bytes;
}

/** Says in a SiteError that a file is not the one that site.json lists. */
export function damaged(name: string, why: string): SiteError {
  return new SiteError("damaged", `${name} is not the file of this site: ${why}. Reload the page; if it stays, make the site again with slmx web.`);
}

/** Asks for a file; a SiteError if the host is out of reach or has no such file. */
export async function ask(site: Site | { base: URL }, name: string, asking: Asking, method = "GET"): Promise<Response> {
  const { cache, signal } = asking;
  const url = new URL(name, site.base);
  let response: Response;
  try {
    response = await fetch(url, { method, cache, credentials: "same-origin", redirect: "follow", signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new SiteError("offline", `${name} cannot be loaded: ${url.host} is out of reach. Connect to the network, and reload the page.`);
  }
  // Hosts that have one page for every unknown address send it with the status 200.
  const isPage = (response.headers.get("content-type") ?? "").startsWith("text/html") && !name.endsWith(".html");
  if (response.ok && !isPage) return response;
  void response.body?.cancel().catch(() => undefined);
  if (isPage || response.status === 404 || response.status === 410) {
    throw new SiteError("missing", `${name} is missing on ${url.host}. Copy the whole folder of the site there.`);
  }
  throw new SiteError("other", `${name} cannot be loaded: ${url.host} answers with the status ${response.status}. Reload the page later.`);
}

/** Returns whether the host packs files itself (Content-Encoding). It is asked once for a site. */
function hostPacks(site: Site, name: string): Promise<boolean> {
  let answer = hosts.get(site);
  if (!answer) {
    answer = ask(site, name, { cache: "default", packed: false }, "HEAD").then(
      (response) => response.headers.has("content-encoding"),
      () => false,
    );
    hosts.set(site, answer);
  }
  return answer;
}

/** The body of an answer. If the connection breaks, the stream ends with a SiteError. */
function bodyOf(response: Response, name: string): ReadableStream<Uint8Array> {
  const reader = response.body?.getReader();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await reader?.read();
        if (!next || next.done) controller.close();
        else controller.enqueue(next.value);
      } catch (error) {
        const aborted = error instanceof Error && error.name === "AbortError";
        controller.error(aborted ? error : new SiteError("offline", `The connection broke while ${name} was loading. Reload the page.`));
      }
    },
    cancel: (reason) => reader?.cancel(reason),
  });
}

/** Unpacks gzip. Some hosts mark .gz files as encoded, and the browser has unpacked those already. */
async function unpacked(stream: ReadableStream<Uint8Array>): Promise<ReadableStream<Uint8Array>> {
  const reader = stream.getReader();
  let head = new Uint8Array(0);
  let ended = false;
  while (head.length < 2 && !ended) {
    const { done, value } = await reader.read();
    ended = done;
    if (value) {
      const longer = new Uint8Array(head.length + value.length);
      longer.set(head);
      longer.set(value, head.length);
      head = longer;
    }
  }
  const again = new ReadableStream<Uint8Array<ArrayBuffer>>({
    start: (controller) => controller.enqueue(head),
    async pull(controller) {
      const { done, value } = await reader.read();
      if (done) controller.close();
      else controller.enqueue(value as Uint8Array<ArrayBuffer>);
    },
    cancel: (reason) => reader.cancel(reason),
  });
  return head[0] === 0x1f && head[1] === 0x8b ? again.pipeThrough(new DecompressionStream("gzip")) : again;
}

function isOurs(error: unknown): boolean {
  return error instanceof SiteError || (error instanceof Error && error.name === "AbortError");
}
