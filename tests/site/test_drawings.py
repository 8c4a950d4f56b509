"""The drawings: proper SVG that can be read by all, and the numbers in them are those of the project and of torch."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from functools import lru_cache
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from docs.site import example
from docs.site.drawings import (DRAWINGS, attending, boxes, denoising, loss, matching, network, norms, schedule,
                                scores, windows)
from docs.site.drawings.drawing import Canvas, Drawing, shown
from docs.site.palette import DARK, LIGHT
from scratch.config import PRESETS
from tests.conftest import REPOSITORY
from tests.objective import test_trace
from tests.site.browser import chromium, opened

SVG = "{http://www.w3.org/2000/svg}"
ALL = [drawing for each in DRAWINGS.values() for drawing in each]
SMALLEST = 9  # units of text; at the 360 of a phone one unit is about a pixel
each_drawing = pytest.mark.parametrize("drawing", ALL, ids=lambda drawing: drawing.name)


@lru_cache(maxsize=None)
def text_of(name: str) -> str:
    return next(drawing for drawing in ALL if drawing.name == name).draw()


@lru_cache(maxsize=None)
def words(name: str) -> tuple[str, ...]:
    """All text of a drawing."""
    return tuple(text.text or "" for text in ET.fromstring(text_of(name)).iter(f"{SVG}text"))


def said(name: str, *parts: str) -> bool:
    """Does some text of the drawing hold each of the parts?"""
    return all(any(part in text for text in words(name)) for part in parts)


# ── the form ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_at_least_fourteen_notes_have_a_drawing_and_each_is_a_note() -> None:
    assert len(DRAWINGS) >= 14 and all(DRAWINGS.values())
    assert all((REPOSITORY / "scratch" / f"{note}.py").is_file() for note in DRAWINGS)
    assert len({drawing.name for drawing in ALL}) == len(ALL)


@each_drawing
def test_a_drawing_is_well_formed_has_a_title_and_grows_with_the_page(drawing: Drawing) -> None:
    root = ET.fromstring(text_of(drawing.name))
    assert root.tag == f"{SVG}svg" and root.get("role") == "img" and "width" not in root.attrib
    assert root.find(f"{SVG}title").text == drawing.title and root.find(f"{SVG}desc").text == drawing.alt
    named = {root.find(f"{SVG}{tag}").get("id") for tag in ("title", "desc")}
    assert set(root.get("aria-labelledby").split()) == named
    assert root.get("viewBox").split()[2] == "360"


@each_drawing
def test_no_text_of_a_drawing_is_tiny(drawing: Drawing) -> None:
    sizes = {float(text.get("font-size")) for text in ET.fromstring(text_of(drawing.name)).iter(f"{SVG}text")}
    assert sizes and min(sizes) >= SMALLEST


@each_drawing
def test_a_drawing_has_no_colour_of_its_own_but_those_of_the_palette(drawing: Drawing) -> None:
    without_rules = re.sub(r"<style>.*?</style>", "", text_of(drawing.name))
    assert not re.search(r"#[0-9a-fA-F]{3,6}\b(?!\")", re.sub(r'url\(#[^)]*\)|id="[^"]*"', "", without_rules))
    assert set(re.findall(r"var\(--([a-z-]+)\)", without_rules)) <= set(LIGHT)


def test_no_two_drawings_share_an_id_so_that_they_may_stand_on_one_page() -> None:
    ids = [element.get("id") for drawing in ALL for element in ET.fromstring(text_of(drawing.name)).iter()
           if element.get("id")]
    assert len(ids) == len(set(ids))


@each_drawing
def test_a_drawing_is_the_same_each_time(drawing: Drawing) -> None:
    torch.manual_seed(5)
    assert drawing.draw() == text_of(drawing.name)


def contrast(one: str, two: str) -> float:
    """The contrast of two colours (WCAG 2.1)."""
    def luminance(colour: str) -> float:
        colour = re.search(r"#([0-9a-f]{6})", colour)[1]
        channels = [int(colour[i:i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear))

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_in_every_colour_can_be_read_on_the_page_and_on_a_panel(palette: dict[str, str]) -> None:
    assert set(LIGHT) == set(DARK)
    for name in ("ink", "soft", "blue", "orange", "green", "red", "violet"):
        for ground in ("paper", "card"):
            assert contrast(palette[name], palette[ground]) >= 4.5, (name, ground)
    assert contrast(palette["on-blue"], palette["blue"]) >= 4.5


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@given(st.floats(-100, 100), st.integers(0, 4))
def test_a_number_is_shown_with_a_true_minus_and_never_as_minus_zero(number: float, digits: int) -> None:
    text = shown(number, digits)
    assert "-" not in text and float(text.replace("−", "-")) == pytest.approx(number, abs=0.51 * 10**-digits)
    assert not (text.startswith("−") and float(text[1:]) == 0)


def test_words_of_any_kind_are_written_safely() -> None:
    canvas = Canvas("x", 10)
    canvas.text(1, 1, "a < b & c")
    root = ET.fromstring(canvas.svg("1 < 2", '"&"'))
    assert root.find(f"{SVG}text").text == "a < b & c" and root.find(f"{SVG}title").text == "1 < 2"


@pytest.mark.slow
def test_in_a_browser_no_text_leaves_its_drawing_or_covers_another() -> None:
    measure = """() => [...document.querySelectorAll("svg.drawing")].flatMap(svg => {
      const {width, height} = svg.viewBox.baseVal, wrong = [];
      const texts = [...svg.querySelectorAll("text")].map(text => {
        const box = text.getBBox();
        return {words: text.textContent, x0: box.x, x1: box.x + box.width, y0: box.y + .22 * box.height,
                y1: box.y + .78 * box.height, turned: text.hasAttribute("transform")};
      });
      texts.forEach((a, i) => {
        if (a.x0 < -1 || a.x1 > width + 1 || a.y0 < -1 || a.y1 > height + 1)
          wrong.push(`${svg.id}: “${a.words}” leaves`);
        for (const b of texts.slice(0, i))
          if (a.x0 < b.x1 - 1 && b.x0 < a.x1 - 1 && a.y0 < b.y1 - 1 && b.y0 < a.y1 - 1)
            wrong.push(`${svg.id}: “${a.words}” covers “${b.words}”`);
      });
      return wrong;
    })"""
    page_text = f'<body style="width:360px;margin:0">{"".join(text_of(drawing.name) for drawing in ALL)}</body>'
    with chromium() as browser, opened(browser, page_text, width=360) as page:
        assert page.evaluate(measure) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        planted = page_text.replace("</text>", " and much more that does not fit into the drawing at all</text>", 1)
        page.set_content(planted)
        assert page.evaluate(measure)


# ── the numbers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stride", [1, 2])
def test_the_receptive_field_grows_by_k_minus_one_times_the_strides_below(stride: int) -> None:
    sizes = [len(seen) for _, seen in windows.seen_by_layer(stride)]
    # From the last layer (one pixel) down: each layer adds (k − 1) times the product of the strides below it.
    expected = [1 + sum((windows.KERNEL - 1) * stride**below for below in range(windows.LAYERS - layer))
                for layer in range(windows.LAYERS + 1)]
    assert sizes == expected and said("receptive-field", f"{sizes[0]} pixels")


def test_the_columns_are_those_of_unfold_and_the_product_is_the_convolution() -> None:
    assert windows.columns() == F.unfold(windows.IMAGE, 2)[0].int().tolist()
    y = F.conv2d(windows.IMAGE, windows.FILTER).flatten()
    assert said("im2col", f"= {y[0]:.0f}".replace("-", "−"))


def test_the_weights_and_outputs_of_two_tokens_are_those_of_torch() -> None:
    scores_, P, output = attending.two_tokens()
    expected = F.scaled_dot_product_attention(attending.Q[None], attending.K[None], attending.V[None])[0]
    torch.testing.assert_close(output, expected)
    assert scores_[0, 1].item() == pytest.approx(math.log(3))
    assert P.flatten().tolist() == pytest.approx([0.25, 0.75, 0.75, 0.25])
    assert output.flatten().tolist() == pytest.approx([7, 5])
    assert said("attention-weights", "ln 3", "0.25", "0.75", "= 7", "= 5")


def test_each_head_has_a_row_of_weights_of_its_own() -> None:
    weights = attending.head_weights()
    torch.testing.assert_close(weights.sum(-1), torch.ones(attending.HEADS))
    assert all(said("multi-head", f"largest {row.max():.2f}") for row in weights)
    assert all(not torch.allclose(one, two) for one, two in zip(weights, weights[1:]))


@pytest.mark.parametrize("temperature", [20, 10000])
def test_the_likeness_of_encodings_is_the_mean_cosine_of_their_angles(temperature: int) -> None:
    cell, w, F_ = attending.CELLS // 2, attending.CELLS, attending.FEATURES
    for j, value in enumerate(attending.similarity(temperature, cell)):
        angles = [2 * math.pi * (j - cell) / w / temperature ** (2 * i / F_) for i in range(F_ // 2)]
        assert value == pytest.approx(sum(map(math.cos, angles)) / (F_ // 2), abs=1e-5)  # 1e-6 in the note's divisor


def test_the_norms_are_those_of_torch() -> None:
    torch.testing.assert_close(norms.by_layer_norm(), F.layer_norm(norms.X, (3,)))
    torch.testing.assert_close(norms.by_batch_norm(), F.batch_norm(norms.X, None, None, training=True))
    for name in ("layer-norm-axes", "batch-norm-axes"):
        assert said(name, shown(norms.by_layer_norm()[0, 0].item()), shown(norms.by_batch_norm()[0, 0].item()))
        assert said(name, "μ = 12.0   σ = 1.63", "μ = 4.0   σ = 4.06")


def test_softmax_log_sum_exp_and_the_losses_are_those_of_torch() -> None:
    P = torch.softmax(scores.LOGITS, 0)
    assert all(said("softmax", f"{p:.3f}") for p in P.tolist()) and said("softmax", f"log 2 = {math.log(2):.3f}")
    z = torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(scores.log_sum_exp(z), z.logsumexp(-1))
    for p in (0.1, 0.5, 0.9):
        assert scores.cross_entropy_of(p) == pytest.approx(-math.log(p))
        assert said("cross-entropy", f"p = {p}: {-math.log(p):.2f}")
    assert scores.focal_loss_of(0.9, 0) == pytest.approx(-math.log(0.9))
    assert scores.focal_loss_of(0.9, 2) == pytest.approx(-math.log(0.9) / 100)
    assert said("focal-loss", "0.105", "0.001")


def test_the_shapes_and_weights_of_the_network_are_those_of_its_notes() -> None:
    assert [shape for _, shape, _ in network.stages()] == [(256, 150, 160), (512, 75, 80), (1024, 38, 40),
                                                           (2048, 19, 20)]
    assert said("backbone", "212,992 weights", "14,942,208 weights", "(2048, 19, 20)")
    model, found = network.detector()
    assert found["logits"][2:] == (100, 92) and found["boxes"][2:] == (100, 4)
    assert said("detr", "(380, 256)", "(100, 92)", "41,524,768", "9,473,024", "7,890,432")
    encoder, decoder = model.transformer.encoder.layers[0], model.transformer.decoder.layers[0]
    assert said("transformer", network.weights_of(encoder), network.weights_of(decoder), "memory (380, 256)")


def test_the_values_of_the_boxes_are_those_of_the_note() -> None:
    iou, giou, union, hull = boxes.values(boxes.SCENES[0][1])
    assert (iou, giou, union, hull) == pytest.approx((1 / 7, -5 / 63, 7, 9))
    assert said("iou-giou", "IoU    0.143", "GIoU  −0.079", "union 7, hull 9")
    disjoint = [boxes.values(b) for _, b in boxes.SCENES[1:]]
    assert [iou for iou, *_ in disjoint] == [0, 0] and disjoint[0][1] > disjoint[1][1]


def test_the_costs_of_the_graph_are_those_of_the_trace() -> None:
    for q, row in enumerate(matching.costs()):
        for t, value in enumerate(row):
            assert value == pytest.approx(test_trace.cost(q, t)) and said("bipartite-matching", shown(value, 3))


def test_greedy_is_not_the_optimum() -> None:
    cheapest = min(sum(matching.COST[i][j] for i, j in enumerate(way)) for way in permutations(range(3), 2))
    assert sum(matching.COST[i][j] for i, j in enumerate(matching.greedy(matching.COST))) == 10 and cheapest == 5
    assert said("hungarian", "1 + 9 = 10", "2 + 3 = 5")


def test_the_losses_of_all_layers_sum_to_the_total_and_fall_from_layer_to_layer() -> None:
    layers, total = loss.by_layer()
    sums = [sum(losses.values()) for losses in layers]
    assert len(sums) == loss.LAYERS and sum(sums) == pytest.approx(total) and sums == sorted(sums, reverse=True)
    assert sums[0] == pytest.approx(example.computed()["total"].item())
    assert said("loss-by-layer", shown(total), *map(shown, sums))


def test_the_schedules_rise_to_the_peak_and_fall_as_their_formulas_say() -> None:
    for name in ("step", "cosine"):
        factors = schedule.factors(name)
        assert factors[0] == 1 / schedule.WARMUP
        for step in (schedule.WARMUP, 200, 399):
            progress = step / schedule.STEPS
            decay = (0.1 if progress >= 2 / 3 else 1) if name == "step" else (1 + math.cos(math.pi * progress)) / 2
            assert factors[step] == pytest.approx(decay)
    assert PRESETS["detr_r50"].train.lr_drop_at == pytest.approx(2 / 3)


def test_kaiming_keeps_the_size_and_xavier_halves_it_at_each_layer() -> None:
    kaiming, xavier = schedule.sizes("Kaiming")[-1], schedule.sizes("Xavier")[-1]
    assert 0.05 < kaiming < 20 and 0.05 < xavier * 2**30 < 20


def test_the_mask_of_denoising_allows_the_blocks_of_the_diagonal_alone() -> None:
    mask = denoising.mask()
    assert (~mask).sum() == denoising.MATCHED**2 + denoising.COPIES * denoising.OBJECTS**2 == 52
    assert mask[0, denoising.MATCHED] and not mask[0, 1] and said("denoising-mask", "52 of 196 pairs")


def test_noised_boxes_keep_their_centre_in_the_true_box() -> None:
    true = torch.tensor(example.TRUE)
    moved = (denoising.noised()[..., :2] - true[:, :2]).abs()
    assert (moved <= 0.2 * true[:, 2:] + 1e-6).all() and (moved > 0).all()
