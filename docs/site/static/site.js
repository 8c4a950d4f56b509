// Letters of shapes: point at one, or focus the first on the page, and its meaning shows; press one in the legend, and
// all its places light up. What scrolls sideways can be reached by keyboard.
"use strict";
(() => {
  // Furo has two side columns; their names tell them apart.
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");

  const meanings = new Map();
  for (const button of document.querySelectorAll(".letter")) {
    meanings.set(button.dataset.letter, button.closest("dt").nextElementSibling.textContent);
  }
  const dims = [...document.querySelectorAll(".dim")];

  const tip = document.createElement("div");
  tip.id = "tip";
  tip.role = "tooltip";
  tip.hidden = true;
  document.body.append(tip);

  function show(dim) {
    const meaning = meanings.get(dim.textContent);
    if (!meaning) return;
    tip.textContent = `${dim.textContent}: ${meaning}`;
    tip.hidden = false;
    const at = dim.getBoundingClientRect(), width = document.documentElement.clientWidth;
    tip.style.left = `${Math.max(8, Math.min(at.left, width - tip.offsetWidth - 8)) + window.scrollX}px`;
    const above = at.top - tip.offsetHeight - 6;
    tip.style.top = `${(above > 0 ? above : at.bottom + 6) + window.scrollY}px`;
  }
  const hide = () => { tip.hidden = true; };

  const seen = new Set();
  for (const dim of dims) {
    if (seen.has(dim.textContent) || !meanings.has(dim.textContent)) continue;
    seen.add(dim.textContent);
    dim.tabIndex = 0;
    dim.setAttribute("aria-describedby", "tip");
  }
  for (const [event, does] of [["pointerover", show], ["focusin", show], ["pointerout", hide], ["focusout", hide]]) {
    document.addEventListener(event, (happened) => {
      const dim = happened.target.closest?.(".dim");
      if (dim) does(dim);
    });
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  for (const button of document.querySelectorAll(".letter")) {
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const lit = button.getAttribute("aria-pressed") !== "true";
      for (const other of document.querySelectorAll(".letter")) other.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(lit));
      for (const dim of dims) dim.classList.toggle("lit", lit && dim.textContent === button.dataset.letter);
    });
  }

  function reachable() {
    for (const box of document.querySelectorAll("article pre, .table-wrapper, .drawing-svg, .widget")) {
      if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    }
  }
  reachable();
  addEventListener("resize", reachable);
})();
