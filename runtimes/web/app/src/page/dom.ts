/** Elements of index.html. */

/** Finds an element of the page. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return found;
}

/** Shows or hides an element of the page. */
export function show(id: string, shown: boolean): void {
  element(id, HTMLElement).hidden = !shown;
}
