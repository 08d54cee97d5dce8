/** The page: it connects the story, the settings and the model. */
import type { EngineInfo, Sampling, StoryResult } from "../engine/types.ts";
import type { FailureKind, ModelEntry } from "../protocol.ts";
import { Announcer } from "./announcer.ts";
import type { Handlers, StoryClient } from "./client.ts";
import { element, show } from "./dom.ts";
import { showExamples } from "./examples.ts";
import { Figures } from "./figures.ts";
import { keep, recall } from "./memory.ts";
import { Notices } from "./notices.ts";
import { Reveal } from "./reveal.ts";
import { type Link, readLink, SettingsForm, writeLink } from "./settings.ts";
import { copyText, downloadText } from "./sharing.ts";
import { type Passage, Story } from "./story.ts";
import { endingOf, failureOf, megabytes, millions } from "./texts.ts";

const KEEP_EVERY = 1000; // milliseconds, while the story grows

type State = "loading" | "ready" | "writing" | "failed";

/** Where the models run, and what the page says and does about it. */
export interface Place {
  /** Opens the way to the models. */
  open: (handlers: Handlers) => StoryClient;
  /** The sentences below the title when a model is ready. */
  tagline: (model: ModelEntry) => string;
  /** Called once, when the first model is ready or has failed. */
  settled: (figures: Figures, notices: Notices) => void;
}

/** The whole page. */
export class Page {
  private readonly place: Place;
  private readonly prompt = element("prompt", HTMLTextAreaElement);
  private readonly writeButton = element("write", HTMLButtonElement);
  private readonly modelMenu = element("model", HTMLSelectElement);
  private readonly article = element("story", HTMLElement);
  private readonly story = new Story(this.article);
  private readonly settings = new SettingsForm(element("settings-form", HTMLFormElement));
  private readonly notices = new Notices(element("notices", HTMLDivElement), () => this.prompt.focus());
  private readonly figures = new Figures(element("figures", HTMLParagraphElement), element("about", HTMLParagraphElement));
  private readonly announcer = new Announcer(element("announcer", HTMLDivElement));
  private readonly reveal = new Reveal(
    (pieces) => {
      this.story.append(pieces);
      this.announcer.push(pieces.map((piece) => piece.text).join(""));
      this.follow();
      this.keepSoon();
    },
    () => this.settings.pace,
  );
  private readonly client: StoryClient;
  private state: State = "loading";
  private waiting = false; // whether Write was pressed before the model was there
  private model: ModelEntry | null = null;
  private blockSize = 0; // tokens that the model can read
  private wanted = ""; // the name of the model that was asked for last
  private shared = ""; // a link to the first passage
  private replaced: { passage: Passage; shared: string } | null = null; // what "Try again" took away
  private isSettled = false;
  private keeping = 0; // the timer of the next keep

  /** @param place Where the models run. */
  constructor(place: Place) {
    this.place = place;
    this.client = place.open({
      models: (models) => this.showModels(models),
      progress: (loaded, total) => this.showProgress(loaded, total),
      ready: (model, info, blockSize) => this.modelReady(model, info, blockSize),
      waiting: () => this.showEnding("The server writes other stories first. This one waits for its turn."),
      pieces: (pieces) => {
        this.showEnding("");
        this.reveal.push(pieces);
      },
      done: (result) => this.reveal.end(() => this.written(result)),
      figures: (result, heapBytes) => this.figures.showResult(result, heapBytes),
      stalled: () => {
        const action = { label: "Reload", run: () => location.reload() };
        this.notices.show("stalled", "Nothing has arrived for 15 seconds. Wait, or load the page again.", action);
      },
      notKept: (message) => {
        this.notices.show("storage", message);
        this.figures.showOffline("this model is not kept for offline use");
      },
      failed: (kind, message) => this.failed(kind, message),
    });
    this.listen();
    element("unstarted", HTMLParagraphElement).remove();
    showExamples(element("examples", HTMLElement), (example) => {
      this.prompt.value = example;
      this.write();
      this.writeButton.focus();
    });
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.settings.pace = "instant";
    this.wanted = this.begin();
    this.client.load(this.wanted);
    this.update();
  }

