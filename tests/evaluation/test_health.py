"""The health signs mean what they say: worked by hand, the same however the images come, and calm about the healthy."""

from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from torch import Tensor

from scratch.evaluation.health import (
    FINDS_SOMETHING, LEAST_RESPONSE, LEAST_SPREAD, Matching, QueryHealth, diagnose,
)
from scratch.training.checkpoint import load_checkpoint, save_checkpoint

Q, L = 5, 3


def targets_of(image_ids: list[int], sizes: list[int]) -> list[dict[str, Any]]:
    return [{"image_id": i, "labels": torch.zeros(M, dtype=torch.int64)} for i, M in zip(image_ids, sizes)]


def pairs_of(*queries: int) -> tuple[Tensor, Tensor]:
    """An image's pairs, ordered by query: `queries[t]` answers for object t, and −1 is none."""
    pairs = sorted((query, target) for target, query in enumerate(queries) if query >= 0)
    query, target = zip(*pairs) if pairs else ((), ())
    return torch.tensor(query, dtype=torch.int64), torch.tensor(target, dtype=torch.int64)


def matched(*by_image: tuple[int, ...], ids: Optional[list[int]] = None,
            previous: Optional[Matching] = None) -> QueryHealth:
    """One evaluation with one decoder layer: the query of each object, image by image."""
    health = QueryHealth(previous)
    ids = ids or list(range(len(by_image)))
    health.update(targets_of(ids, [len(queries) for queries in by_image]), torch.rand(len(by_image), Q, 4),
                  [[pairs_of(*queries) for queries in by_image]])
    return health


def instability(before: QueryHealth, now: QueryHealth) -> Optional[float]:
    now.previous = before.matching()
    return now.summary()["matching_instability"]


def split(images: int = 7) -> list[tuple[int, int, Tensor, list[tuple[Tensor, Tensor]]]]:
    """For each image its id, its number of objects (the first has none), its boxes, and its pairs in each layer."""
    generator = torch.Generator().manual_seed(3)
    boxes = torch.rand(images, Q, 4, generator=generator, dtype=torch.float64)
    return [(100 - i, i % 4, boxes[i], [pairs_of(*torch.randperm(Q, generator=generator)[:i % 4].tolist())
                                        for _ in range(L)]) for i in range(images)]


def watch(health: QueryHealth, batch: list[tuple]) -> QueryHealth:
    ids, sizes, boxes, layers = zip(*batch)
    health.update(targets_of(ids, sizes), torch.stack(boxes), list(zip(*layers)))
    return health


# -- the boxes --------------------------------------------------------------------------------------------------------


def test_two_queries_and_two_images_worked_by_hand():
    # Image 0: a box of 0.4 × 0.4 and its right half, IoU 1/2. Image 1: two boxes that are apart, IoU 0.
    # Spread: (1/2 + 1) / 2. Query 0 moves by 0.2 in cx, so by 0.1 on either side of its mean; query 1 by 0.2 in cx, 0.4
    # in cy and 0.2 in w. Response: (0.1 + 0 + 0 + 0 + 0.1 + 0.2 + 0.1 + 0) / 8.
    boxes = torch.tensor([[[0.3, 0.3, 0.4, 0.4], [0.4, 0.3, 0.2, 0.4]],
                          [[0.5, 0.3, 0.4, 0.4], [0.6, 0.7, 0.4, 0.4]]], dtype=torch.float64)
    health = QueryHealth()
    health.update(targets_of([1, 2], [0, 0]), boxes)
    summary = health.summary()
    assert summary["box_spread"] == pytest.approx(0.75, abs=1e-12)
    assert summary["box_response"] == pytest.approx(0.5 / 8, abs=1e-7)  # boxes are kept in float32


def test_queries_that_all_give_one_box_have_a_spread_of_nought():
    health = QueryHealth()
    health.update(targets_of([1, 2, 3], [0, 0, 0]), torch.rand(3, 1, 4).expand(3, Q, 4))
    assert health.summary()["box_spread"] == pytest.approx(0, abs=1e-6)
    assert health.summary()["box_response"] > 0.1


