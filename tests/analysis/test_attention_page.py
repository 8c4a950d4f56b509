"""The page stands on its own, and in a browser it shows what a person points at."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest
from PIL import Image

from scratch.analysis.attention_page import atlas, page_content, write_page
from tests.analysis.test_attention_record import CELLS, GRID, hot, made_up

# What a person would do, one thing after the other; after each the page's words, and where it is lit.
VISIT = """
<script>
(async () => {
  const log = {}, said = document.getElementById("said"), picture = document.getElementById("picture");
  while (!said.textContent) await new Promise(done => setTimeout(done, 10));
  const lit = () => { // where the heat is brightest, in shares of the picture
    const {width, height} = document.getElementById("heat");
    const pixels = document.getElementById("heat").getContext("2d").getImageData(0, 0, width, height).data;
    let most = 0, place = null;
    for (let i = 0; i < width * height; i++)
      if (pixels[4 * i + 3] > most) {
        most = pixels[4 * i + 3];
        place = [i % width / width, Math.floor(i / width) / height];
      }
    return place;
  };
  const note = name => log[name] = {
    said: said.textContent, lit: lit(), hidden: [...document.querySelectorAll("fieldset[hidden]")].map(f => f.id),
    boxes: [...document.querySelectorAll("#boxes rect")].map(
      rect => [rect.getAttribute("class"), Number(rect.getAttribute("x"))]),
    checked: [...document.querySelectorAll("input:checked")].map(input => `${input.name} ${input.value}`)};
  const input = (name, value) => document.querySelector(`input[name=${name}][value="${value}"]`);
  const move = (x, y, kind = "pointermove") => {
    const area = picture.getBoundingClientRect();
    const at = {clientX: area.left + x * area.width, clientY: area.top + y * area.height};
    picture.dispatchEvent(new PointerEvent(kind, at));
  };
  const press = key => picture.dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
  note("opened");
  input("detection", 1).parentElement.dispatchEvent(new PointerEvent("pointerenter")); note("hovered");
  input("head", 2).click(); note("second head");
  input("layer", 1).click(); note("first layer");
  input("layer", 0).click(); note("start");
  input("layer", 3).click(); move(0.2, 0.2); note("over the first box");
  move(0.95, 0.1); note("over nothing");
  press("ArrowRight"); note("next by key");
  input("look", "cell").click(); move(0.5, 0.75, "pointerdown"); note("tapped a cell");
  input("way", "to").click(); note("who looks there");
  input("way", "from").click(); press("ArrowLeft"); note("cell by key");
  input("detection", 0).focus(); note("focused");
  log.wide = document.documentElement.scrollWidth - window.innerWidth;
  document.body.append(Object.assign(document.createElement("pre"), {id: "log", textContent: JSON.stringify(log)}));
})();
</script>"""


def browser() -> Optional[str]:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def opened(page: Path, *flags: str) -> subprocess.CompletedProcess:
    """The page in a browser without a window; skipped where there is none."""
    if browser() is None:
        pytest.skip("there is no Chromium to open the page with (chromium, chromium-browser or google-chrome)")
    return subprocess.run(
        [browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=20000", *flags, page.as_uri()],
        capture_output=True, text=True, timeout=240)


def visited(page: Path, size: str) -> dict[str, Any]:
    """What was seen at each step of a visit to a page, in a window of this width,height."""
    copy = page.with_name("visited.html")
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", VISIT + "</body>"), encoding="utf-8")
    done = opened(copy, f"--window-size={size}", "--dump-dom")
    log = re.search(r'<pre id="log">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert log, (done.stdout[-3000:], done.stderr[-3000:])
    return json.loads(html.unescape(log[1]))


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A visit to the page of a made-up record, on a narrow screen."""
    page = tmp_path_factory.mktemp("page") / "page.html"
    write_page(made_up(), page)
    return visited(page, "500,900")


def cell(place: list[float], grid: tuple[int, int]) -> tuple[int, int]:
    return int(place[1] * grid[0]), int(place[0] * grid[1])


def words(row_and_column: tuple[int, int]) -> str:
    return f"row {row_and_column[0] + 1}, column {row_and_column[1] + 1}"


# -- the file ----------------------------------------------------------------------------------------------------------


def test_the_page_needs_no_other_file_and_no_network(tmp_path: Path) -> None:
    write_page(made_up(), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r'<link|<script[^>]+src|@import|url\(|(?:src|href)="(?!data:)', text)
    assert "@TITLE@" not in text and "@RECORD@" not in text and "prefers-color-scheme: dark" in text


def test_no_name_of_a_class_or_a_file_is_taken_for_markup(tmp_path: Path) -> None:
    record = made_up(label="</script><b>@TITLE@")
    record.about["name"] = "<i>&.jpg"
    write_page(record, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<i>" not in text and "<b>" not in text and text.count("</script>") == 2
    content = re.search(r'id="record">(.*?)</script>', text, flags=re.DOTALL)[1]
    assert json.loads(content)["detections"][0]["labels"] == [["</script><b>@TITLE@", 0.9]]


def test_map_k_stands_in_the_atlas_where_its_number_says() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (11, 3, 5), dtype=np.uint8)
    made = atlas(codes, np.arange(11) / 7)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(made["png"].partition(",")[2]))))
    assert sheet.shape == (4 * 3, 3 * 5) and made["columns"] == 3 and made["grid"] == [3, 5]
    for k in range(11):
        row, column = divmod(k, made["columns"])
        assert np.array_equal(sheet[3 * row:3 * row + 3, 5 * column:5 * column + 5], codes[k])
    assert made["peaks"][5] == 0.714


