/** The settings of a story: their ranges, the form, and a link that carries them. */
import type { Sampling } from "../engine/types.ts";

/** How the words appear. */
export type Pace = "reading" | "instant";

/** Everything that the settings form holds. A seed or a length of null means that none was given. */
export interface Settings extends Omit<Sampling, "seed"> {
  seed: number | null;
  maxTokens: number | null;
}

type Name = keyof Settings;

interface Range {
  least: number;
  most: number;
  whole: boolean;
  key: string; // its name in a link
}

const RANGES: Record<Name, Range> = {
  temperature: { least: 0, most: 2, whole: false, key: "t" },
  topK: { least: 0, most: 200, whole: true, key: "k" },
  topP: { least: 0.05, most: 1, whole: false, key: "p" },
  minP: { least: 0, most: 0.5, whole: false, key: "m" },
  repetitionPenalty: { least: 1, most: 1.5, whole: false, key: "r" },
  seed: { least: 0, most: 2 ** 32 - 1, whole: true, key: "s" },
  maxTokens: { least: 1, most: 100_000, whole: true, key: "n" },
};
const NAMES = Object.keys(RANGES) as Name[];
const MOST_PROMPT_CHARACTERS = 20_000;

/** The defaults of `slmx generate`. */
export const DEFAULTS: Settings = {
  temperature: 0.9,
  topK: 40,
  topP: 0.95,
  minP: 0,
  repetitionPenalty: 1,
  seed: null,
  maxTokens: null,
};

/** Reads one setting; undefined if the text is not a number within its range, with two decimals at most. */
function readNumber(name: Name, text: string): number | undefined {
  const { least, most, whole } = RANGES[name];
  const value = Number(text);
  const isStep = whole ? Number.isInteger(value) : Number(value.toFixed(2)) === value;
  const fits = text.trim() !== "" && value >= least && value <= most && isStep;
  return fits ? value : undefined;
}

/** What a link holds. `ignored` lists the settings that were not usable. */
export interface Link {
  prompt: string;
  model: string | null;
  settings: Settings;
  ignored: string[];
}

/** Makes the fragment of a link. Settings that are equal to the defaults are left out. */
export function writeLink(prompt: string, model: string, settings: Settings): string {
  const values = new URLSearchParams({ prompt, model });
  for (const name of NAMES) {
    const value = settings[name];
    if (value !== null && value !== DEFAULTS[name]) values.set(RANGES[name].key, String(value));
  }
  return `#${values}`;
}

/** Reads the fragment of a link. It never fails: what is not usable is listed in `ignored`. Null if there is no link. */
export function readLink(fragment: string): Link | null {
  const values = new URLSearchParams(fragment.replace(/^#/, ""));
  const prompt = values.get("prompt");
  if (prompt === null) return null;
  const link: Link = { prompt, model: values.get("model"), settings: { ...DEFAULTS }, ignored: [] };
  if (prompt.length > MOST_PROMPT_CHARACTERS) {
    link.prompt = prompt.slice(0, MOST_PROMPT_CHARACTERS);
    link.ignored.push("the end of the text");
  }
  for (const name of NAMES) {
    const text = values.get(RANGES[name].key);
    if (text === null) continue;
    const value = readNumber(name, text);
    if (value === undefined) link.ignored.push(label(name));
    else link.settings[name] = value;
  }
  return link;
}

/** The name of a setting in a sentence. */
function label(name: Name): string {
  return { topK: "top-k", topP: "top-p", minP: "min-p", repetitionPenalty: "repetition penalty", maxTokens: "length", seed: "seed", temperature: "temperature" }[name];
}

/** The form with the settings. */
export class SettingsForm {
  private readonly form: HTMLFormElement;

  constructor(form: HTMLFormElement) {
    this.form = form;
    form.addEventListener("input", () => this.showValues());
    form.addEventListener("submit", (event) => event.preventDefault());
    form.querySelector("#defaults")?.addEventListener("click", () => this.fill(DEFAULTS));
    this.fill(DEFAULTS);
  }

  /** The settings that the form shows. A field with an impossible value counts as its default. */
  get values(): Settings {
    const settings = { ...DEFAULTS };
    for (const name of NAMES) {
      const value = readNumber(name, this.field(name).value);
      if (value !== undefined) settings[name] = value;
    }
    return settings;
  }

  /** The fields whose value is impossible, by their names in a sentence. */
  get impossible(): string[] {
    const wrong = (name: Name): boolean => {
      const field = this.field(name);
      return field.validity.badInput || (field.value !== "" && readNumber(name, field.value) === undefined);
    };
    return NAMES.filter(wrong).map(label);
  }

  /** How the words appear. */
  get pace(): Pace {
    return this.form.querySelector<HTMLSelectElement>("#pace")?.value === "instant" ? "instant" : "reading";
  }

  set pace(pace: Pace) {
    const select = this.form.querySelector<HTMLSelectElement>("#pace");
    if (select) select.value = pace;
  }

  /** Puts settings into the form. */
  fill(settings: Settings): void {
    for (const name of NAMES) {
      const value = settings[name];
      this.field(name).value = value === null ? "" : String(value);
    }
    this.showValues();
  }

  private field(name: Name): HTMLInputElement {
    const field = this.form.querySelector<HTMLInputElement>(`#${name}`);
    if (!field) throw new Error(`the page has no field ${name}`);
    return field;
  }

  private showValues(): void {
    const off: Partial<Record<Name, string>> = { topK: "0", topP: "1", minP: "0", repetitionPenalty: "1" };
    for (const name of NAMES) {
      const { value } = this.field(name);
      const output = this.form.querySelector<HTMLOutputElement>(`output[for="${name}"]`);
      const shown = value === off[name] ? "off" : name === "temperature" && value === "0" ? "0, the most likely word" : value;
      if (output) output.value = shown;
    }
  }
}