def test_queries_that_give_the_same_boxes_in_every_image_have_a_response_of_nought():
    health = QueryHealth()
    health.update(targets_of([1, 2, 3], [0, 0, 0]), torch.rand(1, Q, 4).expand(3, Q, 4))
    assert health.summary()["box_response"] == 0
    assert health.summary()["box_spread"] > 0.5


def test_boxes_that_are_apart_have_a_spread_of_one():
    boxes = torch.tensor([[[(q + 0.5) / Q, 0.5, 0.9 / Q, 1.0] for q in range(Q)]])
    health = QueryHealth()
    health.update(targets_of([1], [0]), boxes)
    assert health.summary()["box_spread"] == 1


def test_the_order_of_the_queries_does_not_matter_to_the_boxes_signs():
    boxes = torch.rand(3, Q, 4, dtype=torch.float64)
    one, other = QueryHealth(), QueryHealth()
    one.update(targets_of([1, 2, 3], [0, 0, 0]), boxes)
    other.update(targets_of([1, 2, 3], [0, 0, 0]), boxes[:, [3, 0, 4, 1, 2]])
    for sign in ("box_spread", "box_response"):
        assert one.summary()[sign] == pytest.approx(other.summary()[sign], abs=1e-12)


def test_a_fixed_shift_of_all_boxes_changes_neither_of_the_boxes_signs():
    boxes = torch.rand(3, Q, 4, dtype=torch.float64)
    one, other = QueryHealth(), QueryHealth()
    one.update(targets_of([1, 2, 3], [0, 0, 0]), boxes)
    other.update(targets_of([1, 2, 3], [0, 0, 0]), boxes + torch.tensor([0.25, -0.125, 0, 0]))
    for sign in ("box_spread", "box_response"):
        assert one.summary()[sign] == pytest.approx(other.summary()[sign], abs=1e-6)


# -- the matching -----------------------------------------------------------------------------------------------------


def test_instability_is_the_share_of_objects_that_changed_their_query():
    before = matched((0, 1, 2), (3, 4))
    assert instability(before, matched((0, 1, 2), (3, 4))) == 0
    assert instability(before, matched((0, 2, 1), (3, 4))) == 2 / 5  # two objects changed places
    assert instability(before, matched((1, 2, 3), (4, 0))) == 1


def test_instability_is_half_that_of_dn_detr_where_objects_move_to_free_queries():
    # Their index vector: the object of each query, or −1. Objects 1 and 2 leave queries 1 and 2 for 3 and 4.
    before, now = [0, 1, 2, -1, -1], [0, -1, -1, 1, 2]
    theirs = sum(a != b for a, b in zip(before, now))
    ours = instability(matched((0, 1, 2)), matched((0, 3, 4)))
    assert ours == theirs / (2 * 3)


def test_there_is_no_instability_in_the_first_evaluation():
    assert matched((0, 1)).summary()["matching_instability"] is None


def test_an_object_that_found_no_query_in_either_evaluation_has_not_changed():
    assert instability(matched((0, -1)), matched((0, -1))) == 0
    assert instability(matched((0, -1)), matched((-1, 0))) == 1


def test_instability_compares_the_images_that_both_evaluations_saw():
    before = matched((0, 1), (2,), (4, 3), ids=[5, 3, 9])
    assert instability(before, matched((4, 0), (3,), (1, 0), ids=[9, 3, 7])) == 2 / 3  # 9: one of two; 3: its only one
    assert instability(before, matched((0,), ids=[8])) is None


def test_an_image_whose_objects_have_changed_in_number_is_not_compared():
    assert instability(matched((0, 1), (2,)), matched((0, 1, 3), (2,))) == 0