@pytest.mark.parametrize("n, h, w", [(1, 30, 40), (7, 1, 9), (1000, 25, 34)])
def test_an_atlas_is_about_square_however_many_maps_it_has(n: int, h: int, w: int) -> None:
    made = atlas(np.zeros((n, h, w), np.uint8), np.zeros(n))
    width, height = Image.open(io.BytesIO(base64.b64decode(made["png"].partition(",")[2]))).size
    assert width * height <= 1.5 * max(n * h * w, max(h, w) ** 2)


def test_the_average_over_heads_is_the_first_map_of_a_layer() -> None:
    content = page_content(made_up(detections=1, layers=1, heads=2))
    assert content["cross"]["peaks"] == [0.5, 1.0, 1.0] and content["cell_heads"] == 1
    assert len(page_content(made_up(heads=2, encoder_heads=True))["cells"]["peaks"]) == 3 * 6


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width, height", [(1100, 800), (500, 900)])
def test_on_a_wide_and_on_a_narrow_screen_light_and_boxes_are_drawn(width: int, height: int, tmp_path: Path) -> None:
    write_page(made_up(), tmp_path / "page.html")
    done = opened(tmp_path / "page.html", f"--window-size={width},{height}", f"--screenshot={tmp_path / 'seen.png'}")
    assert (tmp_path / "seen.png").exists(), done.stderr[-3000:]
    with Image.open(tmp_path / "seen.png") as picture:
        assert picture.size == (width, height)
        seen = {colour for _, colour in picture.convert("RGB").getcolors(width * height)}
    assert len({colour for colour in seen if max(colour) - min(colour) > 40}) > 100  # the light fades; letters are grey
    assert all(tuple(bytes.fromhex(colour[1:])) in seen for colour in page_content(made_up())["step_colours"])


def test_the_page_opens_with_the_first_detection_in_the_last_layer(visit: dict[str, Any]) -> None:
    opened = visit["opened"]
    assert opened["said"].startswith("1: star 0.90 (query 1), decoder layer 3, averaged over 2 heads: most, 50 %")
    assert set(opened["checked"]) >= {"look detection", "detection 0", "layer 3", "head 0"}
    assert opened["hidden"] == ["ways"] and cell(opened["lit"], GRID) in (hot(0, 3, 0), hot(0, 3, 1))


def test_pointing_at_a_detection_shows_its_attention_and_its_boxes_layer_by_layer(visit: dict[str, Any]) -> None:
    hovered = visit["hovered"]
    assert hovered["said"].startswith("2: star 0.80 (query 8)") and "detection 1" in hovered["checked"]
    assert [kind for kind, _ in hovered["boxes"]] == ["other", "step", "step", "step", "shade", "chosen"]
    assert [x for _, x in hovered["boxes"]] == pytest.approx([0.1] + 5 * [0.4])


def test_a_head_and_a_layer_can_be_chosen(visit: dict[str, Any]) -> None:
    for name, layer in (("second head", 3), ("first layer", 1)):
        assert f"decoder layer {layer}, head 2: most, 100 %" in visit[name]["said"]
        assert words(hot(1, layer, 1)) in visit[name]["said"] and cell(visit[name]["lit"], GRID) == hot(1, layer, 1)


def test_where_a_query_starts_nothing_has_looked_yet(visit: dict[str, Any]) -> None:
    assert "begins at this anchor" in visit["start"]["said"] and visit["start"]["lit"] is None


def test_pointing_into_a_box_chooses_its_detection_and_beside_all_boxes_nothing_changes(visit: dict[str, Any]) -> None:
    assert visit["over the first box"]["said"].startswith("1: ") and visit["over nothing"]["said"].startswith("1: ")


def test_a_cell_shows_where_it_looks_and_who_looks_at_it(visit: dict[str, Any]) -> None:
    tapped, looked_at = visit["tapped a cell"], visit["who looks there"]
    assert tapped["said"] == (  # cell 4 looks at cell 5, and cell 3 at it
        "Last encoder layer, averaged over 2 heads; seen from row 2, column 2: most, 50 % of the attention, goes to "
        "row 2, column 3 of 2 × 3 cells.")
    assert looked_at["said"] == (
        "Last encoder layer, averaged over 2 heads; who looks at row 2, column 2: most comes from row 2, column 1 of "
        "2 × 3 cells, which looks here with 50 % of its attention.")
    assert cell(tapped["lit"], CELLS) == (1, 2) and cell(looked_at["lit"], CELLS) == (1, 0)
    assert set(tapped["hidden"]) == {"layers", "heads"}


def test_the_keyboard_reaches_detections_and_cells(visit: dict[str, Any]) -> None:
    assert visit["next by key"]["said"].startswith("2: ")
    assert "seen from row 2, column 1" in visit["cell by key"]["said"]
    assert visit["focused"]["said"].startswith("1: ") and "look detection" in visit["focused"]["checked"]


def test_a_narrow_screen_needs_no_scrolling_sideways(visit: dict[str, Any]) -> None:
    assert visit["wide"] <= 0
