/** Beginnings to click. */

const EXAMPLES = [
  "Once upon a time",
  "The little dragon could not sleep",
  "Lily found a key under the old tree",
  "One rainy day, Tom and his dog",
];

/**
 * Fills the list of examples.
 *
 * @param section The part of the page that holds the list.
 * @param choose Called with the example that a person clicks.
 */
export function showExamples(section: HTMLElement, choose: (example: string) => void): void {
  const list = section.querySelector("ul");
  for (const example of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = example;
    button.addEventListener("click", () => choose(example));
    const item = document.createElement("li");
    item.append(button);
    list?.append(item);
  }
}
