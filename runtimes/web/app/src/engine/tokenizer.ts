/** Text to ids and back, with the ids of slm/tokenizers/tokenizer.py. Text never becomes a special token. */

import { Tokenizer as Library } from "@huggingface/tokenizers";
import type { TokenizerSettings } from "./shape.ts";

/**
 * How each scheme splits text, as in slm/tokenizers/settings.py. tokenizer.json states the same, but the library has its
 * own expression for GPT-2, in which U+FEFF is white space and U+0085 is none.
 */
export const PATTERNS: Readonly<Record<string, string>> = {
  gpt2: String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
  digits: String.raw`'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+`,
  cl100k: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
  qwen2: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
};
const SPACE = "\u2581";
const SPACE_BYTE = 32;

interface TokenizerJson {
  added_tokens: { id: number; content: string }[];
  pre_tokenizer: unknown;
  model: { vocab: Record<string, number> };
}

/** A tokenizer of a bundle. */
export class Tokenizer {
  /** The ids that end and begin a text. */
  readonly end: number;
  readonly begin: number;
  /** Whether a story leaves out a space at its start, because `encode` puts it there. */
  readonly dropsSpace: boolean;
  private readonly library: Library;
  private readonly bytes: readonly Uint8Array[];

  /**
   * @param content The text of tokenizer.json.
   * @param settings What manifest.json says about the tokenizer.
   */
  constructor(content: string, settings: TokenizerSettings) {
    const json = JSON.parse(content) as TokenizerJson;
    const idOf = (name: string): number => {
      const id = json.added_tokens.find((token) => token.content === name)?.id;
      if (id === undefined) throw new Error(`tokenizer.json has no token ${name}; export the bundle again`);
      return id;
    };
    this.end = idOf(settings.end);
    this.begin = settings.begin === null ? this.end : idOf(settings.begin);
    const pieces = settings.scheme === "sentencepiece";
    const pattern = PATTERNS[settings.scheme];
    if (!pieces && pattern === undefined) {
      throw new Error(`this app does not know the tokenizer scheme ${settings.scheme}; build the site with a newer slmx`);
    }
    this.dropsSpace = pieces && settings.prefix !== "never";
    // Without its special tokens, the library takes all text for plain text.
    for (const { content } of json.added_tokens) delete json.model.vocab[content];
    json.added_tokens = [];
    if (!pieces) json.pre_tokenizer = splitter(pattern!);
    this.library = new Library(json, {});
    const spelled = pieces ? spelledPiece : spelledBytes;
    const bytes: Uint8Array[] = [];
    for (const [token, id] of Object.entries(json.model.vocab)) bytes[id] = spelled(token);
    this.bytes = bytes;
  }

  /** Returns the ids of a text, without the id that begins a text. Half a surrogate pair is read as U+FFFD. */
  encode(text: string): number[] {
    return this.library.encode(text.replace(/\p{Surrogate}/gu, "\ufffd"), { add_special_tokens: false }).ids;
  }

  /** Returns the bytes of an id. A special token has none. */
  bytesOf(id: number): Uint8Array {
    return this.bytes[id] ?? new Uint8Array(0);
  }

  /**
   * Returns a reader of ids that follow `ids`. It answers with the text that is certain now: whole characters.
   * Bytes that are not UTF-8 become U+FFFD.
   */
  reader(ids: readonly number[]): TextReader {
    return new TextReader(this, this.dropsSpace && ids.every((id) => id >= this.end));
  }
}

/** Turns ids into text while they are written. */
export class TextReader {
  private readonly decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  constructor(private readonly tokenizer: Tokenizer, private dropSpace: boolean) {}

  /** Takes the next id; returns the text that is certain now, which may be empty. */
  read(id: number): string {
    let bytes = this.tokenizer.bytesOf(id);
    if (this.dropSpace && bytes.length) {
      this.dropSpace = false;
      if (bytes[0] === SPACE_BYTE) bytes = bytes.subarray(1);
    }
    return this.decoder.decode(bytes, { stream: true });
  }

  /** Returns the rest when no more ids come: U+FFFD for a character that is not complete. */
  finish(): string {
    return this.decoder.decode();
  }
}

function splitter(pattern: string): object {
  const split = { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return { type: "Sequence", pretokenizers: [split, level] };
}

/** GPT-2's printable character for each byte: printable Latin-1 is unchanged, the rest is from U+0100. */
const BYTE_OF_CHARACTER = new Map<string, number>();
for (let byte = 0, others = 0; byte < 256; byte++) {
  const printable = (byte >= 33 && byte < 127) || (byte >= 161 && byte < 173) || byte >= 174;
  BYTE_OF_CHARACTER.set(String.fromCharCode(printable ? byte : 256 + others++), byte);
}

/** Returns the bytes of a token as byte-level BPE spells it. */
function spelledBytes(token: string): Uint8Array {
  return Uint8Array.from(token, (character) => BYTE_OF_CHARACTER.get(character) ?? 0);
}

/** Returns the bytes of a token as SentencePiece spells it. */
function spelledPiece(token: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
  return byte ? Uint8Array.of(parseInt(byte[1]!, 16)) : new TextEncoder().encode(token.replaceAll(SPACE, " "));
}