def test_matched_queries_and_agreement_worked_by_hand():
    # Two images of two objects, three layers; 3, 4 and 2 of the 5 queries are used. The first layer agrees with the
    # last for one of four objects, the second for two.
    layers = [[pairs_of(0, 1), pairs_of(2, 0)], [pairs_of(1, 0), pairs_of(2, 3)], [pairs_of(1, 0), pairs_of(1, 0)]]
    health = QueryHealth()
    health.update(targets_of([1, 2], [2, 2]), torch.rand(2, Q, 4), layers)
    summary = health.summary()
    assert summary["matched_queries"] == [3 / 5, 4 / 5, 2 / 5]
    assert summary["matched_agreement"] == [1 / 4, 2 / 4, 1]
    assert summary["num_queries"] == Q


def test_an_object_without_a_query_uses_none():
    assert matched((2, -1, -1)).summary()["matched_queries"] == [1 / Q]


# -- what cannot be measured ------------------------------------------------------------------------------------------


def test_one_query_has_no_spread_and_one_image_no_response():
    health = QueryHealth()
    health.update(targets_of([1], [0]), torch.rand(1, 1, 4))
    assert (health.summary()["box_spread"], health.summary()["box_response"]) == (None, None)


@pytest.mark.parametrize("matching", [[], [[pairs_of(), pairs_of()]] * L])
def test_without_a_criterion_or_an_object_the_matching_tells_nothing(matching: list):
    health = QueryHealth()
    health.update(targets_of([1, 2], [0, 0]), torch.rand(2, Q, 4), matching)
    summary = health.summary()
    assert [summary[sign] for sign in ("matching_instability", "matched_queries", "matched_agreement")] == [None] * 3
    assert summary["box_spread"] > 0


def test_without_an_image_every_sign_is_none():
    assert set(QueryHealth().summary()) == set(matched((0,)).summary())
    assert set(QueryHealth().summary().values()) == {None} and QueryHealth().matching() is None


# -- the same however the images come ---------------------------------------------------------------------------------


