"use strict";
(() => {
  const MB = 1e6;
  const models = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("choice");
  const rows = [...document.querySelectorAll("#models tbody tr")];
  const figures = [...document.querySelectorAll("figure[data-measure]")];
  const limits = [...form.querySelectorAll(".limit")];
  // An empty field sets no limit.
  const limit = (name, none) => {
    const field = document.getElementById(name);
    return field === null || Number.isNaN(field.valueAsNumber) ? none : field.valueAsNumber;
  };
  const mark = (element, isOut, isFirst) => {
    element.classList.toggle("out", isOut);
    element.classList.toggle("first", isFirst);
  };

  // The rule is that of `best` in choice.py.
  const choose = () => {
    const measure = form.elements.measure?.value ?? figures[0].dataset.measure;
    const most = limit("size", Infinity) * MB;
    const least = limit("speed", 0);
    const fit = models.filter((model) => model.size <= most && model.speed >= least);
    const better = (one, other) => one.loss[measure] - other.loss[measure] || one.size - other.size;
    const first = fit.reduce((found, model) => (found === null || better(model, found) < 0 ? model : found), null);
    const told = `${fit.length} of ${models.length} models qualify.`;
    document.getElementById("best").textContent =
      first === null ? told : `${told} The best figure is that of ${first.told[measure]}.`;
    models.forEach((model, number) => {
      const isOut = !fit.includes(model);
      mark(rows[number], isOut, model === first);
      for (const part of ["point", "name", "ring"]) {
        for (const element of document.querySelectorAll(`[id$="-${part}-${number}"]`)) {
          mark(element, isOut, model === first);
        }
      }
    });
    for (const figure of figures) {
      figure.hidden = figure.dataset.measure !== measure;
    }
  };

  for (const box of limits) {
    const [field, slider] = box.querySelectorAll("input");
    slider.addEventListener("input", () => {
      field.value = slider.value;
      choose();
    });
    field.addEventListener("input", () => {
      if (!Number.isNaN(field.valueAsNumber)) slider.value = field.value;
      choose();
    });
  }
  form.addEventListener("change", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  choose();
})();
