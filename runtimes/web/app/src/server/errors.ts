/** What the page says when the server cannot do what it was asked for. */

/** The server did not do what it was asked for. The message is one or two sentences for people. */
export class ServerError extends Error {}

/** The server does not answer. */
export const OUT_OF_REACH = "The server is out of reach. Check that slmx serve runs and that the network works, and try again.";
/** The connection ended before the story did. */
export const BROKEN = "The connection to the server broke before the story ended. Write on when the server is there again.";
/** The server ended the story because it stops. */
export const CUT = "The server is stopping, so the story ends here. Write on when the server runs again.";

const SENTENCES: Readonly<Record<string, string>> = {
  context_length_exceeded: "The text is longer than this model can read. Shorten it.",
  model_not_found: "The server has this model no more. Load the page again.",
  stopping: "The server is stopping. Try again when it runs again.",
  too_many_connections: "The server has too many open connections. Try again later.",
};

/**
 * Reads an answer whose status is an error.
 *
 * @param response The answer.
 * @returns The error, with what the person can do.
 */
export async function errorOf(response: Response): Promise<ServerError> {
  const { status, headers } = response;
  let body: unknown;
  try {
    body = JSON.parse(await response.text());
  } catch {
    body = null; // a proxy answers with a page of its own
  }
  const said = errorIn(body);
  if (status === 429) {
    const seconds = Number(headers.get("retry-after") ?? "");
    const when = seconds > 0 ? `in ${seconds} ${seconds === 1 ? "second" : "seconds"}` : "later";
    return new ServerError(`The server has more stories to write than it takes. Try again ${when}.`);
  }
  return said ?? new ServerError(`The server answered with the status ${status}. Try again later.`);
}

/** Returns the error that an object in OpenAI's shape holds; null if it holds none. */
export function errorIn(body: unknown): ServerError | null {
  if (typeof body !== "object" || body === null || !("error" in body)) return null;
  const { message, code } = Object(body.error) as { message?: unknown; code?: unknown };
  const known = typeof code === "string" && Object.hasOwn(SENTENCES, code) ? SENTENCES[code] : undefined;
  return new ServerError(known ?? (typeof message === "string" ? `The server says: ${message}.` : "The server failed. Try again."));
}
