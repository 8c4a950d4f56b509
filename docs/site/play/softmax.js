"use strict";
// Weights with and without √d. All numbers come from scratch/ops: this script only shows them.
{
  const {draw, show} = Play, given = Play.data("softmax"), at = id => document.getElementById(`softmax-${id}`);
  const now = {d: given.widths.indexOf(64), query: 0};
  const colours = {raw: "orange", scaled: "blue"};

  function bars(kind, weights) {
    const svg = at(kind), wide = 300, tall = 150, step = wide / weights.length;
    svg.setAttribute("viewBox", `-26 -6 ${wide + 28} ${tall + 12}`);
    svg.setAttribute("aria-label",
      `${weights.length} weights as bars; the largest is ${show(Math.max(...weights), 2)}`);
    svg.replaceChildren(...[0, .5, 1].flatMap(v => [
      draw("line", {x1: 0, x2: wide, y1: tall * (1 - v), y2: tall * (1 - v), "stroke-width": .7,
        style: "stroke:var(--line)"}),
      draw("text", {x: -5, y: tall * (1 - v) + 4, "font-size": 11.5, "text-anchor": "end"}, String(v))]),
      ...weights.map((p, i) => draw("rect", {x: i * step + .3, y: tall * (1 - p), width: step - .6, height: tall * p,
                                             style: `fill:var(--${colours[kind]})`})));
  }

  function curves(name, words) {
    const svg = at(name), wide = 290, tall = 130, last = given.widths.length - 1, x = i => wide * i / last;
    svg.setAttribute("viewBox", `-30 -8 ${wide + 44} ${tall + 34}`);
    svg.setAttribute("aria-label",
      `${words} over d: without √d ${given.means.raw[name].map(v => show(v, 2)).join(", ")}; ` +
      `with √d ${given.means.scaled[name].map(v => show(v, 2)).join(", ")}`);
    svg.replaceChildren(...[0, .5, 1].flatMap(v => [
      draw("line", {x1: 0, x2: wide, y1: tall * (1 - v), y2: tall * (1 - v), "stroke-width": .7,
        style: "stroke:var(--line)"}),
      draw("text", {x: -6, y: tall * (1 - v) + 4, "font-size": 11.5, "text-anchor": "end"}, String(v))]),
      ...given.widths.flatMap((d, i) => i % 3 ? [] : [draw("text", {x: x(i), y: tall + 17, "font-size": 11.5,
                                                                    "text-anchor": "middle"}, i ? d : `d = ${d}`)]),
      draw("line", {x1: x(now.d), x2: x(now.d), y1: 0, y2: tall, "stroke-width": 1, "stroke-dasharray": "3 3",
                    style: "stroke:var(--soft)"}));
    for (const [kind, colour] of Object.entries(colours)) {
      const values = given.means[kind][name];
      svg.append(draw("polyline", {points: values.map((v, i) => `${x(i)},${tall * (1 - v)}`).join(" "),
        "stroke-width": 2.2,
                                   style: `fill:none;stroke:var(--${colour})`}),
                 draw("circle", {cx: x(now.d), cy: tall * (1 - values[now.d]), r: 4.5, style: `fill:var(--${colour})`}),
                 draw("text", {x: Math.min(wide - 16, Math.max(16, x(now.d))), "font-size": 12, "font-weight": 600,
                               "text-anchor": "middle", y: tall * (1 - values[now.d]) + (values[now.d] > .9 ? 18 : -8),
                               style: `fill:var(--${colour})`}, show(values[now.d], 2)));
    }
  }

  function showAll() {
    const d = given.widths[now.d], row = given.rows[now.query][now.d];
    at("name").textContent = d;
    at("d").setAttribute("aria-valuetext", `d = ${d}`);
    for (const kind of ["raw", "scaled"]) {
      bars(kind, row[kind].weights);
      at(`${kind}-most`).textContent = show(row[kind].most, 2);
      at(`${kind}-slope`).textContent = show(row[kind].slope, 2);
    }
    curves("most", "the largest weight");
    curves("slope", "the size of the gradient");
    const {raw, scaled} = given.means;
    at("said").textContent = `d = ${d}, ${given.keys} keys: without √d the largest weight is ` +
      `${show(raw.most[now.d], 2)} on average and Σ P(1 − P) ${show(raw.slope[now.d], 2)}; ` +
      `with √d ${show(scaled.most[now.d], 2)} and ${show(scaled.slope[now.d], 2)}.`;
  }
  Object.assign(at("d"), {max: given.widths.length - 1, value: now.d});
  at("d").addEventListener("input", () => { now.d = Number(at("d").value); showAll(); });
  at("other").addEventListener("click", () => { now.query = (now.query + 1) % given.rows.length; showAll(); });
  showAll();
}
