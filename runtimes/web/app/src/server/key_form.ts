/** The form that asks for the key of the server. */

/** Asks a person for a key. */
export interface KeyAsker {
  /**
   * Asks, and waits for the answer. The form stays until `close`.
   *
   * @param isWrong Whether the last key was wrong.
   * @param signal Ends the waiting; the promise is then rejected with its reason.
   */
  ask(isWrong: boolean, signal: AbortSignal): Promise<string>;
  /** Removes the form. */
  close(): void;
}

const NEEDED = "This server needs a key. It is kept until you close this tab.";
const WRONG = "This key is wrong. Type it again.";

/** A form inside the page. It is there only while a key is asked for. */
export class KeyForm implements KeyAsker {
  private readonly next: HTMLElement;
  private readonly afterwards: HTMLElement;
  private readonly form = document.createElement("form");
  private readonly why = document.createElement("p");
  private readonly field = document.createElement("input");
  private readonly button = document.createElement("button");

  /**
   * @param next The element before which the form stands.
   * @param afterwards The element that has the focus when the form is gone.
   */
  constructor(next: HTMLElement, afterwards: HTMLElement) {
    this.next = next;
    this.afterwards = afterwards;
    const label = document.createElement("label");
    label.htmlFor = this.field.id = "key";
    label.textContent = "Key of the server";
    this.why.id = "key-why";
    const { field } = this;
    Object.assign(field, { type: "password", autocomplete: "off", autocapitalize: "off", spellcheck: false, required: true });
    field.setAttribute("aria-describedby", this.why.id);
    this.button.className = "primary";
    this.button.textContent = "Use key";
    const row = document.createElement("div");
    row.className = "row";
    row.append(field, this.button);
    this.form.id = "key-form";
    this.form.append(label, this.why, row);
  }

  ask(isWrong: boolean, signal: AbortSignal): Promise<string> {
    const { form, field, why, button } = this;
    why.textContent = isWrong ? WRONG : NEEDED;
    if (isWrong) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
    field.value = "";
    button.disabled = false;
    if (!form.isConnected) this.next.before(form);
    field.focus();
    return new Promise((resolve, reject) => {
      form.onsubmit = (event) => {
        event.preventDefault();
        const key = field.value.trim();
        if (key === "" || button.disabled) return;
        button.disabled = true;
        resolve(key);
      };
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  close(): void {
    if (!this.form.isConnected) return;
    this.field.value = "";
    this.form.remove();
    this.afterwards.focus();
  }
}
