"use strict";
(() => {
  const find = id => document.getElementById(id);
  const questions = [...document.querySelectorAll("article")];
  const { format, sheet } = document.body.dataset;
  const place = `${format} ${sheet}`;
  const sides = ["a", "same", "b"];

  const random = () => [...crypto.getRandomValues(new Uint8Array(8))].map(byte => byte.toString(16).padStart(2, "0")).join("");
  let state = { rater: random(), name: "", answers: {} };
  try {
    const kept = JSON.parse(localStorage.getItem(place));
    if (kept && typeof kept.rater === "string" && typeof kept.name === "string" && kept.answers && typeof kept.answers === "object") {
      state = kept;
    }
  } catch { /* the next line that keeps something tells it */ }

  const keep = () => {
    try {
      localStorage.setItem(place, JSON.stringify(state));
    } catch {
      find("unkept").hidden = false;
    }
  };
  const answered = () => questions.filter(one => state.answers[one.id]).length;
  const firstOpen = () => questions.findIndex(one => !state.answers[one.id]);
  const asked = number => number >= 0 && number < questions.length;
  let current = 0;

  const content = () => JSON.stringify({
    format, sheet, rater: state.rater, name: state.name,
    answers: Object.fromEntries(questions.filter(one => state.answers[one.id]).map(one => [one.id, state.answers[one.id]])),
  }, null, 1);

  const show = number => {
    current = number;
    const asks = asked(number);
    questions.forEach((one, index) => { one.hidden = index !== number; });
    find("end").hidden = asks;
    find("buttons").hidden = !asks;
    find("place").textContent = asks ? `${number + 1} of ${questions.length}` : `${answered()} of ${questions.length} answered`;
    find("bar").value = answered();
    find("back").disabled = number === 0;
    if (asks) {
      const answer = state.answers[questions[number].id];
      for (const side of sides) {
        find(side).setAttribute("aria-pressed", String(answer === side));
      }
      for (const box of questions[number].querySelectorAll(".side")) {
        box.classList.toggle("chosen", box.dataset.side === answer);
      }
      questions[number].focus({ preventScroll: true });
    } else {
      find("open").textContent = String(questions.length - answered());
      find("left").hidden = answered() === questions.length;
      find("copy").value = content();
      find("end").focus({ preventScroll: true });
    }
    scrollTo(0, 0);
  };
  const choose = side => {
    state.answers[questions[current].id] = side;
    keep();
    show(current + 1);
  };

  for (const side of sides) {
    find(side).addEventListener("click", () => choose(side));
  }
  find("back").addEventListener("click", () => show(current - 1));
  find("stop").addEventListener("click", () => show(questions.length));
  find("on").addEventListener("click", () => show(firstOpen()));
  find("again").addEventListener("click", () => show(questions.length - 1));
  find("name").value = state.name;
  find("name").addEventListener("input", event => {
    state.name = event.target.value.replace(/[\u0000-\u001f\u007f-\u009f\ud800-\udfff]/g, "");
    keep();
    find("copy").value = content();
  });
  find("save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content()], { type: "application/json" }));
    link.download = `ratings-${sheet}-${state.rater}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    find("saved").hidden = false;
  });
  const keys = { ArrowLeft: "a", ArrowRight: "b", 0: "same" };
  document.addEventListener("keydown", event => {
    if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea") || !asked(current)) {
      return;
    }
    if (event.key in keys) {
      event.preventDefault();
      choose(keys[event.key]);
    } else if (event.key === "Backspace" && current > 0) {
      show(current - 1);
    }
  });
  find("app").hidden = false;
  keep();
  const open = firstOpen();
  show(open < 0 ? questions.length : open);
})();
