"""Noised boxes teach the decoder and tell the matched queries nothing."""

from __future__ import annotations

import pytest
import torch

from scratch.config import LossConfig
from scratch.model.anchors.denoising import BOX_NOISE, LABEL_NOISE, NoisedObjects, noised_boxes, noised_objects
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.variant import VariantCriterion
from scratch.ops.boxes import box_cxcywh_to_xyxy
from tests.model.anchors.test_queries import detector, pictures

K = 3
KINDS = pytest.mark.parametrize("kind", [dict(queries="anchor"), dict(queries="proposal", classification="focal")],
                                ids=lambda kind: kind["queries"])


def targets(*sizes: int) -> list[dict]:
    generator = torch.Generator().manual_seed(11)
    return [{"labels": torch.randint(K, (M,), generator=generator),
             "boxes": torch.rand(M, 4, generator=generator, dtype=torch.float64) * 0.3 + 0.3} for M in sizes]


def test_without_noise_the_boxes_are_the_true_ones():
    boxes = targets(7)[0]["boxes"]
    torch.testing.assert_close(noised_boxes(boxes, noise=0.0), boxes)


def test_a_centre_stays_within_its_box_and_a_side_within_its_share():
    true = torch.tensor([0.5, 0.4, 0.3, 0.2], dtype=torch.float64).expand(2000, 4)
    noised = noised_boxes(true)
    moved = ((noised - true)[:, :2] / true[:, 2:]).abs()
    stretched = (noised[:, 2:] / true[:, 2:] - 1).abs()
    assert 0.95 * BOX_NOISE / 2 < moved.max() <= BOX_NOISE / 2
    assert 0.95 * BOX_NOISE < stretched.max() <= BOX_NOISE + 1e-12


def test_noised_boxes_stay_in_the_picture():
    at_the_edge = torch.tensor([0.01, 0.99, 0.9, 1.0]).expand(500, 4)
    noised = noised_boxes(at_the_edge)
    assert 0 <= noised.min() and noised.max() <= 1


def test_object_t_of_an_image_stands_in_column_t_of_each_copy():
    torch.manual_seed(0)
    truth = targets(2, 3)
    noised = noised_objects(truth, copies=4, num_classes=K)
    assert noised.boxes.shape == (2, 12, 4) and noised.copies == 4
    by_copy = noised.boxes.view(2, 4, 3, 4)
    for i, target in enumerate(truth):
        M = len(target["labels"])
        shift = (by_copy[i, :, :M, :2] - target["boxes"][:, :2]).abs()
        assert (shift <= BOX_NOISE / 2 * target["boxes"][:, 2:] + 1e-12).all()


def test_rows_of_images_with_fewer_objects_are_filled_up_and_say_so():
    noised = noised_objects(targets(2, 0, 3), copies=2, num_classes=K)
    assert noised.filler.tolist() == [[False, False, True] * 2, [True] * 6, [False] * 6]
    assert (noised.labels[noised.filler] == K).all()


def test_a_share_of_the_labels_is_drawn_anew():
    truth = [{"labels": torch.zeros(4000, dtype=torch.int64), "boxes": torch.rand(4000, 4)}]
    torch.manual_seed(1)
    wrong = (noised_objects(truth, copies=1, num_classes=K).labels != 0).double().mean()
    assert wrong.item() == pytest.approx(LABEL_NOISE * (1 - 1 / K), abs=0.02)  # one in K hits the truth by luck


def test_the_noised_boxes_overlap_the_true_ones():
    truth = targets(5)
    noised = noised_objects(truth, copies=3, num_classes=K)
    low, high = box_cxcywh_to_xyxy(noised.boxes[0]).split(2, -1)
    centre = truth[0]["boxes"][:, :2].repeat(3, 1)
    assert ((low < centre) & (centre < high)).all()


# -- in the detector -------------------------------------------------------------------------------------------------

def moved(truth: list[dict]) -> list[dict]:
    """Other objects, as many in each image."""
    return [{"labels": (t["labels"] + 1) % K, "boxes": 1 - t["boxes"]} for t in truth]


def answers(model, truth) -> dict:
    torch.manual_seed(2)
    return model(*pictures(), truth)


@KINDS
def test_matched_queries_are_not_told_the_truth(kind):
    model = detector(**kind, denoising=3)
    truth = targets(3, 2)
    before, after = answers(model, truth), answers(model, moved(truth))
    assert not torch.allclose(after["denoising"]["pred_logits"], before["denoising"]["pred_logits"])
    for name in ("pred_logits", "pred_boxes"):
        assert torch.equal(after[name], before[name])


