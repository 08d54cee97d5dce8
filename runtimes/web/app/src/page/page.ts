/** The page: it connects the story, the settings and the model. */
import type { EngineInfo, Sampling, Shape, StoryResult } from "../engine/types.ts";
import type { FailureKind, ModelEntry } from "../protocol.ts";
import { Announcer } from "./announcer.ts";
import { keep, recall } from "./memory.ts";
import { ModelClient } from "./model_client.ts";
import { Notices } from "./notices.ts";
import { watchOffline } from "./offline.ts";
import { Reveal } from "./reveal.ts";
import { type Link, readLink, type Settings, SettingsForm, writeLink } from "./settings.ts";
import { Story } from "./story.ts";
import { ADVICE, EXAMPLES, endingOf, megabytes, millions } from "./texts.ts";

/** Finds an element of index.html. */
function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} #${id}`);
  return found;
}

type State = "loading" | "ready" | "writing" | "failed";

/** The whole page. */
class Page {
  private readonly prompt = element("prompt", HTMLTextAreaElement);
  private readonly writeButton = element("write", HTMLButtonElement);
  private readonly modelMenu = element("model", HTMLSelectElement);
  private readonly article = element("story", HTMLElement);
  private readonly story = new Story(this.article);
  private readonly settings = new SettingsForm(element("settings-form", HTMLFormElement));
  private readonly notices = new Notices(element("notices", HTMLDivElement));
  private readonly announcer = new Announcer(element("announcer", HTMLDivElement));
  private readonly reveal = new Reveal(
    (pieces) => {
      this.story.append(pieces);
      this.announcer.push(pieces.map((piece) => piece.text).join(""));
      this.follow();
    },
    () => this.settings.pace,
  );
  private readonly client: ModelClient;
  private state: State = "loading";
  private waiting = false; // whether Write was pressed before the model was there
  private model: ModelEntry | null = null;
  private shape: Shape | null = null;
  private info: EngineInfo | null = null;
  private seed = 0; // of the last passage
  private offline = "";

  constructor() {
    this.client = new ModelClient({
      models: (models) => this.showModels(models),
      progress: (loaded, total) => this.showProgress(loaded, total),
      ready: (model, info, shape) => this.modelReady(model, info, shape),
      pieces: (pieces) => this.reveal.push(pieces),
      done: (result, heapBytes) => this.reveal.end(() => this.written(result, heapBytes)),
      notKept: (message) => this.notices.show("storage", message),
      failed: (kind, message) => this.failed(kind, message),
    });
    this.listen();
    this.showExamples();
    const wanted = this.begin();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.settings.pace = "instant";
    this.client.load(wanted);
    watchOffline((line) => {
      this.offline = line;
      this.showFigures();
    }, this.notices);
    this.update();
  }

  /** Takes over a link or the story of this tab. Returns the name of the wanted model. */
  private begin(): string {
    const link = readLink(location.hash);
    if (link) return this.openLink(link);
    const kept = recall();
    if (!kept) return "";
    if (kept.link) this.settings.fill(kept.link.settings);
    this.settings.pace = kept.pace === "instant" ? "instant" : "reading";
    this.story.restore(kept.passages);
    return kept.link?.model ?? "";
  }

  private openLink(link: Link): string {
    this.prompt.value = link.prompt;
    this.settings.fill(link.settings);
    if (link.ignored.length > 0) {
      const list = link.ignored.join(", ");
      this.notices.show("link", `The link has values that this page cannot use (${list}). The defaults stand in their place.`);
    }
    return link.model ?? "";
  }

