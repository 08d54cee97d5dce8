/** What a site holds: site.json, read and checked. */

/** What went wrong with a file of the site. */
export type SiteErrorKind = "offline" | "missing" | "damaged" | "storage" | "other";

/** A file of the site cannot be used. The message is for people. */
export class SiteError extends Error {
  readonly kind: SiteErrorKind;

  /**
   * @param kind What went wrong.
   * @param message What is wrong, where, and what to do.
   */
  constructor(kind: SiteErrorKind, message: string) {
    super(message);
    this.name = "SiteError";
    this.kind = kind;
  }
}

/** A file: its size, its SHA-256 in hexadecimal, and the size of its gzip form where there is one. */
export interface FileEntry {
  bytes: number;
  sha256: string;
  gz?: number;
}

/** A model of the site, and the names of its files. */
export interface SiteModel {
  name: string;
  variant: string;
  model: string;
  tokenizer: string;
  manifest: string;
  parameters: number;
  source: string;
  licence: string;
}

/** A site: where it is, its files and its models. */
export interface Site {
  /** The folder of the site; it ends with a slash. */
  readonly base: URL;
  readonly version: string;
  readonly files: Readonly<Record<string, FileEntry>>;
  readonly models: readonly SiteModel[];
  /** What happens when the browser does not keep a file for offline use. The file itself is there. */
  onStorageProblem: (error: SiteError) => void;
}

const FORMAT_VERSION = 1;
const MOST_BYTES = 2 ** 31;
const SHA256 = /^[0-9a-f]{64}$/;
const PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?";
const NAME = new RegExp(`^${PART}(?:/${PART})*$`);

/**
 * Reads the content of site.json.
 *
 * @param values The parsed JSON.
 * @param base The folder of the site; it ends with a slash.
 * @returns The site; a SiteError if a value is missing or of another kind.
 */
export function readSite(values: unknown, base: URL): Site {
  const site = asRecord(values);
  const version = text(site, "version");
  if (site["format_version"] !== FORMAT_VERSION || !SHA256.test(version)) {
    throw wrong("it is of another version than this page");
  }
  const files: Record<string, FileEntry> = Object.create(null) as Record<string, FileEntry>;
  for (const [name, entry] of Object.entries(asRecord(site["files"]))) {
    if (!NAME.test(name)) throw wrong("it lists a file outside the site");
    files[name] = readEntry(asRecord(entry));
  }
  if (!Array.isArray(site["models"]) || site["models"].length === 0) throw wrong("it lists no model");
  const models = site["models"].map((model) => readModel(asRecord(model)));
  for (const model of models) {
    for (const name of [model.model, model.tokenizer, model.manifest]) if (!files[name]) throw wrong(`it does not list ${name}`);
  }
  return { base, version, files, models, onStorageProblem: () => undefined };
}

function readEntry(entry: Record<string, unknown>): FileEntry {
  const sha256 = text(entry, "sha256");
  if (!SHA256.test(sha256)) throw wrong("a SHA-256 is not one");
  const found: FileEntry = { bytes: count(entry, "bytes"), sha256 };
  if ("gz" in entry) found.gz = count(entry, "gz");
  return found;
}

function readModel(model: Record<string, unknown>): SiteModel {
  return {
    name: text(model, "name"),
    variant: text(model, "variant"),
    model: text(model, "model"),
    tokenizer: text(model, "tokenizer"),
    manifest: text(model, "manifest"),
    parameters: count(model, "parameters", Number.MAX_SAFE_INTEGER),
    source: text(model, "source"),
    licence: text(model, "licence"),
  };
}

function asRecord(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong("a part of it is not an object");
  return value as Record<string, unknown>;
}

function text(record: Record<string, unknown>, key: string): string {
  const value = record[key];
  if (typeof value !== "string") throw wrong(`${key} is not a text`);
  return value;
}

function count(record: Record<string, unknown>, key: string, most = MOST_BYTES): number {
  const value = record[key];
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > most) throw wrong(`${key} is not a count`);
  return value;
}

function wrong(what: string): SiteError {
  return new SiteError("damaged", `site.json cannot be used: ${what}. Make the site again with slmx web.`);
}
