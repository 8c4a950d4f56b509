"""The pages to play with: each in Chromium, used as a person would, with numbers that scratch/ computes here again."""

from __future__ import annotations

import base64
import json
import math
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from docs.site import example
from docs.site.play import WIDGETS, Widget, attention, boxes, encoding, hungarian, looking, softmax, window
from docs.site.play.page import data_element, standalone_page
from scratch.analysis.attention_record import Explanation
from scratch.config import PRESETS
from scratch.data.classes import Classes
from scratch.detector import Detector
from scratch.model.build import build_detr
from scratch.ops.attention import attention_batched
from scratch.ops.boxes import box_cxcywh_to_xyxy, paired_box_iou, paired_generalized_box_iou
from scratch.ops.conv2d import conv2d_naive
from scratch.ops.hungarian import assign_brute_force, assign_by_potentials
from scratch.ops.sine_encoding import sine_encoding
from tests.conftest import REPOSITORY
from tests.objective import test_trace
from tests.site.browser import chromium, opened
from tests.test_explain import KINDS, NAMES, SMALL

BY_NAME = {widget.name: widget for widget in WIDGETS}
each_widget = pytest.mark.parametrize("widget", WIDGETS, ids=lambda widget: widget.name)
RECORD = REPOSITORY / "hyper_parameter_tuning_charts" / "explained" / "shapes.npz"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def shown(browser: Any, name: str, **more: Any) -> Any:
    return opened(browser, standalone_page(BY_NAME[name], "light"), **more)


def number(text: str) -> float:
    """A number as the pages write it."""
    return float(text.replace("−", "-").replace(",", ""))


def text(page: Any, selector: str) -> str:
    return page.locator(selector).text_content()


def rows(page: Any, selector: str) -> list[list[str]]:
    """The body of a table, without the names of its rows."""
    return page.eval_on_selector_all(f"{selector} tbody tr", "rows => rows.map(r => [...r.querySelectorAll('td')]"
                                     ".map(cell => cell.textContent))")


# ── what all have ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_there_are_seven_and_each_belongs_to_a_note() -> None:
    assert len(WIDGETS) == len(BY_NAME) == 7
    assert all((REPOSITORY / "scratch" / f"{widget.note}.py").is_file() for widget in WIDGETS)


@each_widget
def test_its_data_are_plain_json_and_cannot_end_their_element(widget: Widget) -> None:
    element = data_element(widget)
    assert element.count("<") == 2
    content = json.loads(re.fullmatch(r"<script[^>]*>(.*)</script>", element, re.S)[1])
    assert content == json.loads(json.dumps(widget.data()))


@each_widget
def test_its_script_and_html_ask_for_nothing_from_elsewhere(widget: Widget) -> None:
    for source in (widget.script_file.read_text(encoding="utf-8"), widget.html):
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\bfetch\(|XMLHttpRequest|\bimport\b|WebSocket",
                             source)


