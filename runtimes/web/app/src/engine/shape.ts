/** Reads what the engine needs from a bundle's manifest.json. */

import type { Shape } from "./types.ts";

/** How a tokenizer splits text, and its special tokens; the same fields as slm/tokenizers/settings.py. */
export interface TokenizerSettings {
  scheme: string;
  end: string;
  begin: string | null;
  prefix: string;
}

type Sizes = Omit<Shape, "begin" | "end">;

/**
 * Reads the sizes of a model and the settings of its tokenizer.
 * @param manifest The text of manifest.json.
 */
export function readManifest(manifest: string): { sizes: Sizes; settings: TokenizerSettings } {
  const { shape, tokenizer } = JSON.parse(manifest) as { shape?: Record<string, number>; tokenizer?: object };
  const size = (name: string): number => {
    const value = shape?.[name];
    if (!Number.isInteger(value) || value! < 1) {
      throw new Error(`manifest.json does not say ${name} of the model; export the bundle again`);
    }
    return value!;
  };
  const heads = size("n_head");
  return {
    sizes: {
      blockSize: size("block_size"),
      vocabSize: size("vocab_size"),
      layers: size("n_layer"),
      kvHeads: shape?.n_kv_head || heads,
      headSize: shape?.head_size || size("n_embd") / heads,
    },
    settings: { scheme: "gpt2", end: "<|endoftext|>", begin: null, prefix: "always", ...tokenizer },
  };
}
