/** Short messages above the story, each with what to do about it. */

/** An action that a message offers. */
export interface Action {
  label: string;
  run: () => void;
}

/** The messages of the page. A message with the same key replaces the one before. */
export class Notices {
  private readonly element: HTMLElement;
  private readonly dismissed: () => void;

  /**
   * @param element The live region that holds the messages.
   * @param dismissed Called when a person has dismissed a message, to put the focus elsewhere.
   */
  constructor(element: HTMLElement, dismissed: () => void) {
    this.element = element;
    this.dismissed = dismissed;
  }

  /** Shows a message. Without an action it can be dismissed. */
  show(key: string, text: string, action?: Action): void {
    const notice = document.createElement("div");
    notice.className = "notice";
    notice.dataset["key"] = key;
    const paragraph = document.createElement("p");
    paragraph.textContent = text;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = action?.label ?? "OK";
    button.addEventListener("click", () => {
      if (action) return action.run();
      notice.remove();
      this.dismissed();
    });
    notice.append(paragraph, button);
    this.hide(key);
    this.element.append(notice);
  }

  /** Removes a message. */
  hide(key: string): void {
    for (const notice of [...this.element.children]) {
      if (notice instanceof HTMLElement && notice.dataset["key"] === key) notice.remove();
    }
  }
}
