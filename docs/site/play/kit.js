
"use strict";
// What all pages to play with share: making elements, writing numbers, boxes that can be dragged.
window.Play = (() => {
  const data = name => JSON.parse(document.getElementById(`${name}-data`).textContent);

  function fill(element, attributes, children) {
    for (const [key, value] of Object.entries(attributes))
      if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }
  const make = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const draw = (tag, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  // A number with a fixed count of digits and a true minus sign; never "−0".
  function show(x, digits = 3) {
    const text = x.toFixed(digits);
    return (Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−"));
  }

  // head: words of the first row; rows: of each, a name and words. Marks: (i, j) → a class name, for the body's cells.
  function table(element, head, rows, mark = () => null) {
    const cell = (words, i, j) => j === 0 ? make("th", {scope: "row"}, words) : make("td", {class: mark(i, j)}, words);
    element.replaceChildren(
      make("thead", {}, make("tr", {},
        ...head.map((words, j) => words ? make("th", {scope: "col"}, words) : make("td")))),
      make("tbody", {}, ...rows.map((row, i) => make("tr", {}, ...row.map((words, j) => cell(words, i, j))))));
  }

  // A box (cx, cy, w, h) in a drawing of one unit's width that a person can move and resize: by its corner, by dragging
  // it, or with the arrow keys (with Shift: its size). `get` and `set` read and write the box; `set` draws anew.
  // The sides of the picture are `wide` and `high` units of the drawing.
  function movable(svg, {name, colour, get, set, wide, high = wide}) {
    const body = draw("rect", {"fill-opacity": .2, "stroke-width": 2,
      style: `fill:var(--${colour});stroke:var(--${colour})`});
    const words = draw("text", {"font-size": wide / 24, "font-weight": 600, style: `fill:var(--${colour})`}, name);
    const corner = draw("circle", {class: "corner", r: wide / 40, cursor: "nwse-resize",
                                   style: `fill:var(--${colour});touch-action:none`});
    const group = draw("g", {tabindex: 0, role: "button", "aria-roledescription": "box to move",
                             style: "touch-action:none"}, body, words);
    svg.insertBefore(group, svg.querySelector(".corner")); // corners lie above all boxes, so that none hides one
    svg.append(corner);
    const limit = (x, low, top) => Math.min(top, Math.max(low, x));
    const round = x => Math.round(x * 1000) / 1000;
    const put = ([cx, cy, w, h]) =>
      set([limit(cx, 0, 1), limit(cy, 0, 1), limit(w, .02, 1), limit(h, .02, 1)].map(round));

    function place() {
      const [cx, cy, w, h] = get();
      fill(body, {x: (cx - w / 2) * wide, y: (cy - h / 2) * high, width: w * wide, height: h * high}, []);
      fill(words, {x: (cx - w / 2) * wide + wide / 60, y: (cy - h / 2) * high + wide / 22}, []);
      fill(corner, {cx: (cx + w / 2) * wide, cy: (cy + h / 2) * high}, []);
      group.setAttribute("aria-label", `${name}: centre ${show(cx, 2)}, ${show(cy, 2)}, width ${show(w, 2)}, ` +
        `height ${show(h, 2)}. Arrow keys move it, with Shift they change its size.`);
    }
    const point = event => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [at.x / wide, at.y / high];
    };
    let from = null;
    for (const part of [group, corner]) {
      part.addEventListener("pointerdown", event => {
        from = {at: point(event), box: get()};
        part.setPointerCapture(event.pointerId);
        group.focus({preventScroll: true});
        event.preventDefault();
      });
      part.addEventListener("pointermove", event => {
        if (!from) return;
        const [x, y] = point(event), [cx, cy, w, h] = from.box, dx = x - from.at[0], dy = y - from.at[1];
        put(part === corner ? [cx + dx / 2, cy + dy / 2, w + dx, h + dy] : [cx + dx, cy + dy, w, h]);
      });
      for (const end of ["pointerup", "pointercancel"]) part.addEventListener(end, () => { from = null; });
    }
    group.addEventListener("keydown", event => {
      const step = {ArrowLeft: [-.01, 0], ArrowRight: [.01, 0], ArrowUp: [0, -.01], ArrowDown: [0, .01]}[event.key];
      if (!step) return;
      event.preventDefault();
      const [cx, cy, w, h] = get(), [dx, dy] = step;
      put(event.shiftKey ? [cx, cy, w + dx, h + dy] : [cx + dx, cy + dy, w, h]);
    });
    place();
    return place;
  }

  // ---- boxes: the formulas of scratch/ops/boxes.py ----

  const corners = ([cx, cy, w, h]) => [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
  const area = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);
  const meet = (a, b) => [Math.max(a[0], b[0]), Math.max(a[1], b[1]), Math.min(a[2], b[2]), Math.min(a[3], b[3])];
  const around = (a, b) => [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])];

  // Two boxes (cx, cy, w, h) → areas, IoU, GIoU and L1.
  function compare(one, two) {
    const a = corners(one), b = corners(two), shared = area(meet(a, b)), hull = area(around(a, b));
    const union = area(a) + area(b) - shared, iou = union > 0 ? shared / union : 0;
    const giou = iou - (hull > 0 ? (hull - union) / hull : 0);
    return {shared, union, hull, iou, giou, l1: one.reduce((sum, x, i) => sum + Math.abs(x - two[i]), 0)};
  }

  function softmax(z) {
    const most = Math.max(...z), e = z.map(x => Math.exp(x - most)), total = e.reduce((a, b) => a + b);
    return e.map(x => x / total);
  }

  return {data, make, draw, fill, show, table, movable, corners, area, meet, around, compare, softmax};
})();