  /** Takes over a link or the story of this tab. Returns the name of the wanted model. */
  private begin(): string {
    const link = readLink(location.hash);
    if (link) {
      this.openLink(link);
      return link.model ?? "";
    }
    const kept = recall();
    if (!kept) return "";
    if (kept.link) this.settings.fill(kept.link.settings);
    this.settings.pace = kept.pace === "instant" ? "instant" : "reading";
    this.story.restore(kept.passages);
    this.prompt.value = kept.draft;
    this.shared = kept.shared;
    return kept.link?.model ?? "";
  }

  /** Takes over a link, and removes it from the address, so that a reload shows the story and not the link again. */
  private openLink(link: Link): void {
    history.replaceState(null, "", location.pathname + location.search);
    this.prompt.value = link.prompt;
    this.settings.fill(link.settings);
    if (link.ignored.length > 0) {
      const list = link.ignored.join(", ");
      this.notices.show("link", `The link has values that this page cannot use (${list}). The defaults stand in their place.`);
    }
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
    on("copy", () => void copyText(this.story.text, "The story is copied.", this.notices));
    on("share", () => this.share());
    on("download", () => downloadText(this.story.text));
    on("new", () => this.newStory());
    this.modelMenu.addEventListener("change", () => this.changeModel(this.modelMenu.value));
    window.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && this.state !== "writing") this.write();
      if (event.key !== "Escape") return;
      if (this.state === "writing") this.stop();
      this.waiting = false;
      this.update();
    });
    window.addEventListener("hashchange", () => this.followLink());
    this.prompt.addEventListener("input", () => this.keepSoon());
    window.addEventListener("pagehide", () => this.keep());
    document.addEventListener("resume", () => {
      if (this.state === "writing") this.notices.show("frozen", "The browser had put this tab to sleep. The story goes on.");
    });
  }

  /** Opens a link that was followed in this tab. A story is not thrown away without being asked. */
  private followLink(): void {
    const link = readLink(location.hash);
    if (!link) return;
    const run = (): void => {
      this.notices.hide("followed");
      this.newStory();
      this.openLink(link);
      if (link.model && link.model !== this.wanted) this.changeModel(link.model);
    };
    if (this.story.isEmpty && this.prompt.value === "") run();
    else this.notices.show("followed", "This link begins another story. The present one will be gone.", { label: "Open it", run });
  }

  /** Whether the settings can be used. If not, says which cannot. */
  private settingsAreRight(): boolean {
    const { impossible } = this.settings;
    if (impossible.length === 0) {
      this.notices.hide("settings");
      return true;
    }
    this.notices.show("settings", `These settings are outside their range: ${impossible.join(", ")}. Correct them below.`);
    element("settings", HTMLDetailsElement).open = true;
    return false;
  }

  /** Starts a story, or writes on after the person's words. */
  private write(): void {
    if (!this.settingsAreRight()) return;
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
    const name = this.model?.name ?? "";
    if (this.story.isFresh) this.shared = writeLink(this.story.beginning, name, { ...settings, seed });
    this.notices.hide("prompt");
    this.replaced = null;
    const parts = this.story.partsFor(name);
    this.story.openModel(name);
    this.client.write(parts, sampling, settings.maxTokens);
    this.enter("writing");
    this.showEnding("");
    this.follow();
    this.keep();
  }

  private stop(): void {
    this.client.stop();
    this.reveal.stop();
    this.dropEmpty();
    this.finish("Stopped.");
  }

  private written(result: StoryResult): void {
    const nothing = result.tokens === 0;
    if (nothing) this.dropEmpty();
    this.finish(endingOf(result, this.blockSize, nothing));
  }

  private finish(ending: string): void {
    this.enter("ready");
    this.showEnding(ending);
    this.announcer.end(ending);
    this.keep();
  }

  private retry(): void {
    if (this.state !== "ready" || !this.story.canUndo || !this.settingsAreRight()) return;
    const [passage] = this.story.saved.slice(-1);
    const { shared } = this;
    this.story.removeLast();
    this.generate(randomSeed()); // with a seed of the settings, it would write the same again
    this.replaced = passage ? { passage, shared } : null;
    this.writeButton.focus();
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
    this.waiting = false;
    this.story.clear();
    this.prompt.value = "";
    this.showEnding("");
    this.update();
    this.keep();
    this.prompt.focus();
  }

  private changeModel(name: string): void {
    if (this.state === "writing") this.stop();
    this.model = null;
    this.wanted = name;
    this.enter("loading");
    this.client.load(name);
    this.keep();
  }

  private share(): void {
    const link = new URL(this.shared, location.href.split("#")[0]).href;
    void copyText(link, "A link is copied. It holds the beginning, the settings and the seed of the first passage.", this.notices);
  }

  private modelReady(model: ModelEntry, info: EngineInfo | null, blockSize: number): void {
    this.model = model;
    this.blockSize = blockSize;
    this.modelMenu.value = this.wanted = model.name;
    element("tagline", HTMLParagraphElement).textContent = this.place.tagline(model);
    for (const key of ["failed", "stalled"]) this.notices.hide(key);
    this.enter("ready");
    this.figures.showModel(model, info);
    if (this.waiting) this.write();
    this.waiting = false;
    this.update();
    this.settled();
  }

  private settled(): void {
    if (this.isSettled) return;
    this.isSettled = true;
    this.place.settled(this.figures, this.notices);
  }

  private failed(kind: FailureKind, message: string): void {
    this.reveal.flush();
    this.announcer.end();
    this.waiting = false;
    const said = failureOf(kind, message);
    const wasWriting = this.state === "writing";
    if (kind === "prompt" || wasWriting) {
      this.dropEmpty();
      this.giveBackPrompt();
      this.enter("ready");
      this.showEnding("");
      this.keep();
      this.notices.show("prompt", said);
      element("notices", HTMLDivElement).scrollIntoView({ block: "nearest" });
      return;
    }
    this.enter("failed");
    this.settled();
    this.notices.show("failed", said, { label: "Reload", run: () => location.reload() });
  }

  /** Removes a passage of which nothing was written. The one that it was to replace comes back. */
  private dropEmpty(): void {
    if (!this.story.dropEmpty() || !this.replaced) return;
    this.story.open(this.replaced.passage);
    this.shared = this.replaced.shared;
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
    const begun = !story.isEmpty;
    const still = begun && state !== "writing";
    show("loading", state === "loading");
    show("examples", !begun && state !== "writing");
    for (const id of ["retry", "undo"]) show(id, still && story.canUndo && state === "ready");
    for (const id of ["copy", "download", "new"]) show(id, still);
    show("share", still && this.shared !== "");
    this.writeButton.textContent = state === "writing" ? "Stop" : this.waiting ? "Waiting …" : begun ? "Go on" : "Write";
    this.writeButton.disabled = state === "failed" || this.waiting;
    this.modelMenu.disabled = state === "writing";
    this.prompt.readOnly = state === "writing";
    element("prompt-label", HTMLLabelElement).textContent = begun ? "Your turn: add words, or leave it empty" : "How does the story begin?";
  }

  private showModels(models: readonly ModelEntry[]): void {
    const options = models.map((model) => new Option(`${model.name}, ${millions(model.parameters)} parameters`, model.name));
    this.modelMenu.replaceChildren(...options);
    element("model-field", HTMLDivElement).hidden = models.length < 2;
    if (this.wanted && !models.some((model) => model.name === this.wanted)) {
      this.notices.show("model", `This site has no model named ${this.wanted.slice(0, 40)}. It loads ${models[0]?.name}.`);
    } else if (this.wanted) this.modelMenu.value = this.wanted;
  }

  private showProgress(loaded: number, total: number): void {
    this.notices.hide("stalled");
    const bar = element("loading-bar", HTMLProgressElement);
    bar.value = total ? loaded / total : 0;
    const text = loaded < total ? `Loading the model: ${megabytes(loaded)} of ${megabytes(total)}` : "Starting the model";
    element("loading-text", HTMLParagraphElement).textContent = text;
  }

  private showEnding(text: string): void {
    const ending = element("ending", HTMLParagraphElement);
    ending.textContent = text;
    ending.hidden = text === "";
  }

  /** Keeps the end of the story in sight while it is written, if the reader is there. */
  private follow(): void {
    const distance = this.article.getBoundingClientRect().bottom - innerHeight;
    if (distance > 0 && distance < innerHeight / 2) scrollBy({ top: distance + 24 });
  }

  private keep(): void {
    window.clearTimeout(this.keeping);
    this.keeping = 0;
    const link = writeLink(this.story.beginning, this.wanted, this.settings.values);
    keep({ passages: this.story.saved, link, shared: this.shared, draft: this.prompt.value, pace: this.settings.pace });
  }

  private keepSoon(): void {
    this.keeping ||= window.setTimeout(() => this.keep(), KEEP_EVERY);
  }
}

/** 32 random bits. */
function randomSeed(): number {
  return crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
}
