"""The one-to-many route: a second prediction of each query, through weights of its own, in training alone."""

from __future__ import annotations

import pytest
import torch

from scratch.config import LossConfig
from scratch.model.anchors.one_to_many import OneToManyFeedForward, with_route
from scratch.model.build import build_detr
from scratch.objective.matcher import HungarianMatcher
from scratch.objective.variant import criterion_for
from tests.model.anchors.test_denoising import targets
from tests.model.anchors.test_queries import SMALL, detector, pictures

PROPOSAL = dict(queries="proposal", classification="focal", fine_memory=True, roi_features=True)
KINDS = pytest.mark.parametrize("kind", [PROPOSAL, dict(queries="anchor", classification="focal")],
                                ids=lambda kind: kind["queries"])
NAMES = ("pred_logits", "pred_boxes")


def copied(model) -> None:
    """Give the second feed-forward network of each layer the weights of the first."""
    for layer in model.transformer.decoder.layers:
        route = layer.one_to_many
        for own, other in ((route.linear1, layer.linear1), (route.linear2, layer.linear2), (route.norm, layer.norm3)):
            own.load_state_dict(other.state_dict())


@KINDS
def test_with_the_same_weights_both_answers_of_a_query_are_the_same(kind):
    model = detector(**kind, one_to_many=3)
    copied(model)
    outputs = model(*pictures())
    route = outputs["one_to_many"]
    for one, other in zip([*outputs["aux_outputs"], outputs], [*route["aux_outputs"], route]):
        for name in NAMES:
            torch.testing.assert_close(other[name], one[name], rtol=1e-12, atol=1e-12)


@KINDS
def test_the_route_of_a_layer_starts_from_the_tokens_of_the_other(kind):
    # In Mr. DETR it would go on from layer to layer: other weights in layer 1 would change its answer in layer 2.
    model = detector(**kind, one_to_many=3)
    before = model(*pictures())
    with torch.no_grad():
        model.transformer.decoder.layers[0].one_to_many.linear2.weight.mul_(3)
    after = model(*pictures())
    for name in NAMES:
        assert torch.equal(after[name], before[name])
        assert torch.equal(after["aux_outputs"][0][name], before["aux_outputs"][0][name])
        assert torch.equal(after["one_to_many"][name], before["one_to_many"][name])
        assert not torch.allclose(after["one_to_many"]["aux_outputs"][0][name],
                                  before["one_to_many"]["aux_outputs"][0][name])


@KINDS
def test_attention_and_heads_learn_from_it_and_the_other_feed_forward_network_of_its_layer_does_not(kind):
    model = detector(**kind, one_to_many=3)
    model(*pictures())["one_to_many"]["pred_logits"].sum().backward()  # of the last layer
    layer = model.transformer.decoder.layers[-1]
    for learns in (layer.self_attn, layer.cross_attn, layer.one_to_many, model.class_embed, model.backbone):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in learns.parameters())
    assert layer.linear1.weight.grad.abs().max() == layer.linear2.weight.grad.abs().max() == 0


@KINDS
def test_inference_neither_computes_it_nor_depends_on_its_weights(kind):
    model = detector(**kind, one_to_many=3).eval()
    before = model(*pictures())
    assert "one_to_many" not in before
    for layer in model.transformer.decoder.layers:
        del layer.one_to_many
    after = model(*pictures())
    assert all(torch.equal(after[name], before[name]) for name in NAMES)


def test_the_first_group_alone_has_it_and_noised_boxes_are_as_without():
    truth = targets(3, 2)
    with_it = detector(**PROPOSAL, groups=2, denoising=2, one_to_many=3)
    without = build_detr(SMALL, **PROPOSAL, groups=2, denoising=2).double()
    without.load_state_dict({name: tensor for name, tensor in with_it.state_dict().items() if "one_to_many" not in name})
    answers = []
    for model in (with_it, without):
        torch.manual_seed(2)
        answers.append(model(*pictures(), truth))
    assert answers[0].pop("one_to_many")["pred_boxes"].shape == (2, SMALL.num_queries, 4)
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-12, atol=1e-12)


def test_queries_without_a_cell_are_silent_in_both_answers():
    model = detector(**{**PROPOSAL, "num_queries": 9}, one_to_many=3)  # 64×96 pixels have 6 cells
    logits = model(*pictures())["one_to_many"]["pred_logits"]
    assert (logits[:, 6:] == -20).all() and (logits[:, :6] > -20).all()


def test_it_is_the_feed_forward_network_of_the_layer_in_train_and_eval_mode():
    torch.manual_seed(0)
    network, x = OneToManyFeedForward(8, 17, dropout=0.5).double(), torch.randn(2, 3, 8, dtype=torch.float64)
    theirs = torch.nn.Sequential(torch.nn.Linear(8, 17), torch.nn.ReLU(), torch.nn.Linear(17, 8)).double()
    theirs[0].load_state_dict(network.linear1.state_dict()), theirs[2].load_state_dict(network.linear2.state_dict())
    expected = torch.nn.functional.layer_norm(x + theirs(x), (8,))
    torch.testing.assert_close(network.eval()(x), expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(network.train()(x), expected)


def test_what_the_first_queries_have_comes_once_more_at_the_end():
    x = torch.arange(6.0).view(1, 3, 2)
    assert with_route(x, 2).tolist() == [[[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]]
    assert with_route(x, 0) is x


@KINDS
def test_a_batch_without_any_object_computes_as_many_losses_and_gradients_as_any_other(kind):
    seen = []
    for sizes in ((0, 0), (1, 2)):
        model = detector(**kind, one_to_many=3)
        truth = targets(*sizes)
        criterion = criterion_for(model.config, HungarianMatcher(focal=True), LossConfig())
        losses = criterion(model(*pictures(), truth), truth)
        criterion.total(losses).backward()
        seen.append((list(losses), [name for name, p in model.named_parameters() if p.grad is not None]))
        assert losses["many_loss_ce"] > 0 and (losses["many_loss_giou"] > 0) == (sizes != (0, 0))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("fields, words", [
    (dict(), r'one_to_many is on with queries "learned".* leave it off \(--one-to-many 0\)'),
    (dict(roi_features=True), r"roi_features and one_to_many are on .* them off \(--no-roi-features --one-to-many 0\)"),
    (dict(queries="anchor"), 'one_to_many is 3 with classification "softmax".* or one_to_many=0')])
def test_without_boxes_or_sigmoids_it_is_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        build_detr(SMALL, one_to_many=3, **fields)