@KINDS
def test_without_the_mask_the_labels_would_leak(kind):
    # The test above can fail: with all queries in one part, the truth changes what the matched ones answer.
    model = detector(**kind, denoising=3)
    model.transformer.decoder.layers[0].self_attn.forward = without_mask(model.transformer.decoder.layers[0].self_attn)
    truth = targets(3, 2)
    before, after = answers(model, truth), answers(model, moved(truth))
    assert not torch.allclose(after["pred_logits"], before["pred_logits"])


def without_mask(attention):
    def forward(*x, attn_mask, **options):
        return type(attention).forward(attention, *x, attn_mask=None, **options)

    return forward


def given(monkeypatch: pytest.MonkeyPatch, noised: NoisedObjects) -> None:
    """Have the detector take these noised objects instead of those that it draws."""
    monkeypatch.setattr("scratch.model.anchors.detr.noised_objects", lambda *_: noised)


@KINDS
def test_the_copies_of_an_object_do_not_attend_to_each_other(kind, monkeypatch: pytest.MonkeyPatch):
    noised = noised_objects(targets(3, 3), copies=2, num_classes=K)
    noised.boxes.requires_grad_()
    given(monkeypatch, noised)
    model = detector(**kind, denoising=2)
    model(*pictures(), targets(3, 3))["denoising"]["pred_boxes"][:, :3].sum().backward()  # of the first copy
    assert noised.boxes.grad[:, :3].abs().min() > 0 and noised.boxes.grad[:, 3:].abs().max() == 0


def test_fillers_have_no_influence_on_the_objects_beside_them(monkeypatch: pytest.MonkeyPatch):
    model = detector(queries="anchor", denoising=1)
    exact = noised_objects(targets(2), copies=1, num_classes=K)
    given(monkeypatch, exact)
    alone = model(*pictures(1), targets(2))["denoising"]["pred_logits"]
    pad = torch.rand(1, 3, 4, dtype=torch.float64)
    filled = NoisedObjects(torch.cat((exact.labels, torch.full((1, 3), K)), 1), torch.cat((exact.boxes, pad), 1),
                           torch.tensor([[False, False, True, True, True]]), 1)
    given(monkeypatch, filled)
    beside = model(*pictures(1), targets(2))["denoising"]["pred_logits"]
    torch.testing.assert_close(beside[:, :2], alone, rtol=1e-12, atol=1e-12)


def test_without_targets_and_in_evaluation_there_is_no_denoising():
    model = detector(queries="anchor", denoising=3)
    assert "denoising" not in model(*pictures())
    assert "denoising" not in model.eval()(*pictures(), targets(1, 2))


@KINDS
def test_a_batch_without_any_object_computes_as_many_losses_and_gradients_as_any_other(kind):
    # Data parallelism adds them up name by name: another process may have objects.
    criterion = VariantCriterion(K, HungarianMatcher(focal=True), LossConfig())
    seen = []
    for sizes in ((0, 0), (1, 2)):
        model = detector(**{**kind, "classification": "focal"}, denoising=3)
        truth = targets(*sizes)
        losses = criterion(model(*pictures(), truth), truth)
        criterion.total(losses).backward()
        seen.append((list(losses), [name for name, p in model.named_parameters() if p.grad is not None]))
        assert sizes[0] or all(value == 0 for name, value in losses.items() if name.startswith("dn_"))
    assert seen[0] == seen[1]
    assert seen[0][1] == [name for name, _ in model.named_parameters()]


def test_a_label_that_the_model_does_not_know_is_left_to_the_matcher_to_refuse():
    truth = [{"labels": torch.tensor([K + 1]), "boxes": torch.full((1, 4), 0.5)}]
    assert noised_objects(truth, copies=5, num_classes=K).labels.max() < K


def test_denoising_learned_queries_is_refused():
    with pytest.raises(ValueError, match='at a noised box: take queries="anchor" or "proposal"'):
        detector(queries="learned", denoising=3)


@KINDS
def test_noised_queries_cannot_see_the_matched_ones_as_they_can_in_dn_detr(kind):
    model = detector(**kind, denoising=2)
    names = {"anchor": "refpoint_embed", "proposal": "group_embed"}
    matched = getattr(model, names[kind["queries"]]).weight
    truth = targets(3, 2)
    before = answers(model, truth)
    with torch.no_grad():
        matched.add_(0.5)
    after = answers(model, truth)
    assert not torch.allclose(after["pred_boxes"], before["pred_boxes"])
    for name in ("pred_logits", "pred_boxes"):
        assert torch.equal(after["denoising"][name], before["denoising"][name])


@KINDS
def test_a_label_has_the_whole_width_without_an_indicator_of_noise(kind):
    model = detector(**kind, denoising=2)
    assert model.label_embed.weight.shape == (K + 1, model.config.hidden_dim)  # and a row for "unknown"
