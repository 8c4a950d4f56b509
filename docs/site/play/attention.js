"use strict";
// Attention maps of a trained detector: docs/site/play/attention.json, which `explain`'s own code measured.
{
  const {make, draw, table, show} = Play, given = Play.data("attention"),
    at = id => document.getElementById(`attention-${id}`);
  const now = {picture: 0, look: "detection", detection: 0, layer: 1, head: 0, cell: 0}, svg = at("picture"),
    wide = 320;
  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  for (const picture of given.pictures) Object.assign(picture,
    {cross: bytes(picture.cross), cells: bytes(picture.cells)});
  const percent = share => `${share < .1 ? show(100 * share, 1) : show(100 * share, 0)} %`;
  const picture = () => given.pictures[now.picture];

  // The map of a detection in a decoder layer (1 …): of head 1 …, or (0) the mean of all heads; a share for each cell.
  function crossMap(d, layer, head) {
    const {cross, peaks, layers, heads, grid: [h, w]} = picture(), S = h * w;
    const one = n => {
      const k = (d * layers + layer - 1) * heads + n;
      return Array.from(cross.subarray(k * S, (k + 1) * S), byte => byte / 255 * peaks[k]);
    };
    if (head) return one(head - 1);
    const all = Array.from({length: heads}, (_, n) => one(n));
    return all[0].map((_, s) => all.reduce((sum, map) => sum + map[s], 0) / heads);
  }
  function cellMap(cell) {
    const {cells, cell_peaks: peaks} = picture(), S = peaks.length;
    return Array.from(cells.subarray(cell * S, (cell + 1) * S), byte => byte / 255 * peaks[cell]);
  }
  // The share of a map's attention in the cells whose centres lie in a box (x0, y0, x1, y1).
  function inside(map, [h, w], [x0, y0, x1, y1]) {
    const total = map.reduce((a, b) => a + b);
    return map.reduce((sum, share, k) => {
      const x = (k % w + .5) / w, y = (Math.floor(k / w) + .5) / h;
      return sum + (x0 < x && x < x1 && y0 < y && y < y1 ? share : 0);
    }, 0) / total;
  }
  const boxOf = (detection, layer) => detection.boxes[picture().steps.indexOf(layer)] ?? detection.boxes.at(-1);

  function paint(map, [h, w], high) {
    const peak = Math.max(...map), cells = draw("g", {"aria-hidden": "true"});
    map.forEach((share, k) => {
      if (share / peak > .01)
        cells.append(draw("rect", {x: k % w * wide / w, y: Math.floor(k / w) * high / h, width: wide / w + .3,
          height: high / h + .3, fill: "#ffd34d", "fill-opacity": (.92 * (share / peak) ** .8).toFixed(3)}));
    });
    svg.append(cells);
    return peak;
  }
  const outline = ([x0, y0, x1, y1], high, colour, thick, dash) => {
    for (const [stroke, more] of [["#000000", 2.4], [colour, 0]])
      svg.append(draw("rect", {x: x0 * wide, y: y0 * high, width: (x1 - x0) * wide, height: (y1 - y0) * high,
        fill: "none",
                               stroke, "stroke-width": thick + more, "stroke-dasharray": dash}));
  };

  function showAll() {
    const p = picture(), [width, height] = p.size, high = wide * height / width, ofCell = now.look === "cell";
    for (const name of ["detection", "layer", "head"]) at(name).hidden = ofCell;
    at("shares").hidden = ofCell;
    svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    svg.replaceChildren(draw("image", {href: `data:image/jpeg;base64,${p.jpeg}`, width: wide, height: high,
                                       preserveAspectRatio: "none", style: "filter:grayscale(1) brightness(.55)"}));
    for (const input of document.querySelectorAll("#attention input"))
      input.checked = String(now[input.name.replace("attention-", "")]) === input.value;
    if (ofCell) {
      const [h, w] = p.cell_grid, map = cellMap(now.cell), peak = paint(map, p.cell_grid, high);
      const row = Math.floor(now.cell / w), column = now.cell % w;
      p.detections.forEach(d => outline(d.boxes.at(-1), high, "#ffffff", 1, "4 3"));
      outline([column / w, row / h, (column + 1) / w, (row + 1) / h], high, "#6cc4ff", 2.4);
      at("said").textContent = `Encoder, last layer, mean of the heads, from the cell in row ${row}, column ` +
        `${column}: the brightest cell has ${percent(peak)} of its attention; evenly spread each of ` +
        `${h * w} cells would have ${percent(1 / (h * w))}.`;
      return;
    }
    const d = p.detections[now.detection], map = crossMap(now.detection, now.layer, now.head),
      box = boxOf(d, now.layer);
    const peak = paint(map, p.grid, high);
    p.detections.forEach((other, k) =>
      { if (k !== now.detection) outline(boxOf(other, now.layer), high, "#ffffff", 1, "4 3"); });
    outline(box, high, "#6cc4ff", 2.6);
    at("said").textContent = `${d.name}, score ${show(d.score, 2)} (query ${d.query}), decoder layer ${now.layer}, ` +
      `${now.head ? `head ${now.head}` : "mean of the heads"}: ${percent(inside(map, p.grid,
        box))} of the attention lies ` +
      `inside the box; the brightest cell has ${percent(peak)}.`;
    table(at("table"), ["", "mean", ...Array.from({length: p.heads}, (_, n) => String(n + 1))],
          Array.from({length: p.layers}, (_, l) => [`layer ${l + 1}`, ...Array.from({length: p.heads + 1}, (_, n) =>
            percent(inside(crossMap(now.detection, l + 1, n), p.grid, boxOf(d, l + 1))))]),
          (i, j) => i === now.layer - 1 && j - 1 === now.head ? "chosen" : null);
    const [x0, y0, x1, y1] = d.boxes.at(-1);
    at("area").textContent = `The box covers ${percent((x1 - x0) * (y1 - y0))} of the picture.`;
  }

  function radios(name, values, words) {
    const row = at(name).querySelector(".row") ?? at(name);
    row.replaceChildren(...values.map((value, k) => {
      const input = make("input", {type: "radio", name: `attention-${name.replace("pictures", "picture")}`, value});
      input.addEventListener("change", () => choose({[name.replace("pictures", "picture")]: value}));
      return make("label", {class: "check"}, input, words[k]);
    }));
  }
  function choose(change) {
    Object.assign(now, change);
    const p = picture();
    if ("picture" in change) {
      Object.assign(now, {detection: 0, layer: p.layers, head: 0,
                          cell: Math.floor(p.cell_grid[0] / 2) * p.cell_grid[1] + Math.floor(p.cell_grid[1] / 2)});
      radios("detection", p.detections.map((_, k) => k), p.detections.map(d => `${d.name} ${show(d.score, 2)}`));
      radios("layer", Array.from({length: p.layers}, (_, l) => l + 1),
        Array.from({length: p.layers}, (_, l) => String(l + 1)));
      radios("head", Array.from({length: p.heads + 1}, (_, n) => n),
             ["mean", ...Array.from({length: p.heads}, (_, n) => String(n + 1))]);
    }
    showAll();
  }
  svg.addEventListener("click", event => {
    const area = svg.getBoundingClientRect(), p = picture(), [h, w] = p.cell_grid;
    const x = (event.clientX - area.left) / area.width, y = (event.clientY - area.top) / area.height;
    if (now.look === "cell")
      choose({cell: Math.min(h - 1, Math.floor(y * h)) * w + Math.min(w - 1, Math.floor(x * w))});
    else { // the smallest box around the place
      const hit = p.detections.map((d, k) => [k, d.boxes.at(-1)])
        .filter(([, [x0, y0, x1, y1]]) => x0 < x && x < x1 && y0 < y && y < y1)
        .sort(([, a], [, b]) => (a[2] - a[0]) * (a[3] - a[1]) - (b[2] - b[0]) * (b[3] - b[1]));
      if (hit.length) choose({detection: hit[0][0]});
    }
  });
  svg.addEventListener("keydown", event => {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!step) return;
    event.preventDefault();
    const p = picture(), [h, w] = p.cell_grid, count = p.detections.length;
    if (now.look === "detection") choose({detection: (now.detection + step[0] + step[1] + count) % count});
    else choose({cell: Math.min(h - 1, Math.max(0, Math.floor(now.cell / w) + step[0])) * w +
                       Math.min(w - 1, Math.max(0, now.cell % w + step[1]))});
  });
  for (const input of document.querySelectorAll("[name=attention-look]"))
    input.addEventListener("change", () => choose({look: input.value}));
  radios("pictures", given.pictures.map((_, k) => k), given.pictures.map((_, k) => String(k + 1)));
  at("pictures").closest("fieldset").hidden = given.pictures.length < 2;
  choose({picture: 0});
}