  private listen(): void {
    const on = (id: string, run: () => void): void => element(id, HTMLButtonElement).addEventListener("click", run);
    element("composer", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.state === "writing") this.stop();
      else this.write();
    });
    on("retry", () => this.retry());
    on("undo", () => this.undo());
    on("copy", () => void this.copy(this.story.text, "The story is copied."));
    on("share", () => this.share());
    on("download", () => this.download());
    on("new", () => this.newStory());
    this.modelMenu.addEventListener("change", () => this.changeModel());
    window.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.state !== "writing") this.write();
      if (event.key === "Escape" && this.state === "writing") this.stop();
    });
    window.addEventListener("hashchange", () => {
      const link = readLink(location.hash);
      if (!link) return;
      this.newStory();
      this.openLink(link);
    });
    window.addEventListener("pagehide", () => this.keep());
    document.addEventListener("resume", () => {
      if (this.state === "writing") this.notices.show("frozen", "The browser had put this tab to sleep. The story goes on.");
    });
  }

  /** Starts a story, or writes on after the person's words. */
  private write(): void {
    const { impossible } = this.settings;
    if (impossible.length > 0) {
      this.notices.show("settings", `These settings are outside their range: ${impossible.join(", ")}. Correct them below.`);
      element("settings", HTMLDetailsElement).open = true;
      return;
    }
    this.notices.hide("settings");
    if (this.state === "loading") {
      this.waiting = true;
      this.update();
      return;
    }
    if (this.state !== "ready") return;
    const text = this.prompt.value;
    if (text.trim() !== "" || this.story.isEmpty) this.story.addPerson(text);
    this.prompt.value = "";
    this.generate(this.settings.values.seed ?? randomSeed());
  }

  private generate(seed: number): void {
    const settings = this.settings.values;
    const sampling: Sampling = { ...settings, seed };
    this.seed = seed;
    this.notices.hide("prompt");
    const { parts } = this.story;
    this.story.openModel();
    this.client.write(parts, sampling, settings.maxTokens);
    this.enter("writing");
    this.showEnding("");
    this.follow();
  }

  private stop(): void {
    this.client.stop();
    this.reveal.stop();
    this.story.dropEmpty();
    this.finish("Stopped.");
  }

  private written(result: StoryResult, heapBytes: number): void {
    const nothing = result.tokens === 0;
    if (nothing) this.story.dropEmpty();
    if (this.info) this.info.heapBytes = heapBytes;
    this.showFigures(result);
    this.finish(endingOf(result, this.shape?.blockSize ?? 0, nothing));
  }

  private finish(ending: string): void {
    this.enter("ready");
    this.showEnding(ending);
    this.announcer.end(ending);
    this.keep();
  }

  private retry(): void {
    if (this.state !== "ready" || !this.story.canUndo) return;
    this.story.removeLast();
    this.generate(randomSeed());
  }

  private undo(): void {
    if (this.state !== "ready" || !this.story.canUndo) return;
    const beginning = this.story.beginning;
    const words = this.story.undo();
    if (words) this.prompt.value = words;
    if (this.story.saved.length === 1 && !this.story.canUndo) {
      this.story.clear();
      this.prompt.value = beginning;
    }
    this.showEnding("");
    this.update();
    this.keep();
    this.prompt.focus();
  }

  private newStory(): void {
    if (this.state === "writing") this.stop();
    this.story.clear();
    this.prompt.value = "";
    this.showEnding("");
    this.update();
    this.keep();
    this.prompt.focus();
  }

  private changeModel(): void {
    if (this.state === "writing") this.stop();
    this.model = null;
    this.enter("loading");
    this.client.load(this.modelMenu.value);
    this.story.restore(this.story.isEmpty ? [] : [{ by: "person", text: this.story.text, ids: [] }]);
    this.update();
  }

  private share(): void {
    const settings: Settings = { ...this.settings.values, seed: this.seed };
    const fragment = writeLink(this.story.beginning, this.model?.name ?? "", settings);
    const link = new URL(fragment, location.href.split("#")[0]).href;
    void this.copy(link, "A link with the beginning, the settings and the seed is copied.");
  }

  private async copy(text: string, done: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      this.notices.show("copied", done);
    } catch {
      this.notices.show("copied", `This page may not use the clipboard. Copy this: ${text}`);
    }
  }

  private download(): void {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([`${this.story.text}\n`], { type: "text/plain" }));
    link.download = "story.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  private modelReady(model: ModelEntry, info: EngineInfo, shape: Shape): void {
    this.model = model;
    this.info = info;
    this.shape = shape;
    this.modelMenu.value = model.name;
    element("tagline", HTMLParagraphElement).textContent =
      `A language model of ${millions(model.parameters)} parameters runs in this page. What you type stays here.`;
    const about = [model.source && `Trained on ${model.source}.`, model.licence && `Licence of the text: ${model.licence}.`];
    element("about", HTMLParagraphElement).textContent = about.filter(Boolean).join(" ");
    this.notices.hide("failed");
    this.enter("ready");
    this.showFigures();
    if (this.waiting) this.write();
    this.waiting = false;
    this.update();
  }

  private failed(kind: FailureKind, message: string): void {
    this.reveal.stop();
    this.waiting = false;
    const wasWriting = this.state === "writing";
    if (kind === "prompt" || wasWriting) {
      this.story.dropEmpty();
      this.giveBackPrompt();
      this.enter("ready");
      this.notices.show("prompt", message);
      return;
    }
    this.enter("failed");
    this.notices.show("failed", `${message} ${ADVICE[kind]}`, { label: "Reload", run: () => location.reload() });
  }

  /** Puts the person's last words back into the field, to be changed. */
  private giveBackPrompt(): void {
    if (!this.story.isEmpty && !this.story.canUndo) this.prompt.value = this.story.removeLast().trim();
  }

  private enter(state: State): void {
    this.state = state;
    this.article.classList.toggle("writing", state === "writing");
    this.article.setAttribute("aria-busy", String(state === "writing"));
    this.update();
  }

  /** Shows what can be done now. */
  private update(): void {
    const { state, story } = this;
    const show = (id: string, shown: boolean): void => {
      element(id, HTMLElement).hidden = !shown;
    };
    const begun = !story.isEmpty;
    const still = begun && state !== "writing";
    show("loading", state === "loading");
    show("examples", !begun && state !== "writing");
    for (const id of ["retry", "undo"]) show(id, still && story.canUndo && state === "ready");
    for (const id of ["copy", "share", "download", "new"]) show(id, still);
    this.writeButton.textContent = state === "writing" ? "Stop" : this.waiting ? "Waiting …" : begun ? "Go on" : "Write";
    this.writeButton.disabled = state === "failed" || this.waiting;
    this.modelMenu.disabled = state === "writing" || state === "loading";
    this.prompt.readOnly = state === "writing";
    element("prompt-label", HTMLLabelElement).textContent = begun ? "Your turn: add words, or leave it empty" : "How does the story begin?";
  }

  private showModels(models: readonly ModelEntry[]): void {
    const options = models.map((model) => new Option(`${model.name}, ${millions(model.parameters)} parameters`, model.name));
    this.modelMenu.replaceChildren(...options);
    element("model-field", HTMLDivElement).hidden = models.length < 2;
  }

  private showProgress(loaded: number, total: number): void {
    const bar = element("loading-bar", HTMLProgressElement);
    bar.value = total ? loaded / total : 0;
    const text = loaded < total ? `Loading the model: ${megabytes(loaded)} of ${megabytes(total)}` : "Starting the model";
    element("loading-text", HTMLParagraphElement).textContent = text;
  }

  private showExamples(): void {
    const list = document.querySelector("#examples ul");
    for (const example of EXAMPLES) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = example;
      button.addEventListener("click", () => {
        this.prompt.value = example;
        this.write();
        this.writeButton.focus();
      });
      const item = document.createElement("li");
      item.append(button);
      list?.append(item);
    }
  }

  private showEnding(text: string): void {
    const ending = element("ending", HTMLParagraphElement);
    ending.textContent = text;
    ending.hidden = text === "";
  }

  private showFigures(result?: StoryResult): void {
    const { model, info } = this;
    if (!model || !info) return;
    const line = [`${model.name} ${model.variant}, ${megabytes(model.bytes)}`, `${megabytes(info.heapBytes)} of memory`];
    if (info.path !== "zero-copy") line.push(`slow path: ${info.reason ?? "the quick one is not available"}`);
    if (result && result.tokens > 1 && result.decodeMs > 0) {
      line.unshift(`${Math.round(((result.tokens - 1) * 1000) / result.decodeMs).toLocaleString("en")} tokens/s`);
      line.push(`seed ${result.seed}`);
    }
    if (this.offline) line.push(this.offline);
    element("figures", HTMLParagraphElement).textContent = line.join(" · ");
  }

  /** Keeps the end of the story in sight while it is written, if the reader is there. */
  private follow(): void {
    const distance = this.article.getBoundingClientRect().bottom - innerHeight;
    if (distance > 0 && distance < innerHeight / 2) scrollBy({ top: distance + 24 });
  }

  private keep(): void {
    const link = writeLink(this.story.beginning, this.model?.name ?? "", this.settings.values);
    keep({ passages: this.story.saved, link, pace: this.settings.pace });
  }
}

/** 32 random bits. */
function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}

new Page();