@each_widget
@pytest.mark.parametrize("width", [360, 1100])
def test_it_opens_without_an_error_and_fits_the_page(widget: Widget, width: int, browser: Any) -> None:
    with shown(browser, widget.name, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert len(text(page, f"#{widget.name}-said")) > 20
        if width == 360:  # a finger needs room
            small = page.eval_on_selector_all("button", "all => all.filter(b => b.getBoundingClientRect().height < 38)")
            assert small == []


@pytest.mark.slow
@each_widget
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_that_shuts_a_reader_out(widget: Widget, theme: str, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    with opened(browser, standalone_page(widget, theme), width=360) as page:
        found = axe.run(page).response["violations"]
        assert [(one["id"], [node["html"][:120] for node in one["nodes"]]) for one in found] == []


def test_what_a_page_reports_and_requests_is_noticed(browser: Any) -> None:
    errors: list[str] = []
    with opened(browser, "<script>console.error('one'); fetch('http://localhost:9/two').catch(() => {});"
                "setTimeout(() => { throw Error('three') })</script>", errors=errors) as page:
        page.wait_for_timeout(200)
    assert all(any(word in error for error in errors) for word in ("one", "two", "three"))


# ── a window over an image ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_outputs_are_those_of_the_definition() -> None:
    given = window.data()
    x = torch.tensor(window.IMAGE, dtype=torch.float64)[None, None]
    for k, s, p, d in product(*window.CHOICES.values()):
        weight = torch.tensor(window.FILTERS[k], dtype=torch.float64)[None, None]
        assert given["outputs"][f"{k} {s} {p} {d}"] == conv2d_naive(x, weight, None, s, p, d)[0, 0].tolist()


def test_the_scripts_matrix_is_that_of_unfold_for_every_choice(browser: Any) -> None:
    x = torch.tensor(window.IMAGE, dtype=torch.float64)[None, None]
    with shown(browser, "window") as page:
        for k, s, p, d in product(*window.CHOICES.values()):
            columns = page.evaluate("settings => Play.columns(settings)", {"k": k, "s": s, "p": p, "d": d})
            assert columns == F.unfold(x, k, d, p, s)[0].tolist(), (k, s, p, d)


def test_next_pixel_walks_on_and_another_stride_makes_another_output(browser: Any) -> None:
    y = conv2d_naive(torch.tensor(window.IMAGE, dtype=torch.float64)[None, None],
                     torch.tensor(window.FILTERS[3], dtype=torch.float64)[None, None], None, 2, 1)[0, 0]
    with shown(browser, "window") as page:
        page.locator("#window-s").select_option("2")
        for _ in range(4):
            page.locator("#window-next").click()
        said = text(page, "#window-said")
        assert said.startswith("y[1, 1] = ") and f"= {y[1, 1]:.0f}.".replace("-", "−") in said
        page.locator("#window-tap").focus()
        page.keyboard.press("Home")
        assert "Tap 0 sees row 1, column 1." in text(page, "#window-said")
        page.locator("#window-output g").nth(8).click()
        assert "y[2, 2] = " in text(page, "#window-said")
        page.keyboard.press("Tab")
        page.locator("#window-at").focus()
        page.keyboard.press("Home")
        assert "y[0, 0]" in text(page, "#window-said") and page.locator("#window-back").is_disabled()


# ── softmax ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_softmax_shows_the_weights_of_attention(browser: Any) -> None:
    q, k = softmax.draws()
    with shown(browser, "softmax") as page:
        for key, d in (("End", 512), ("Home", 1), ("ArrowRight", 2)):
            page.locator("#softmax-d").focus()
            page.keyboard.press(key)
            _, P = attention_batched(q[:, :d], k[:, :d], k[:, :d])
            raw = torch.softmax(q[:, :d] @ k[:, :d].T, -1)
            for kind, weights in (("scaled", P), ("raw", raw)):
                assert number(text(page, f"#softmax-{kind}-most")) == pytest.approx(weights[0].max().item(), abs=0.006)
                slope = (weights * (1 - weights))[0].sum().item()
                assert number(text(page, f"#softmax-{kind}-slope")) == pytest.approx(slope, abs=0.006)
            assert f"{P.amax(-1).mean():.2f}" in text(page, "#softmax-said")
        page.locator("#softmax-other").click()
        assert number(text(page, "#softmax-raw-most")) == pytest.approx(raw[1].max().item(), abs=0.006)


def test_without_the_root_the_gradient_vanishes_as_the_note_says() -> None:
    means, i = softmax.data()["means"], softmax.WIDTHS.index(64)
    assert means["raw"]["most"][i] == pytest.approx(0.78, abs=0.03)
    assert means["raw"]["slope"][i] == pytest.approx(0.31, abs=0.03)
    assert means["scaled"]["most"][i] == pytest.approx(0.08, abs=0.03)
    assert means["scaled"]["slope"][i] == pytest.approx(0.97, abs=0.03)


# ── positional encodings ────────────────────────────────────────────────────────────────────────────────────────────


def likeness(temperature: float, row: int, column: int) -> list[float]:
    """The dot product of one cell's whole encoding with all others, 1 with itself."""
    mask = torch.zeros(1, encoding.ROWS, encoding.COLUMNS, dtype=torch.bool)
    code = sine_encoding(mask, encoding.FEATURES, temperature, dtype=torch.float64)[0].flatten(1).T  # (S,2F)
    return (code @ code[row * encoding.COLUMNS + column] / encoding.FEATURES).tolist()


def test_the_map_is_the_dot_product_of_the_whole_encodings(browser: Any) -> None:
    with shown(browser, "encoding") as page:
        for temperature, row, column in ((10000, 0, 0), (20, 5, 7), (1, 11, 15)):
            got = page.evaluate("([T, i, j]) => Play.likeness(T, i, j)", [temperature, row, column])
            assert got == pytest.approx(likeness(temperature, row, column), abs=1e-9)


def test_a_click_and_a_key_choose_a_cell_and_its_least_like_cell_is_named(browser: Any) -> None:
    with shown(browser, "encoding") as page:
        page.locator("#encoding-map rect").nth(3 * encoding.COLUMNS + 2).click()
        page.keyboard.press("Tab")
        page.locator("#encoding-map").focus()
        page.keyboard.press("ArrowDown")
        page.get_by_label("20", exact=True).check()
        said, values = text(page, "#encoding-said"), likeness(20, 4, 2)
        assert said.startswith("Cell in row 4, column 2, T = 20")
        assert f"has {min(values):.3f}".replace("-", "−") in said
        assert f"{sum(v > 0.9 for v in values)} of {encoding.ROWS * encoding.COLUMNS} cells" in said


# ── boxes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_scripts_formulas_are_those_of_the_note(browser: Any) -> None:
    draws = random.Random(3)
    pairs = [[[draws.random() for _ in range(4)] for _ in range(2)] for _ in range(60)]
    with shown(browser, "boxes") as page:
        got = page.evaluate("pairs => pairs.map(([a, b]) => Play.compare(a, b))", pairs)
    a, b = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    corners = box_cxcywh_to_xyxy(a), box_cxcywh_to_xyxy(b)
    for name, wanted in (("iou", paired_box_iou(*corners)), ("giou", paired_generalized_box_iou(*corners)),
                         ("l1", (a - b).abs().sum(-1))):
        assert [one[name] for one in got] == pytest.approx(wanted.tolist(), abs=1e-12)
    assert sum(one["iou"] == 0 for one in got) > 3 < sum(one["iou"] > 0 for one in got)


def test_dragging_a_box_and_its_corner_and_arrow_keys_change_the_numbers(browser: Any) -> None:
    with shown(browser, "boxes") as page:
        def right() -> None:
            now = page.evaluate("Play.boxes")
            for name, value in boxes.values(now["a"], now["b"]).items():
                assert number(text(page, f"#boxes-{name}")) == pytest.approx(value, abs=6e-4), name

        page.locator("#boxes-scene").select_option(label="apart")
        right()
        start, picture = page.evaluate("Play.boxes.b"), page.locator("#boxes-picture").bounding_box()
        scale = picture["width"] / 328

        def at(x: float, y: float) -> tuple[float, float]:
            return picture["x"] + scale * (4 + 320 * x), picture["y"] + scale * (4 + 320 * y)

        page.mouse.move(*at(*start[:2]))
        page.mouse.down()
        page.mouse.move(*at(start[0] - 0.3, start[1] - 0.2), steps=3)
        page.mouse.up()
        assert page.evaluate("Play.boxes.b") == pytest.approx([start[0] - 0.3, start[1] - 0.2, *start[2:]], abs=0.01)
        right()
        cx, cy, w, h = page.evaluate("Play.boxes.a")
        page.mouse.move(*at(cx + w / 2, cy + h / 2))
        page.mouse.down()
        page.mouse.move(*at(cx + w / 2 + 0.1, cy + h / 2 + 0.05), steps=3)
        page.mouse.up()
        assert page.evaluate("Play.boxes.a") == pytest.approx([cx + 0.05, cy + 0.025, w + 0.1, h + 0.05], abs=0.01)
        right()
        before = page.evaluate("Play.boxes.a")
        page.locator("#boxes-picture [role=button]").first.focus()
        for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Shift+ArrowRight"):
            page.keyboard.press(key)
        assert page.evaluate("Play.boxes.a") == pytest.approx(
            [before[0] - 0.02, before[1] - 0.01, before[2] + 0.01, before[3]], abs=1e-9)
        right()


def test_every_start_has_the_values_of_the_note(browser: Any) -> None:
    with shown(browser, "boxes") as page:
        for scene in boxes.data()["scenes"]:
            page.locator("#boxes-scene").select_option(label=scene["name"])
            assert [number(text(page, f"#boxes-{name}")) for name in ("iou", "giou", "l1")] == pytest.approx(
                [scene["iou"], scene["giou"], scene["l1"]], abs=6e-4)


# ── the Hungarian algorithm ─────────────────────────────────────────────────────────────────────────────────────────


def with_potentials(cost: list[list[float]]) -> tuple[list[int], list[float], list[float]]:
    """The columns that assign_by_potentials returns, and the u and v that it holds at that moment."""
    held: dict[str, list[float]] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is assign_by_potentials.__code__:
            held.update(u=list(frame.f_locals["u"]), v=list(frame.f_locals["v"]))

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        columns = assign_by_potentials(cost)
    finally:
        sys.setprofile(before)
    return columns, held["u"], held["v"]


def random_matrices() -> list[list[list[float]]]:
    draws, found = random.Random(7), []
    for k in range(60):
        n = draws.randint(1, 6)
        m = draws.randint(n, 7)
        if k % 3:  # few values: many ties
            found.append([[draws.randint(0, 9) for _ in range(m)] for _ in range(n)])
        else:
            found.append([[draws.uniform(-3, 8) for _ in range(m)] for _ in range(n)])
    return found


def test_the_script_takes_the_same_steps_as_the_note_to_the_same_potentials(browser: Any) -> None:
    matrices = random_matrices()
    with shown(browser, "hungarian") as page:
        got = page.evaluate("all => all.map(cost => Play.hungarian(cost))", matrices)
    for cost, found in zip(matrices, got):
        assert (found["columns"], found["u"], found["v"]) == with_potentials(cost)
        # After each row: the note, given the rows so far, has the same pairs, u and v.
        done = {step["added"]: step for step in found["steps"] if step["added"] >= 0}
        for added in range(len(cost)):
            columns, u, v = with_potentials(cost[:added + 1])
            step = done[added]
            assert step["u"][:added + 1] == u and step["v"] == v
            assert [step["owner"].index(i) for i in range(added + 1)] == columns


def test_a_reader_edits_the_matrix_and_steps_to_the_optimum(browser: Any) -> None:
    cost = [list(row) for row in hungarian.EXAMPLE]
    with shown(browser, "hungarian") as page:
        field = page.get_by_label("cost of row 1, column 3")
        field.fill("1.5")
        cost[1][3] = 1.5
        page.locator("#hungarian-last").click()
        best = sum(cost[i][j] for i, j in enumerate(assign_brute_force(cost)))
        assert number(text(page, "#hungarian-cost")) == number(text(page, "#hungarian-bound")) == best
        assert page.locator("#hungarian-table .paired").count() == len(cost)
        field.fill("")
        assert "row 1, column 3: got “”, wanted a number" in text(page, "#hungarian-said")
        assert page.locator("#hungarian-next").is_disabled() and field.get_attribute("aria-invalid") == "true"
        field.fill("4")
        assert page.locator("#hungarian-next").is_enabled()


def test_step_by_step_row_one_takes_the_column_of_row_zero(browser: Any) -> None:
    with shown(browser, "hungarian") as page:
        seen = [text(page, "#hungarian-said")]
        while page.locator("#hungarian-next").is_enabled():
            page.locator("#hungarian-next").focus()
            page.keyboard.press("Enter")
            seen.append(text(page, "#hungarian-said"))
        assert "Row 0 takes column 0, which was free." in seen
        assert "The augmenting path: row 1 takes column 0, row 0 takes column 1." in seen
        optimum = min(sum(hungarian.EXAMPLE[i][j] for i, j in enumerate(way)) for way in permutations(range(4), 3))
        assert number(text(page, "#hungarian-cost")) == optimum
        page.locator("#hungarian-columns").select_option("5")
        page.locator("#hungarian-last").click()
        assert page.locator("#hungarian-table .paired").count() == 3
        assert number(text(page, "#hungarian-cost")) == number(text(page, "#hungarian-bound"))


# ── from logits to gradients ────────────────────────────────────────────────────────────────────────────────────────


def test_the_example_is_that_of_the_trace() -> None:
    assert example.OBJECTS == tuple(test_trace.OBJECTS)
    for name in ("LOGITS", "BOXES", "TRUE"):
        assert [list(row) for row in getattr(example, name)] == getattr(test_trace, name)
    wanted = test_trace.computed()
    for name, value in example.computed().items():
        assert torch.equal(value, wanted[name]), name


def test_the_page_begins_with_the_numbers_of_the_trace(browser: Any) -> None:
    trace, show = (REPOSITORY / "docs" / "trace.md").read_text(encoding="utf-8"), test_trace.number
    with shown(browser, "trace") as page:
        costs = rows(page, "#trace-costs")
        assert len(costs) == 6 and all(" | ".join(row) in trace for row in costs)
        assert [row[0] for row in rows(page, "#trace-ways")] == [show(x) for x in (
            test_trace.cost(a, 0) + test_trace.cost(b, 1) for a, b in permutations(range(3), 2))]
        wanted = test_trace.computed()
        assert text(page, "#trace-total").endswith(f"= {wanted['total']:.3f}")
        for name in ("logits", "boxes"):
            got = [[number(x) for x in row] for row in rows(page, f"#trace-d{name}")]
            np.testing.assert_allclose(got, wanted[name], atol=6e-4)


def test_losses_and_gradients_are_those_of_the_criterion_for_any_predictions(browser: Any) -> None:
    draws = random.Random(11)
    cases = [([[draws.gauss(0, 2) for _ in range(3)] for _ in range(3)],
              [[draws.uniform(0.1, 0.9), draws.uniform(0.1, 0.9), draws.uniform(0.05, 0.6), draws.uniform(0.05, 0.6)]
               for _ in range(3)]) for _ in range(40)]
    with shown(browser, "trace") as page:
        got = page.evaluate("all => all.map(([logits, boxes]) => Play.objective(logits, boxes))", cases)
    for (logits, predicted), found in zip(cases, got):
        wanted = example.objective(logits, predicted)
        for name in ("loss_ce", "loss_bbox", "loss_giou", "total"):
            assert found[name] == pytest.approx(wanted[name].item(), abs=1e-9)
        pairs = dict(zip(wanted["query"].tolist(), wanted["target"].tolist()))
        assert found["label"] == [pairs.get(q, 2) for q in range(3)]
        np.testing.assert_allclose(found["dlogits"], wanted["logits"], atol=1e-9)
        np.testing.assert_allclose(found["dboxes"], wanted["boxes"], atol=1e-8)


def test_a_logit_a_box_and_a_step_change_what_follows(browser: Any) -> None:
    logits, predicted = [list(row) for row in example.LOGITS], [list(box) for box in example.BOXES]
    with shown(browser, "trace") as page:
        def right() -> None:
            wanted = example.objective(logits, predicted)
            shown_total = number(text(page, "#trace-total").rsplit("= ", 1)[1])
            assert shown_total == pytest.approx(wanted["total"].item(), abs=6e-4)

        page.get_by_label("query 2, logit of dog").focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        logits[2][1] += 0.5
        right()
        page.locator("#trace-picture [role=button]").nth(1).focus()
        for _ in range(8):
            page.keyboard.press("ArrowLeft")
        predicted[1][0] -= 0.08
        right()
        page.locator("#trace-reset").click()
        totals = [example.computed()["total"].item()]
        for _ in range(3):
            page.locator("#trace-step").click()
            totals.append(number(text(page, "#trace-total").rsplit("= ", 1)[1]))
        found = example.computed()
        rate = BY_NAME["trace"].data()["rates"]
        stepped = example.objective((torch.tensor(example.LOGITS) - rate["logits"] * found["logits"]).tolist(),
                                    (torch.tensor(example.BOXES) - rate["boxes"] * found["boxes"]).tolist())
        assert totals[1] == pytest.approx(stepped["total"].item(), abs=6e-4)
        assert totals == sorted(totals, reverse=True)


# ── attention of the trained detector ───────────────────────────────────────────────────────────────────────────────


def maps_of(picture: dict[str, Any]) -> np.ndarray:
    """(D,L,N,h,w) shares, from the bytes and their peaks."""
    shape = (len(picture["detections"]), picture["layers"], picture["heads"], *picture["grid"])
    codes = np.frombuffer(base64.b64decode(picture["cross"]), np.uint8).reshape(shape)
    return codes / 255 * np.array(picture["peaks"]).reshape(shape[:3])[..., None, None]


def inside(one: np.ndarray, box: list[float]) -> float:
    """The share of a map (h,w) in the cells whose centres lie in a box."""
    h, w = one.shape
    y, x = (np.arange(h)[:, None] + 0.5) / h, (np.arange(w)[None] + 0.5) / w
    x0, y0, x1, y1 = box
    return float(one[(x0 < x) & (x < x1) & (y0 < y) & (y < y1)].sum() / one.sum())


def test_what_is_kept_is_what_explain_recorded() -> None:
    record = Explanation.load(RECORD)
    picture, = attention.content([record])["pictures"]
    D = len(picture["detections"])
    assert D == attention.MOST_DETECTIONS < len(record.cross)
    np.testing.assert_allclose(maps_of(picture), record.cross[:D], atol=record.cross.max() / 255)
    boxes_kept = [one["boxes"] for one in picture["detections"]]
    assert boxes_kept == np.round(record.boxes[:D].astype(float), 4).tolist()
    assert base64.b64decode(picture["cells"]) == record.cells[0].tobytes()


def test_the_committed_maps_are_those_of_the_committed_record() -> None:
    made, = attention.content([Explanation.load(RECORD)])["pictures"]
    kept, = looking.data()["pictures"]
    assert base64.b64decode(kept["jpeg"]).startswith(b"\xff\xd8")  # its bytes are the encoder's affair
    assert {**kept, "jpeg": ""} == {**made, "jpeg": ""}


def test_the_committed_maps_are_small_and_each_row_of_attention_is_a_share_of_one() -> None:
    assert looking.FILE.stat().st_size <= attention.MOST_BYTES
    for picture in looking.data()["pictures"]:
        sums = maps_of(picture).sum((-2, -1))
        assert np.all(np.abs(sums - 1) < 0.35)  # of half a byte's rounding in each of many faint cells


def test_the_shares_inside_the_box_are_those_of_the_maps(browser: Any) -> None:
    picture = looking.data()["pictures"][0]
    maps, chosen = maps_of(picture), 1
    detection = picture["detections"][chosen]
    with shown(browser, "attention") as page:
        page.locator("#attention-detection input").nth(chosen).check()
        page.locator("#attention-layer input").first.check()
        page.locator("#attention-head input").nth(2).check()
        box = detection["boxes"][picture["steps"].index(1)]
        share = inside(maps[chosen, 0, 1], box)
        said = text(page, "#attention-said")
        assert detection["name"] in said and f"query {detection['query']}" in said and "decoder layer 1, head 2" in said
        assert abs(float(re.search(r"([\d.]+) % of the attention", said)[1]) - 100 * share) <= 0.51
        first = [float(x.removesuffix(" %")) for x in rows(page, "#attention-table")[0]]
        wanted = [inside(maps[chosen, 0].mean(0), box), *(inside(one, box) for one in maps[chosen, 0])]
        assert first == pytest.approx([100 * x for x in wanted], abs=0.51)


def test_keys_and_clicks_choose_detections_and_cells(browser: Any) -> None:
    picture = looking.data()["pictures"][0]
    h, w = picture["cell_grid"]
    cells = np.frombuffer(base64.b64decode(picture["cells"]), np.uint8).reshape(h * w, h * w)
    with shown(browser, "attention") as page:
        page.locator("#attention-picture").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#attention-detection input").nth(1).is_checked()
        page.get_by_label("a cell (encoder)").check()
        area = page.locator("#attention-picture").bounding_box()
        page.mouse.click(area["x"] + area["width"] * 1.5 / w, area["y"] + area["height"] * 2.5 / h)
        page.locator("#attention-picture").focus()
        page.keyboard.press("ArrowDown")
        said = text(page, "#attention-said")
        assert "from the cell in row 3, column 1" in said
        peak = 100 * picture["cell_peaks"][3 * w + 1] * cells[3 * w + 1].max() / 255
        assert float(re.search(r"brightest cell has ([\d.]+) %", said)[1]) == pytest.approx(peak, abs=0.51)
        assert page.locator("#attention-shares").is_hidden()


@pytest.mark.slow
def test_the_command_writes_what_the_page_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "attention.json"
    attention.main(["--record", str(RECORD), "--out", str(out)])
    assert "1 pictures, 6 detections" in capsys.readouterr().out
    assert json.loads(out.read_text(encoding="utf-8")) == attention.content([Explanation.load(RECORD)])
    assert math.prod(json.loads(out.read_text(encoding="utf-8"))["pictures"][0]["grid"]) == 24 * 24


def test_a_detector_is_looked_at_in_pictures_that_are_drawn_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_detr(SMALL, **KINDS["proposal"]).eval()
    config = replace(PRESETS["tiny"], model=model.config)
    detector = Detector(model, config, Classes((1, 2, 3), NAMES), 0.0)
    monkeypatch.setattr(attention, "load", lambda run: detector)
    records = attention.looked_at(Path("runs/some"), seeds=(1, 2))
    first, second = attention.content(records)["pictures"]
    assert first["jpeg"] != second["jpeg"] and first["grid"] == second["grid"] == [24, 24]  # 192 pixels, stride 8
    assert {found["name"] for found in first["detections"]} <= set(NAMES)
    np.testing.assert_allclose(maps_of(first).sum((-2, -1)), 1, atol=0.02)  # an untrained detector looks everywhere
    again, = attention.looked_at(Path("runs/some"), seeds=(2,))
    assert again.picture.tobytes() == records[1].picture.tobytes()
