/** The sentences of the page, and how numbers are written in them. */
import type { StoryResult } from "../engine/types.ts";
import type { FailureKind } from "../protocol.ts";

/** What to do about the failures whose message does not say it. */
const ADVICE: Partial<Record<FailureKind, string>> = {
  memory: "Close other tabs, or choose a smaller model.",
  engine: "Reload the page, or try another browser.",
};

/** Says what went wrong and what to do. A message of onnxruntime or of the browser can lack its full stop. */
export function failureOf(kind: FailureKind, message: string): string {
  const said = message.trim();
  return [/[.!?]$/.test(said) ? said : `${said}.`, ADVICE[kind]].filter(Boolean).join(" ");
}

/** Says how a story ended. */
export function endingOf(result: StoryResult, blockSize: number, nothing: boolean): string {
  switch (result.finish) {
    case "end of text":
      return nothing ? "The model says that the story is over. Add words of your own to go on." : "The end.";
    case "context full":
      return `The story has reached the ${blockSize} tokens that this model can read. Undo a passage, or start a new story.`;
    case "max tokens":
      return "Stopped at the length that you set.";
    case "interrupted":
      return "Stopped.";
  }
}

/** Bytes in MB. */
export function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/** A count in millions. */
export function millions(count: number): string {
  return `${(count / 1e6).toFixed(1)} million`;
}
