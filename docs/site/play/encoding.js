"use strict";
// Choose a cell: how like it are the positional encodings of the others? The dot product of two encodings is the sum
// of a part for y and a part for x; both come from scratch/ops/sine_encoding.
{
  const {draw, make, show} = Play, given = Play.data("encoding"), [h, w] = given.grid, size = 20;
  const at = id => document.getElementById(`encoding-${id}`);
  const now = {T: 20, row: 4, column: 5, range: "whole"};

  const like = (i, j) => { // 1 for the cell itself
    const part = given.parts[now.T];
    return (part.y[now.row][i] + part.x[now.column][j]) / 2;
  };
  Play.likeness = (T, row, column) => { // for the tests: all cells, row by row
    Object.assign(now, {T, row, column});
    return Array.from({length: h * w}, (_, n) => like(Math.floor(n / w), n % w));
  };
  const tint = v => v >= 0 ? ["blue", v] : ["orange", -v];

  const map = at("map"), cells = [];
  map.setAttribute("viewBox", `-2 -2 ${w * size + 4} ${h * size + 4}`);
  for (let n = 0; n < h * w; n++) {
    const cell = draw("rect", {x: n % w * size, y: Math.floor(n / w) * size, width: size, height: size,
      "stroke-width": .5,
                               style: "stroke:var(--line)", cursor: "pointer"});
    cell.addEventListener("click", () => choose(Math.floor(n / w), n % w));
    cells.push(cell);
  }
  const ring = draw("rect", {width: size - 2, height: size - 2, rx: 3, "stroke-width": 3, "pointer-events": "none",
                             style: "fill:none;stroke:var(--ink)"});
  map.append(...cells, ring);
  map.addEventListener("keydown", event => {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!step) return;
    event.preventDefault();
    choose(now.row + step[0], now.column + step[1]);
  });

  function lines() {
    const svg = at("lines"), wide = 290, tall = 170, y = v => tall * (1 - v) / 2;
    svg.setAttribute("viewBox", `-30 -6 ${wide + 34} ${tall + 28}`);
    svg.replaceChildren(...[-1, -.5, 0, .5, 1].flatMap(v => [
      draw("line", {x1: 0, x2: wide, y1: y(v), y2: y(v), "stroke-width": .7, style: "stroke:var(--line)"}),
      draw("text", {x: -6, y: y(v) + 4, "font-size": 11.5, "text-anchor": "end"}, show(v, 1).replace(".0", ""))]),
      draw("text", {x: 0, y: tall + 18, "font-size": 11.5}, "one edge of the image"),
      draw("text", {x: wide, y: tall + 18, "font-size": 11.5, "text-anchor": "end"}, "the other"));
    for (const [values, chosen, colour] of [
      [Array.from({length: w}, (_, j) => like(now.row, j)), now.column, "blue"],
      [Array.from({length: h}, (_, i) => like(i, now.column)), now.row, "orange"]]) {
      const x = k => wide * (k + .5) / values.length;
      svg.append(draw("polyline", {points: values.map((v, k) => `${x(k)},${y(v)}`).join(" "), "stroke-width": 2.2,
                                   style: `fill:none;stroke:var(--${colour})`}),
                 draw("circle", {cx: x(chosen), cy: y(1), r: 4.5, style: `fill:var(--${colour})`}));
    }
    svg.setAttribute("aria-label", `likeness along the row, from ${show(like(now.row, 0), 2)} at the left edge ` +
      `over 1 at the cell to ${show(like(now.row, w - 1), 2)} at the right edge`);
  }

  function code() {
    const svg = at("code"), {y, x} = given.codes[now.T], step = 640 / 128;
    svg.setAttribute("viewBox", "0 0 640 84");
    svg.replaceChildren(...[y[now.row], x[now.column]].flatMap((values, line) => [
      ...values.map((v, k) => {
        const [colour, strong] = tint(v);
        return draw("rect", {x: k * step, y: line * 42, width: step, height: 34,
                             style: `fill:var(--${colour});fill-opacity:${show(.9 * strong, 2)}`});
      })]));
  }

  function showAll() {
    const all = Array.from({length: h * w}, (_, n) => like(Math.floor(n / w), n % w));
    const low = Math.min(...all), own = now.range === "own";
    cells.forEach((cell, n) => {
      const [colour, strong] = own ? ["blue", (all[n] - low) / (1 - low || 1)] : tint(all[n]);
      cell.style.fill = `var(--${colour})`;
      cell.style.fillOpacity = (.04 + .92 * strong).toFixed(3);
    });
    ring.setAttribute("x", now.column * size + 1);
    ring.setAttribute("y", now.row * size + 1);
    lines();
    code();
    const share = all.filter(v => v > .9).length;
    at("legend").textContent = own ? `Full blue is 1, no colour is ${show(low, 2)}.`
      : "Full blue is 1, no colour is 0, full orange is −1.";
    at("said").textContent = `Cell in row ${now.row}, column ${now.column}, T = ` +
      `${now.T.toLocaleString("en")}: the dot product with itself counts as 1. ` +
      `The least like cell has ${show(low, 3)}; ${share} of ${h * w} cells have more than 0.9.`;
  }
  function choose(row, column) {
    now.row = Math.min(h - 1, Math.max(0, row));
    now.column = Math.min(w - 1, Math.max(0, column));
    showAll();
  }
  for (const T of given.temperatures) {
    const input = make("input", {type: "radio", name: "encoding-temperature", value: T});
    input.checked = T === now.T;
    input.addEventListener("change", () => { now.T = T; showAll(); });
    at("temperatures").append(make("label", {class: "check"}, input, T.toLocaleString("en")));
  }
  for (const input of document.querySelectorAll("[name=encoding-range]"))
    input.addEventListener("change", () => { now.range = input.value; showAll(); });
  showAll();
}
