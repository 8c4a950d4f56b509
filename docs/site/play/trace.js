"use strict";
// One image from logits to gradients: the matcher and the criterion of scratch/objective, for three queries and two
// objects. The gradients are written out by hand here; a test compares them with automatic differentiation.
{
  const {make, draw, show, table, movable, corners, area, meet, around, compare, softmax} = Play;
  const given = Play.data("trace"), at = id => document.getElementById(`trace-${id}`);
  const {objects, weights} = given, Q = given.logits.length, M = given.true.length, K = objects.length;
  const now = {logits: null, boxes: null};

  // The gradient of GIoU by box one (cx, cy, w, h): IoU = s/u, GIoU = s/u − 1 + u/h.
  function giouGradient(one, two) {
    const a = corners(one), b = corners(two), {shared: s, union: u, hull: h} = compare(one, two);
    const inner = meet(a, b), outer = around(a, b);
    const byCorner = [0, 1, 2, 3].map(k => {
      const sideOf = box => box[k % 2 ? 2 : 3] - box[k % 2 ? 0 : 1]; // the other side's length
      const sign = k < 2 ? -1 : 1, own = sign * Math.max(sideOf(a), 0);
      const moves = k < 2 ? a[k] > b[k] : a[k] < b[k]; // does this edge of a bound the intersection?
      const ds = s > 0 && moves ? sign * sideOf(inner) : 0, dh = moves ? 0 : sign * sideOf(outer), du = own - ds;
      return (ds * u - s * du) / u ** 2 + (du * h - u * dh) / h ** 2;
    });
    const [x0, y0, x1, y1] = byCorner;
    return [x0 + x1, y0 + y1, (x1 - x0) / 2, (y1 - y0) / 2];
  }

  function objective(logits, boxes) {
    const p = logits.map(softmax);
    const parts = boxes.map((box, q) => given.true.map((truth, t) => {
      const {l1, giou} = compare(box, truth);
      return {p: p[q][t], l1, giou,
              cost: -weights.cost_class * p[q][t] + weights.cost_bbox * l1 - weights.cost_giou * giou};
    }));
    const ways = [];
    for (let a = 0; a < Q; a++) for (let b = 0; b < Q; b++)
      if (a !== b) ways.push({queries: [a, b], sum: parts[a][0].cost + parts[b][1].cost});
    const best = ways.reduce((x, y) => y.sum < x.sum ? y : x);
    const label = logits.map((_, q) => best.queries.includes(q) ? best.queries.indexOf(q) : K);
    const weight = label.map(k => k === K ? weights.eos_coef : 1), sum = weight.reduce((a, b) => a + b);
    const nll = p.map((row, q) => -Math.log(row[label[q]]));
    const loss_ce = nll.reduce((total, x, q) => total + weight[q] * x, 0) / sum;
    const pairs = best.queries.map((q, t) => parts[q][t]);
    const loss_bbox = pairs.reduce((total, {l1}) => total + l1, 0) / M;
    const loss_giou = pairs.reduce((total, {giou}) => total + 1 - giou, 0) / M;
    const total = weights.ce * loss_ce + weights.bbox * loss_bbox + weights.giou * loss_giou;
    const dlogits = p.map((row, q) => row.map((x, k) => weights.ce * weight[q] * (x - (k === label[q])) / sum));
    const dboxes = boxes.map((box, q) => {
      if (label[q] === K) return [0, 0, 0, 0];
      const truth = given.true[label[q]], slope = giouGradient(box, truth);
      return box.map((x, i) => (weights.bbox * Math.sign(x - truth[i]) - weights.giou * slope[i]) / M);
    });
    return {p, parts, ways, best, label, weight, sum, nll, loss_ce, loss_bbox, loss_giou, total, dlogits, dboxes};
  }
  Play.objective = objective;

  // ---- what is shown ----

  const names = [...objects, "no object"], colours = ["blue", "violet", "red"], wide = 320, high = 240, inputs = [];
  const svg = at("picture");
  svg.append(draw("rect", {width: wide, height: high, rx: 4, style: "fill:var(--paper);stroke:var(--line)"}));
  given.true.forEach(([cx, cy, w, h], t) => svg.append(
    draw("rect", {x: (cx - w / 2) * wide, y: (cy - h / 2) * high, width: w * wide, height: h * high,
      "stroke-width": 2.4,
                  style: "fill:var(--green);fill-opacity:.16;stroke:var(--green)"}),
    draw("text", {x: cx * wide, y: (cy + h / 2) * high + 17, "font-size": 14, "font-weight": 600,
      "text-anchor": "middle",
                  style: "fill:var(--green)"}, objects[t])));
  let place = [];
  at("logits").className = "logits";
  at("logits").append(make("span"), ...names.map(name => make("b", {}, name)));
  for (let q = 0; q < Q; q++) {
    at("logits").append(make("span", {class: colours[q]}, `query ${q}`));
    inputs.push(names.map((name, k) => {
      const input = make("input", {type: "range", min: -4, max: 4, step: .1,
        "aria-label": `query ${q}, logit of ${name}`});
      const words = make("output", {});
      input.addEventListener("input", () => { now.logits[q][k] = Number(input.value); showAll(); });
      at("logits").append(make("div", {}, input, words));
      return {input, words};
    }));
  }

  function showAll() {
    const o = objective(now.logits, now.boxes), queries = Array.from({length: Q}, (_, q) => `query ${q}`);
    place.forEach(each => each());
    inputs.forEach((row, q) => row.forEach(({input, words}, k) => {
      input.value = now.logits[q][k];
      words.textContent = `${show(now.logits[q][k], 1)}\n→ ${show(o.p[q][k])}`;
    }));
    table(at("costs"), ["pair", "−p", "L1", "GIoU", "cost"], o.parts.flatMap((row, q) => row.map((c, t) =>
      [`${q}, ${objects[t]}`, show(-c.p), show(c.l1), show(c.giou), show(c.cost)])),
          i => o.label[Math.floor(i / M)] === i % M ? "paired" : null);
    table(at("ways"), ["cat, dog", "sum of costs"], o.ways.map(({queries: [a, b], sum}) =>
      [`query ${a}, query ${b}`, show(sum)]), i => o.ways[i] === o.best ? "paired" : null);
    table(at("losses"), ["", "target", "weight w", "−log p"], o.label.map((k, q) =>
      [queries[q], names[k], String(o.weight[q]), show(o.nll[q])]));
    at("total").textContent = `loss_ce = ${show(o.loss_ce)}, loss_bbox = ${show(o.loss_bbox)}, loss_giou = ` +
      `${show(o.loss_giou)}; total = ${weights.ce}·${show(o.loss_ce)} + ${weights.bbox}·${show(o.loss_bbox)} + ` +
      `${weights.giou}·${show(o.loss_giou)} = ${show(o.total)}`;
    bar(o);
    const sign = rows => (i, j) => Math.abs(rows[i][j - 1]) < 5e-4 ? "soft" : rows[i][j - 1] < 0 ? "blue" : "orange";
    table(at("dlogits"), ["", ...names], o.dlogits.map((row, q) => [queries[q], ...row.map(x => show(x))]),
      sign(o.dlogits));
    table(at("dboxes"), ["", "cx", "cy", "w", "h"], o.dboxes.map((row, q) => [queries[q], ...row.map(x => show(x))]),
          sign(o.dboxes));
    const [cat, dog] = o.best.queries, rest = [0, 1, 2].find(q => q !== cat && q !== dog);
    at("said").textContent = `total = ${show(o.total)}. The cheapest pairs: cat with query ${cat}, dog with ` +
      `query ${dog}; query ${rest} is trained to say “no object”.`;
  }
  function bar(o) {
    const parts = [["1·loss_ce", weights.ce * o.loss_ce, "blue"], ["5·loss_bbox", weights.bbox * o.loss_bbox, "orange"],
                   ["2·loss_giou", weights.giou * o.loss_giou, "green"]], scale = 300 / Math.max(given.total, o.total);
    let x = 0;
    at("bar").setAttribute("viewBox", "0 0 300 46");
    at("bar").setAttribute("aria-label", parts.map(([name, v]) => `${name} ${show(v)}`).join(", "));
    at("bar").replaceChildren(...parts.flatMap(([name, v, colour], k) => {
      const from = x;
      x += v * scale;
      return [draw("rect", {x: from, y: 2, width: v * scale, height: 18, style: `fill:var(--${colour})`}),
              draw("rect", {x: 100 * k, y: 31, width: 10, height: 10, style: `fill:var(--${colour})`}),
              draw("text", {x: 100 * k + 14, y: 41, "font-size": 12.5}, name)];
    }));
  }
  function reset() {
    Object.assign(now, {logits: given.logits.map(row => [...row]), boxes: given.boxes.map(box => [...box])});
    if (!place.length)
      place = now.boxes.map((_, q) =>
        movable(svg, {name: `query ${q}`, colour: colours[q], wide, high, get: () => now.boxes[q],
                                                    set: box => { now.boxes[q] = box; showAll(); }}));
    showAll();
  }
  at("reset").addEventListener("click", reset);
  at("step").addEventListener("click", () => {
    const {dlogits, dboxes} = objective(now.logits, now.boxes);
    now.logits = now.logits.map((row, q) => row.map((z, k) => z - given.rates.logits * dlogits[q][k]));
    now.boxes = now.boxes.map((row, q) =>
      row.map((x, i) => Math.min(1, Math.max(.02, x - given.rates.boxes * dboxes[q][i]))));
    showAll();
  });
  reset();
}