def assert_same_signs(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Equal; the spread, a float32 computation on a batch, to its rounding."""
    assert ours | {"box_spread": 0} == theirs | {"box_spread": 0}
    assert ours["box_spread"] == pytest.approx(theirs["box_spread"], abs=1e-6)


@pytest.mark.parametrize("cuts", [(7,), (1, 2, 4), (3, 3, 1)])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_signs_do_not_depend_on_batches_or_order(cuts: tuple[int, ...], backwards: bool):
    images = split()
    previous = watch(QueryHealth(), [image[:3] + (image[3][::-1],) for image in images]).matching()
    whole = watch(QueryHealth(previous), images).summary()
    assert 0 < whole["matching_instability"] < 1
    parts, rest = QueryHealth(previous), images[::-1] if backwards else images
    for size in cuts:
        batch, rest = rest[:size], rest[size:]
        watch(parts, batch)
    assert_same_signs(parts.summary(), whole)


def test_an_image_that_two_ranks_saw_counts_once():
    images = split()
    alone = watch(QueryHealth(), images)
    ranks = [watch(QueryHealth(), images[::2]), watch(QueryHealth(), images[1::2] + images[:1])]
    both = QueryHealth()
    both.seen = [part for rank in ranks for part in rank.seen]
    assert_same_signs(both.summary(), alone.summary())
    assert all(torch.equal(values, alone.matching()[name]) for name, values in both.matching().items())


def test_a_rank_that_had_no_image_changes_nothing():
    images, both = split(), QueryHealth()
    both.seen = watch(QueryHealth(), images).seen + QueryHealth().seen
    assert_same_signs(both.summary(), watch(QueryHealth(), images).summary())


def test_the_last_layers_query_of_each_object_is_remembered_in_the_order_of_the_image_ids():
    health = QueryHealth()
    health.update(targets_of([7, 3], [2, 3]), torch.rand(2, Q, 4),
                  [[pairs_of(0, 1), pairs_of(0, 1, 2)], [pairs_of(4, 3), pairs_of(2, -1, 0)]])
    assert {name: values.tolist() for name, values in health.matching().items()} == {
        "image_ids": [3, 7], "sizes": [3, 2], "queries": [2, -1, 0, 4, 3]}


def test_the_matching_survives_a_checkpoint(tmp_path):
    before = watch(QueryHealth(), split())
    save_checkpoint(tmp_path / "last.pt", {"last_matching": before.matching()})
    again = load_checkpoint(tmp_path / "last.pt")["last_matching"]
    now = [image[:3] + (image[3][::-1],) for image in split()]
    assert 0 < watch(QueryHealth(again), now).summary()["matching_instability"] < 1
    assert watch(QueryHealth(again), now).summary() == watch(QueryHealth(before.matching()), now).summary()


def test_while_it_runs_an_object_takes_four_bytes_a_layer_and_an_image_sixteen_a_query():
    (part,) = watch(QueryHealth(), split()).seen
    assert part.queries.nbytes == 4 * L * part.sizes.sum() and part.boxes.nbytes == 16 * Q * len(part.sizes)


def test_what_is_remembered_of_an_object_is_four_bytes(tmp_path):
    bytes_of = {}
    for images in (1000, 2000):  # of each four, six objects
        save_checkpoint(tmp_path / "last.pt", watch(QueryHealth(), split(images)).matching())
        bytes_of[images] = (tmp_path / "last.pt").stat().st_size
    assert bytes_of[2000] - bytes_of[1000] == pytest.approx(1000 * (8 + 8) + 1500 * 4, abs=200)  # id, size and objects


# -- the diagnosis ----------------------------------------------------------------------------------------------------


def signs(**changed: Any) -> dict[str, Any]:
    return {"num_queries": 40, "box_spread": 0.9, "box_response": 0.1, "matching_instability": 0.5,
            "matched_queries": [1.0], "matched_agreement": [1.0]} | changed


def test_a_query_collapse_is_said_with_its_number_and_what_to_try():
    (warning,) = diagnose(signs(box_spread=0.07), ap50=0.001)
    assert warning.startswith("query collapse") and "40 boxes" in warning
    assert "0.93" in warning and "0.07" in warning and "--lr" in warning


def test_queries_that_do_not_look_are_said_with_their_number_and_what_to_try():
    (warning,) = diagnose(signs(box_response=0.006), ap50=0.001)
    assert warning.startswith("the queries ignore the image") and "0.006" in warning and "--lr" in warning


def test_both_are_said_where_both_are_the_matter():
    assert len(diagnose(signs(box_spread=0.0, box_response=0.0), ap50=0.0)) == 2


@pytest.mark.parametrize("health, ap50", [
    (signs(), 0.0),                                                                       # finds nothing yet, but moves
    (signs(box_spread=LEAST_SPREAD, box_response=LEAST_RESPONSE), 0.0),                   # on the border
    (signs(box_spread=0.0, box_response=0.0), FINDS_SOMETHING),                           # finds something nevertheless
    (signs(box_spread=0.0, box_response=0.0, matching_instability=None), 0.0),            # the first evaluation
    (signs(box_spread=0.0, box_response=0.0), None),                                      # there is nothing to find
    (signs(box_spread=None, box_response=None), 0.0),                                     # one query, one image
])
def test_a_detector_is_not_accused_without_cause(health: dict[str, Any], ap50: Optional[float]):
    assert diagnose(health, ap50) == []


@pytest.mark.parametrize("progress, ap50, said", [(0.5, 0.049, 1), (0.5, 0.05, 0), (0.49, 0.0, 0), (1.0, None, 0)])
def test_a_detector_of_any_kind_that_finds_nothing_after_half_of_the_run_is_named(progress, ap50, said):
    warnings = diagnose(signs(), ap50, progress)
    assert len(warnings) == said and all("nothing is found: " in text and "0.049" in text for text in warnings)


def test_random_boxes_of_half_the_images_size_are_no_collapse():
    boxes = torch.cat((0.25 + 0.5 * torch.rand(211, 41, 2), torch.full((211, 41, 2), 0.5)), dim=-1)
    health = QueryHealth()
    health.update(targets_of(list(range(211)), [0] * 211), boxes)
    assert health.summary()["box_spread"] == pytest.approx(0.7, abs=0.05)  # the number beside LEAST_SPREAD
    assert diagnose(health.summary() | {"matching_instability": 0.5}, ap50=0.0) == []
