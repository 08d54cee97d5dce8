/** The story on the page: what a person wrote, what the model wrote, and how both are shown. */
import type { Part, Piece } from "../protocol.ts";

/**
 * A passage of the story. `model` is the name of the model that wrote it, and `ids` are what it wrote if it ran in the
 * browser. A person's text has none.
 */
export interface Passage {
  by: "person" | "model";
  text: string;
  ids: number[];
  model: string;
}

/** Shows a story and keeps its passages. */
export class Story {
  private readonly element: HTMLElement;
  private passages: Passage[] = [];

  /** @param element The article that holds the story. */
  constructor(element: HTMLElement) {
    this.element = element;
  }

  /** The whole text. */
  get text(): string {
    return this.passages.map((passage) => passage.text).join("");
  }

  /** Whether nothing has been written. */
  get isEmpty(): boolean {
    return this.passages.length === 0;
  }

  /** Whether the last passage is by the model, so that it can be undone or tried again. */
  get canUndo(): boolean {
    return this.passages.at(-1)?.by === "model";
  }

  /** How the story began. */
  get beginning(): string {
    return this.passages[0]?.by === "person" ? this.passages[0].text : "";
  }

  /** The passages as a model reads them. What another model wrote is text, because its ids have other meanings. */
  partsFor(model: string): Part[] {
    return this.passages.map(({ by, text, ids, model: writer }) =>
      by === "model" && writer === model && ids.length > 0 ? { text, ids } : { text },
    );
  }

  /** Whether the next passage is the first one of a model. */
  get isFresh(): boolean {
    return this.passages.length <= 1;
  }

  /** The passages, to be kept. */
  get saved(): readonly Passage[] {
    return this.passages;
  }

  /** Shows passages that were kept. */
  restore(passages: readonly Passage[]): void {
    this.clear();
    for (const passage of passages) this.open({ ...passage, ids: [...passage.ids] });
  }

  /** Removes everything. */
  clear(): void {
    this.passages = [];
    this.element.replaceChildren();
    this.element.hidden = true;
  }

  /** Adds a person's text. A space is put before it if the story does not end with one. */
  addPerson(text: string): void {
    const before = this.text;
    const needsSpace = before !== "" && !/\s$/.test(before) && !/^[\s.,;:!?)\]}'’”…]/.test(text);
    this.open({ by: "person", text: needsSpace ? ` ${text}` : text, ids: [], model: "" });
  }

  /** Opens a passage for a model to write. */
  openModel(model: string): void {
    this.open({ by: "model", text: "", ids: [], model });
  }

  /** Adds what the model wrote to the last passage. */
  append(pieces: readonly Piece[]): void {
    const passage = this.passages.at(-1);
    const span = this.element.lastElementChild;
    if (!passage || !span) return;
    for (const { text, ids } of pieces) {
      passage.text += text;
      passage.ids.push(...ids);
      if (text) span.append(word(text));
    }
  }

  /** Removes the last passage of the model, and the person's text before it unless the story begins with it. */
  undo(): string {
    this.removeLast();
    return this.passages.length > 1 && this.passages.at(-1)?.by === "person" ? this.removeLast().trim() : "";
  }

  /** Removes the last passage of the model if it is empty. Returns whether it was. */
  dropEmpty(): boolean {
    const last = this.passages.at(-1);
    const isEmpty = last?.by === "model" && last.ids.length === 0 && last.text === "";
    if (isEmpty) this.removeLast();
    return isEmpty;
  }

  /** Removes the last passage and returns its text. */
  removeLast(): string {
    this.element.lastElementChild?.remove();
    const text = this.passages.pop()?.text ?? "";
    if (this.isEmpty) this.clear();
    return text;
  }

  /** Adds a passage. */
  open(passage: Passage): void {
    this.passages.push(passage);
    const span = document.createElement("span");
    span.className = passage.by === "person" ? "yours" : "passage";
    span.textContent = passage.text;
    this.element.append(span);
    this.element.hidden = false;
  }
}

/** A word that appears. */
function word(text: string): HTMLElement {
  const span = document.createElement("span");
  span.className = "word";
  span.textContent = text;
  return span;
}
