"use strict";
// A window walks over an image. The image, the filters and every output come from scratch/ops/conv2d; which pixel a
// window sees is worked out here by the formula of scratch/ops/windows: i·s + u·d − p.
{
  const {draw, fill, show} = Play, given = Play.data("window"), H = given.image.length;
  const at = id => document.getElementById(`window-${id}`);
  const now = {k: 3, s: 1, p: 1, d: 1, pixel: 0, tap: 4};
  const key = () => [now.k, now.s, now.p, now.d].join(" ");

  // What window n sees, tap by tap: [row, column, value]; outside the image the value is 0.
  function column(n) {
    const {k, s, p, d} = now, width = given.outputs[key()][0].length, i = Math.floor(n / width), j = n % width;
    return Array.from({length: k * k}, (_, tap) => {
      const row = i * s + Math.floor(tap / k) * d - p, col = j * s + (tap % k) * d - p;
      return [row, col, given.image[row]?.[col] ?? 0];
    });
  }
  Play.columns = settings => { // for the tests: the whole matrix, k² rows
    Object.assign(now, settings);
    const count = given.outputs[key()].flat().length, all = Array.from({length: count}, (_, n) => column(n));
    return Array.from({length: now.k ** 2}, (_, tap) => all.map(c => c[tap][2]));
  };

  const cell = (x, y, size, words, style, extra = {}) => draw("g", extra,
    draw("rect", {x, y, width: size, height: size, "stroke-width": .6, style: `stroke:var(--line);${style}`}),
    ...(words === null ? [] : [draw("text",
      {x: x + size / 2, y: y + size * .64, "font-size": size * (words.length > 2 ? .36 : .42),
                                             "text-anchor": "middle"}, words)]));
  const outline = (x, y, w, h, colour) => draw("rect", {x, y, width: w, height: h, rx: 2, "stroke-width": 2.4,
    style: `fill:none;stroke:var(--${colour})`});
  const shade = v => v === 0 ? "fill:none" : `fill:var(--blue);fill-opacity:${(.08 + .5 * Math.abs(v) / 9).toFixed(3)}`;

  function showAll() {
    const {k, p} = now, output = given.outputs[key()], width = output[0].length, count = output.length * width;
    now.pixel = Math.min(now.pixel, count - 1);
    now.tap = Math.min(now.tap, k * k - 1);
    for (const [name, most, value] of [["at", count - 1, now.pixel], ["tap", k * k - 1, now.tap]])
      Object.assign(at(name), {max: most, value, disabled: most === 0});
    const seen = column(now.pixel), filter = given.filters[k].flat(), y = output.flat();

    const most = Math.max(...y.map(Math.abs), 1);
    const signed = v => `fill:var(--${v < 0 ? "orange" : "blue"});fill-opacity:${(.5 * Math.abs(v) / most).toFixed(3)}`;

    // the image, with its padding
    const side = H + 2 * p, size = 30, image = at("image");
    image.setAttribute("viewBox", `-2 -2 ${side * size + 4} ${side * size + 4}`);
    image.style.maxWidth = `${side * 38}px`;
    image.replaceChildren();
    for (let r = -p; r < H + p; r++) for (let c = -p; c < H + p; c++) {
      const v = given.image[r]?.[c], hit = seen.findIndex(([a, b]) => a === r && b === c);
      const style = v === undefined ? "fill:var(--soft);fill-opacity:.16;stroke-dasharray:2 2" : shade(v);
      image.append(cell((c + p) * size, (r + p) * size, size, String(v ?? 0), style));
      if (hit >= 0) image.append(draw("rect", {x: (c + p) * size + 2, y: (r + p) * size + 2, width: size - 4,
        height: size - 4, rx: 3, "stroke-width": hit === now.tap ? 3.2 : 2,
        style: `fill:none;stroke:var(--${hit === now.tap ? "green" : "orange"})`}));
    }

    // the output; a click chooses a pixel
    const out = at("output"), cellsize = 34;
    out.setAttribute("viewBox", `-2 -2 ${width * cellsize + 4} ${output.length * cellsize + 4}`);
    out.style.maxWidth = `${width * 42}px`;
    out.replaceChildren();
    y.forEach((v, n) => {
      const g = cell(n % width * cellsize, Math.floor(n / width) * cellsize, cellsize, show(v, 0),
                     signed(v), {cursor: "pointer"});
      g.addEventListener("click", () => choose(n));
      out.append(g);
    });
    out.append(outline(now.pixel % width * cellsize + 1, Math.floor(now.pixel / width) * cellsize + 1, cellsize - 2,
                       cellsize - 2, "orange"));

    // filter (a row), times the matrix, gives the output (a row)
    const matrix = at("matrix"), w = Math.min(26, 560 / count), h = 20, left = 96;
    const wide = left + count * w + 8, tall = (k * k + 2) * h + 18;
    matrix.setAttribute("viewBox", `0 -2 ${wide} ${tall + 4}`);
    matrix.style.maxWidth = `${wide * 1.15}px`;
    matrix.style.minWidth = `${Math.min(wide, 620)}px`;
    matrix.replaceChildren();
    const words = (x, y, text, colour = "ink", anchor = "middle") => matrix.append(draw("text", {
      x, y, "font-size": 11.5, "text-anchor": anchor, style: `fill:var(--${colour})`}, text));
    words(34, 10, "filter", "soft"); words(74, 10, "window", "orange");
    for (let tap = 0; tap < k * k; tap++) {
      const top = 18 + tap * h;
      words(34, top + h * .72, show(filter[tap], 0));
      words(56, top + h * .72, "·", "soft");
      words(74, top + h * .72, String(seen[tap][2]), tap === now.tap ? "green" : "orange");
    }
    for (let n = 0; n < count; n++) {
      const col = column(n);
      for (let tap = 0; tap < k * k; tap++) {
        const g = draw("rect", {x: left + n * w, y: 18 + tap * h, width: w, height: h, "stroke-width": .4,
          cursor: "pointer",
                                style: `stroke:var(--line);${shade(col[tap][2])};pointer-events:all`});
        g.addEventListener("click", () => { now.tap = tap; choose(n); });
        matrix.append(g);
        if (w >= 14) matrix.append(draw("text", {x: left + (n + .5) * w, y: 18 + (tap + .7) * h, "font-size": 11,
          "text-anchor": "middle", "pointer-events": "none"}, String(col[tap][2])));
      }
    }
    matrix.append(outline(left, 18 + now.tap * h, count * w, h, "green"),
                  outline(left + now.pixel * w, 18, w, k * k * h, "orange"));
    words(left - 22, 26 + k * k * h + h * .6, show(y[now.pixel], 0), "ink");
    words(34, 26 + k * k * h + h * .6, "y =", "soft");
    y.forEach((v, n) => {
      matrix.append(draw("rect", {x: left + n * w, y: 24 + k * k * h, width: w, height: h, "stroke-width": .4,
                                  style: `stroke:var(--line);${signed(v)}`}));
      if (w >= 22) words(left + (n + .5) * w, 24 + k * k * h + h * .7, show(v, 0));
    });
    matrix.append(outline(left + now.pixel * w, 24 + k * k * h, w, h, "orange"));

    at("shape").textContent = `(1, ${k * k}) times (${k * k}, ${count}) = (1, ${count}): H′ = ⌊(${H} + 2·${p} − ` +
      `${now.d}·(${k} − 1) − 1)/${now.s}⌋ + 1 = ${output.length}`;
    const sum = seen.map(([, , v], tap) => [filter[tap], v]).filter(([f]) => f !== 0)
      .map(([f, v], i) => `${i ? (f < 0 ? " − " : " + ") : (f < 0 ? "−" : "")}${Math.abs(f)}·${v}`).join("");
    at("said").textContent = `y[${Math.floor(now.pixel / width)}, ${now.pixel % width}] = ${sum || "0"} = ` +
      `${show(y[now.pixel], 0)}. Tap ${now.tap} sees row ${show(seen[now.tap][0], 0)}, ` +
      `column ${show(seen[now.tap][1], 0)}` +
      `${given.image[seen[now.tap][0]]?.[seen[now.tap][1]] === undefined ? ": padding, which counts as 0" : ""}.`;
    at("back").disabled = now.pixel === 0;
  }

  function choose(n) {
    const count = given.outputs[key()].flat().length, view = at("matrix").parentElement;
    now.pixel = (n + count) % count;
    showAll();
    view.scrollLeft = (view.scrollWidth - view.clientWidth) * now.pixel / Math.max(1, count - 1); // on a phone
  }
  for (const name of ["k", "s", "p", "d"]) {
    at(name).append(...given.choices[name].map(v => Play.make("option", {value: v}, String(v))));
    at(name).value = now[name];
    at(name).addEventListener("change", () => { now[name] = Number(at(name).value); showAll(); });
  }
  at("next").addEventListener("click", () => choose(now.pixel + 1));
  at("back").addEventListener("click", () => choose(now.pixel - 1));
  at("at").addEventListener("input", () => choose(Number(at("at").value)));
  at("tap").addEventListener("input", () => { now.tap = Number(at("tap").value); showAll(); });
  showAll();
}
