"use strict";
// Two boxes to drag, and how well they agree by the formulas of scratch/ops/boxes.
{
  const {draw, show, table, movable, compare, corners, around, meet} = Play, given = Play.data("boxes");
  const at = id => document.getElementById(`boxes-${id}`), svg = at("picture"), side = 320;
  const now = {a: [...given.scenes[0].a], b: [...given.scenes[0].b]};
  Play.boxes = now;

  svg.append(draw("rect", {width: side, height: side, rx: 4, style: "fill:var(--paper);stroke:var(--line)"}));
  const hull = draw("rect", {"stroke-width": 1.6, "stroke-dasharray": "5 4", style: "fill:none;stroke:var(--soft)"});
  const shared = draw("rect", {style: "fill:var(--green);fill-opacity:.5"});
  svg.append(hull, shared);
  const place = ["a", "b"].map((name, i) => movable(svg, {
    name, colour: ["blue", "orange"][i], wide: side, get: () => now[name],
    set: box => { now[name] = box; at("scene").value = "own"; showAll(); }}));

  const put = (element, [x0, y0, x1, y1]) => Play.fill(element, {
    x: x0 * side, y: y0 * side, width: Math.max(0, x1 - x0) * side, height: Math.max(0, y1 - y0) * side}, []);

  function curves() {
    const plot = at("curves"), wide = 290, tall = 150, y = v => tall * (1 - v) / 2, steps = 120;
    const moved = Array.from({length: steps + 1}, (_, k) => compare(now.a, [k / steps, ...now.b.slice(1)]));
    plot.setAttribute("viewBox", `-26 -6 ${wide + 32} ${tall + 28}`);
    plot.replaceChildren(...[-1, 0, 1].flatMap(v => [
      draw("line", {x1: 0, x2: wide, y1: y(v), y2: y(v), "stroke-width": .7, style: "stroke:var(--line)"}),
      draw("text", {x: -6, y: y(v) + 4, "font-size": 11.5, "text-anchor": "end"}, show(v, 0))]),
      draw("line", {x1: now.b[0] * wide, x2: now.b[0] * wide, y1: 0, y2: tall, "stroke-dasharray": "3 3",
                    style: "stroke:var(--soft)"}),
      draw("text", {x: wide / 2, y: tall + 18, "font-size": 11.5, "text-anchor": "middle"}, "cx of b, from 0 to 1"));
    const here = compare(now.a, now.b);
    for (const [name, colour] of [["giou", "violet"], ["iou", "green"]])
      plot.append(draw("polyline", {points: moved.map((m, k) => `${k / steps * wide},${y(m[name])}`).join(" "),
                                    "stroke-width": 2.2, style: `fill:none;stroke:var(--${colour})`}),
                  draw("circle", {cx: now.b[0] * wide, cy: y(here[name]), r: 4.5, style: `fill:var(--${colour})`}));
    plot.setAttribute("aria-label",
      `IoU and GIoU while b moves over the image; at its present place ${show(here.iou)} and ` +
      show(here.giou));
  }

  function showAll() {
    place.forEach(each => each());
    const a = corners(now.a), b = corners(now.b), found = compare(now.a, now.b);
    put(hull, around(a, b));
    put(shared, meet(a, b));
    for (const name of ["iou", "giou", "l1"]) at(name).textContent = show(found[name]);
    at("said").textContent = found.shared > 0
      ? `The boxes share ${show(found.shared, 4)} of ${show(found.union, 4)}: IoU = ${show(found.iou)}.`
      : `The boxes do not overlap, so IoU = 0 and has no slope. GIoU = ${show(found.giou)} still ` +
        "falls with the distance.";
    table(at("table"), ["", "cx", "cy", "w", "h"],
      [["a", ...now.a.map(x => show(x))], ["b", ...now.b.map(x => show(x))],
      ["|a − b|", ...now.a.map((x, i) => show(Math.abs(x - now.b[i])))]]);
    at("table").append(Play.make("caption",
      {class: "soft", style: "caption-side:bottom;text-align:left;padding-top:.4rem"},
      `intersection ${show(found.shared, 4)}, union ${show(found.union, 4)}, hull ${show(found.hull, 4)}; ` +
      `GIoU = ${show(found.iou)} − (${show(found.hull, 4)} − ${show(found.union, 4)}) / ${show(found.hull, 4)}`));
    curves();
  }
  at("scene").append(...given.scenes.map(({name}, k) => Play.make("option", {value: k}, name)),
                     Play.make("option", {value: "own", hidden: ""}, "your own"));
  at("scene").addEventListener("change", () => {
    const {a, b} = given.scenes[Number(at("scene").value)];
    Object.assign(now, {a: [...a], b: [...b]});
    showAll();
  });
  showAll();
}
