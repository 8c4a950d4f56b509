"use strict";
// The Hungarian algorithm of scratch/ops/hungarian.assign_by_potentials, line by line; each step is kept to be shown.
{
  const {make, draw, fill} = Play, given = Play.data("hungarian"),
    at = id => document.getElementById(`hungarian-${id}`);
  const number = x => (Math.round(x * 1000) / 1000 + 0).toString().replace("-", "−").replace("Infinity", "∞");
  const rowName = i => `row ${i}`, columnName = j => `column ${j}`;

  // cost: n rows of m numbers, n ≤ m → {columns, u, v, steps}.
  function hungarian(cost) {
    const n = cost.length, m = cost[0].length, u = Array(n).fill(0), v = Array(m).fill(0), owner = Array(m).fill(-1);
    const steps = [];
    const keep = (words, more) => steps.push({words, u: [...u], v: [...v], owner: [...owner], scanned: [], rows: [],
                                              distance: null, nearest: -1, path: [], added: -1,
                                                ...structuredClone(more)});
    keep(`All u and v are 0 and nothing is paired. Rows are added one by one.`, {});
    for (let added = 0; added < n; added++) {
      const distance = Array(m).fill(Infinity), previous = Array(m).fill(-1), scanned = Array(m).fill(false);
      const rows = [added];
      let row = added, here = -1;
      const path = j => { // the pairs of the path from the new row to column j
        const found = [];
        for (let c = j; c >= 0; c = previous[c]) found.unshift([previous[c] >= 0 ? owner[previous[c]] : added, c]);
        return found;
      };
      for (;;) {
        for (let j = 0; j < m; j++)
          if (!scanned[j]) {
            const step = cost[row][j] - u[row] - v[j];
            if (step < distance[j]) { distance[j] = step; previous[j] = here; }
          }
        here = -1;
        for (let j = 0; j < m; j++) if (!scanned[j] && (here < 0 || distance[j] < distance[here])) here = j;
        const delta = distance[here];
        const state = () => ({added, scanned, rows, distance, nearest: here, path: path(here)});
        keep(`${row === added ? `Row ${added} is new. What does each column cost it?`
          : `Row ${row} would have to move. Is a column nearer by way of it?`} The nearest is column ` +
          `${here}, at distance ` +
          `δ = ${number(delta)}${owner[here] < 0 ? ", and it is free." : `; row ${owner[here]} has it.`}`, state());
        u[added] += delta;
        for (let j = 0; j < m; j++)
          if (scanned[j]) { u[owner[j]] += delta; v[j] -= delta; } else distance[j] -= delta;
        const taken = owner[here] >= 0;
        if (delta !== 0 || taken)
          keep(`${delta === 0 ? "δ is 0, so u and v stay." : `u of the searching rows rises by δ = ${number(delta)}` +
            `${scanned.some(Boolean) ? `, v of the searched columns falls by as much` : ""}: column ${here} now has ` +
            `reduced cost 0.`}${taken ? ` Row ${owner[here]} has column ${here}: the search goes on from row ` +
            `${owner[here]}.` : ""}`, state());
        if (!taken) break;
        scanned[here] = true;
        row = owner[here];
        rows.push(row);
      }
      const found = path(here);
      while (here >= 0) {
        const before = previous[here];
        owner[here] = before >= 0 ? owner[before] : added;
        here = before;
      }
      keep(found.length === 1 ? `Row ${added} takes column ${found[0][1]}, which was free.`
        : `The augmenting path: ${found.map(([i, j]) => `row ${i} takes column ${j}`).join(", ")}.`,
           {added, rows, scanned, path: found});
    }
    const columns = Array(n).fill(-1);
    owner.forEach((i, j) => { if (i >= 0) columns[i] = j; });
    keep("All rows are paired. No reduced cost is negative, those of the pairs are 0, and unused columns have v = 0: " +
         "no assignment is cheaper.", {});
    return {columns, u, v, steps};
  }
  Play.hungarian = hungarian;

  const now = {cost: given.example.cost.map(row => [...row]), step: 0, solved: null};
  let fields = [];

  // The table is built once for a size; each step changes its words and colours alone, so that the cursor stays.
  function build() {
    const n = now.cost.length, m = now.cost[0].length, table = at("table");
    fields = now.cost.map((row, i) => row.map((value, j) => {
      const input = make("input", {type: "number", step: "any", value, "aria-label": `cost of row ${i}, column ${j}`});
      const field = {input, small: make("small"), cell: null};
      field.cell = make("td", {}, input, field.small);
      input.addEventListener("input", () => changed());
      return field;
    }));
    table.replaceChildren(
      make("thead", {}, make("tr", {}, make("td"),
        ...now.cost[0].map((_, j) => make("th", {scope: "col"}, `col. ${j}`)),
                             make("th", {scope: "col"}, "u"))),
      make("tbody", {}, ...fields.map((row, i) => make("tr", {}, make("th", {scope: "row"}, rowName(i)),
                                                       ...row.map(field => field.cell), make("td", {class: "u blue"}))),
           ...[["v", "v blue"], ["dist.", "distance"]].map(([name, kind]) =>
             make("tr", {}, make("th", {scope: "row"}, name),
             ...Array.from({length: m}, () => make("td", {class: kind})), make("td")))));
    solve();
  }

  function changed() {
    const wrong = [];
    now.cost = fields.map((row, i) => row.map(({input}, j) => {
      const good = input.value.trim() !== "" && Number.isFinite(Number(input.value))
        && Math.abs(Number(input.value)) <= 1e6;
      input.setAttribute("aria-invalid", String(!good));
      if (!good) 
        wrong.push(`row ${i}, column ${j}: got “${input.value}”, wanted a number from −1,000,000 to 1,000,000`);
      return Number(input.value);
    }));
    for (const id of ["first", "back", "next", "last", "step"]) at(id).disabled = wrong.length > 0;
    if (wrong.length) at("said").textContent = wrong.join("; ");
    else solve();
  }

  function solve() {
    now.solved = hungarian(now.cost);
    go(0);
  }

  function go(step) {
    const {steps} = now.solved;
    now.step = Math.min(steps.length - 1, Math.max(0, step));
    const s = steps[now.step], last = now.step === steps.length - 1;
    Object.assign(at("step"), {max: steps.length - 1, value: now.step});
    at("count").textContent = `step ${now.step} of ${steps.length - 1}`;
    at("first").disabled = at("back").disabled = now.step === 0;
    at("next").disabled = at("last").disabled = last;
    at("said").textContent = s.words;
    fields.forEach((row, i) => row.forEach(({cell, small}, j) => {
      const entered = i <= s.added || s.owner.includes(i) || last, reduced = now.cost[i][j] - s.u[i] - s.v[j];
      small.textContent = entered ? number(reduced) : "";
      cell.className = s.owner[j] === i ? "paired" : s.nearest === j && s.rows.includes(i) ? "nearest"
        : s.rows.includes(i) || s.scanned[j] ? "searched" : "";
    }));
    const cells = kind => [...at("table").querySelectorAll(`.${kind}`)];
    cells("u").forEach((cell, i) => { cell.textContent = number(s.u[i]); });
    cells("v").forEach((cell, j) => { cell.textContent = number(s.v[j]); });
    cells("distance").forEach((cell, j) =>
      { cell.textContent = s.distance ? (s.scanned[j] ? "done" : number(s.distance[j])) : ""; });
    const cost = s.owner.reduce((sum, i, j) => sum + (i >= 0 ? now.cost[i][j] : 0), 0);
    const bound = [...s.u, ...s.v].reduce((a, b) => a + b, 0);
    at("cost").textContent = number(cost);
    at("bound").textContent = number(bound);
    at("proof").textContent = last
      ? `Every assignment costs at least Σu + Σv = ${number(bound)}. This one costs just that.`
      : "u and v keep u + v ≤ cost everywhere, so no assignment of the rows so far can cost less than their sum.";
    graph(s);
  }

  // Rows above, columns below; pairs are green, the path is orange.
  function graph(s) {
    const svg = at("graph"), n = now.cost.length, m = now.cost[0].length, wide = 300, high = 150;
    const x = (k, count) => wide * (k + .5) / count, top = 26, bottom = 118;
    svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    svg.replaceChildren();
    const edge = (i, j, colour, dash) => svg.append(draw("line", {x1: x(i, n), y1: top, x2: x(j, m), y2: bottom,
      "stroke-width": 3, "stroke-dasharray": dash, style: `stroke:var(--${colour})`}));
    s.owner.forEach((i, j) => { if (i >= 0) edge(i, j, "green"); });
    for (const [i, j] of s.path) if (s.owner[j] !== i) edge(i, j, "orange", "6 4");
    const node = (cx, cy, words, colour) => svg.append(
      draw("circle", {cx, cy, r: 15, "stroke-width": 2, style: `fill:var(--paper);stroke:var(--${colour})`}),
      draw("text", {x: cx, y: cy + 4.5, "font-size": 13, "text-anchor": "middle"}, words));
    for (let i = 0; i < n; i++) node(x(i, n), top, String(i), s.rows.includes(i) ? "violet" : "blue");
    for (let j = 0; j < m; j++) node(x(j, m), bottom, String(j),
      s.nearest === j ? "orange" : s.scanned[j] ? "violet" : "soft");
    svg.append(draw("text", {x: 2, y: top - 16 + 6, "font-size": 11.5}, "rows"),
               draw("text", {x: 2, y: bottom + 30, "font-size": 11.5}, "columns"));
    const pairs = s.owner.flatMap((i, j) => i >= 0 ? [`row ${i} with column ${j}`] : []);
    svg.setAttribute("aria-label", `pairs: ${pairs.join(", ") || "none"}; path: ` +
      `${s.path.map(([i, j]) => `row ${i} to column ${j}`).join(", ") || "none"}`);
  }

  function size(n, m) {
    for (const [name, low, top, value] of [["rows", 2, 5, n], ["columns", n, 6, m]]) {
      at(name).replaceChildren(...Array.from({length: top - low + 1},
        (_, k) => make("option", {value: low + k}, String(low + k))));
      at(name).value = value;
    }
  }
  function random(n, m) {
    size(n, Math.max(n, m));
    now.cost = Array.from({length: n},
      () => Array.from({length: Math.max(n, m)}, () => Math.floor(Math.random() * 20) + 1));
    build();
  }
  for (const name of ["rows", "columns"])
    at(name).addEventListener("change", () => random(Number(at("rows").value), Number(at("columns").value)));
  at("random").addEventListener("click", () => random(now.cost.length, now.cost[0].length));
  at("example").addEventListener("click", example);
  function example() {
    now.cost = given.example.cost.map(row => [...row]);
    size(now.cost.length, now.cost[0].length);
    build();
  }
  at("first").addEventListener("click", () => go(0));
  at("back").addEventListener("click", () => go(now.step - 1));
  at("next").addEventListener("click", () => go(now.step + 1));
  at("last").addEventListener("click", () => go(now.solved.steps.length - 1));
  at("step").addEventListener("input", () => go(Number(at("step").value)));
  example();
}
