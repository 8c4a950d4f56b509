"""A sample stands for its tensor, and each figure is the one that a person works out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scratch.analysis.layer_samples import (
    RUN, SAMPLE, Rows, attention_figures, histograms, pooled_std, sample, sample_channels, sample_tokens, stride,
    sure_share,
)

CPU = torch.device("cpu")


def test_a_stride_takes_as_much_as_it_may_and_shares_no_factor_with_the_count() -> None:
    assert [stride(12, 4), stride(12, 12), stride(12, 100), stride(0, 4)] == [5, 1, 1, 1]  # 3 and 4 divide 12
    for count in range(1, 400):
        k = stride(count, 16)
        assert len(range(0, count, k)) <= 16 and math.gcd(k, count) == 1


def test_a_small_tensor_is_seen_whole() -> None:
    x = torch.randn(3, 5, 7)
    assert torch.equal(sample(x).sort().values, x.flatten().sort().values)


@pytest.mark.parametrize("channels", [64, 48, 96, 256])
def test_of_an_image_with_channels_last_all_channels_are_seen_alike_and_nothing_is_copied(channels: int) -> None:
    x = torch.empty(2, channels, 61, 67).contiguous(memory_format=torch.channels_last)
    x.copy_(torch.arange(channels)[:, None, None].expand(x.shape))
    seen = sample(x)
    assert seen.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert seen.shape[1] == RUN and SAMPLE / 2 < seen.numel() <= SAMPLE
    counts = torch.bincount(seen.flatten().long(), minlength=channels)
    assert counts.max() - counts.min() <= 1


def test_a_tensor_with_gaps_is_seen_too() -> None:
    x = torch.randn(100, 200)[:, ::2]
    assert sample(x).numel() <= SAMPLE
    assert sample(x).std() == pytest.approx(1.0, abs=0.05)


def test_tokens_are_taken_whole_and_channels_so_that_a_sample_is_left() -> None:
    x = torch.arange(3 * 53 * 128).view(3, 53, 128)
    tokens = sample_tokens(x, 64)  # every 4th of 159
    assert len(tokens) == 40 and (tokens[:, 1:] - tokens[:, :-1] == 1).all()
    channels = sample_channels(tokens, len(tokens))  # every 3rd of 128: two of three would be too many
    assert channels.shape == (40, 43) and torch.equal(channels[:, 1], tokens[:, 3])
    assert channels.numel() <= SAMPLE


def test_mean_and_variance_of_rows_of_different_lengths_are_those_of_each() -> None:
    rows = Rows(3, CPU)
    rows.put(0, torch.tensor([1.0, 3.0]))
    rows.put(2, torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.bfloat16))
    mean, variance = rows.moments()
    assert mean.tolist() == [2.0, 0.0, 3.0] and variance.tolist() == [1.0, 0.0, 3.5]
    assert rows.mean_of((rows.values <= 2).float()).tolist() == [0.5, 0.0, 0.5]  # the zeros behind a row do not count


def test_a_shorter_sample_forgets_the_rest_of_the_one_before() -> None:
    rows = Rows(1, CPU)
    rows.put(0, torch.tensor([5.0, 7.0, 9.0]))
    rows.moments()
    rows.put(0, torch.tensor([4.0]))
    assert rows.values[0, :4].tolist() == [4.0, 0.0, 0.0, 0.0]
    assert [figure.tolist() for figure in rows.moments()] == [[4.0], [0.0]]


def test_a_small_spread_around_one_is_not_lost_to_rounding() -> None:
    rows = Rows(1, CPU)
    rows.put(0, 1 + 1e-4 * torch.tensor([-1.0, 1.0] * 500))
    assert rows.moments()[1].sqrt().item() == pytest.approx(1e-4, rel=1e-3)


def test_the_entropy_of_looking_everywhere_is_one_and_of_one_key_nought() -> None:
    weights = torch.full((2, 3, 5, 8), 1 / 8)
    weights[:, 1] = torch.eye(8)[3]
    weights[:, 2] = torch.tensor([0.5, 0.5, 0, 0, 0, 0, 0, 0])  # log 2 of log 8
    entropy, sure, _ = attention_figures(weights, 4)
    assert entropy.tolist() == pytest.approx([1.0, 0.0, 1 / 3], abs=1e-6)
    assert sure.tolist() == [0.0, 1.0, 0.0]


def test_the_undivided_entropy_is_that_of_the_scores_times_the_root_of_the_width() -> None:
    scores = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).double()
    scores[1, :, :, 4:] = -math.inf
    pad_mask = torch.zeros(2, 7, dtype=torch.bool)
    pad_mask[1, 4:] = True
    undivided = attention_figures((scores / 11**0.5).softmax(-1), 11, pad_mask)[2]
    assert undivided.tolist() == pytest.approx(attention_figures(scores.softmax(-1), 11, pad_mask)[0].tolist())


def test_padding_is_no_key() -> None:
    weights, pad_mask = torch.zeros(2, 1, 5, 8), torch.zeros(2, 8, dtype=torch.bool)
    weights[0] = 1 / 8
    weights[1, ..., :2] = 1 / 2
    pad_mask[1, 2:] = True
    assert attention_figures(weights, 4, pad_mask)[0].item() == pytest.approx(1.0)
    weights[1, ..., :2] = torch.tensor([1.0, 0.0])
    pad_mask[1, 1:] = True  # an image of one key, which has no choice
    assert attention_figures(weights, 4, pad_mask)[0].item() == pytest.approx(0.5)


def test_weights_under_dropout_are_divided_by_their_sum_again() -> None:
    dropped = torch.tensor([0.3125] * 4 + [0.0])[None, None, None]  # ⅕ each, of which one is dropped: ¼ ÷ 0.8
    assert attention_figures(dropped, 4)[0].item() == pytest.approx(math.log(4) / math.log(5))


def test_attention_of_many_images_and_queries_is_sampled_evenly() -> None:
    weights = torch.full((3, 2, 500, 7), 1 / 7)
    weights[1:, 1] = torch.eye(7)[0]
    entropy, sure, _ = attention_figures(weights, 4)
    assert entropy.tolist() == pytest.approx([1.0, 1 / 3]) and sure.tolist() == pytest.approx([0.0, 2 / 3])


def test_an_answer_is_sure_above_nine_tenths() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0], [0.0, math.log(8.0 * 2), 0.0], [0.0, 0.0, math.log(10.0 * 2)]])
    assert sure_share(scores).item() == pytest.approx(1 / 3)  # ⅓, 16/18, 20/22


def test_the_spread_of_several_tensors_is_that_of_all_their_numbers() -> None:
    a, b = np.array([1.0, 2.0, 6.0]), np.array([10.0, -4.0])
    parts = [(len(x), x.mean(), x.var()) for x in (a, b)]
    assert pooled_std(parts) == pytest.approx(np.concatenate((a, b)).std())


def test_a_histogram_counts_each_unit_over_the_bins_of_all() -> None:
    grid = np.arange(0, 48) + 0.5
    counted = histograms([[(48, grid)], [(48, np.full(10, 0.5))]])
    assert counted["low"] == 0.5 and 47 < counted["high"] <= 47.5
    assert sum(counted["shares"][0]) == pytest.approx(1.0, abs=0.01) and max(counted["shares"][0]) < 0.07
    assert counted["shares"][1] == [1.0] + [0.0] * 47


def test_a_large_tensor_counts_more_in_its_unit_than_a_small_one() -> None:
    counted = histograms([[(90, np.array([0.0, 0.0])), (10, np.array([1.0]))]])
    assert counted["shares"][0][0] == pytest.approx(0.9) and counted["shares"][0][-1] == pytest.approx(0.1)


def test_powers_of_ten_are_counted_and_zeros_apart() -> None:
    counted = histograms([[(4, np.array([0.0, 1e-3, -1e-3, 0.1]))]], powers=True)
    assert (counted["low"], counted["high"], counted["zeros"]) == (-3.0, pytest.approx(-1, abs=0.01), [0.25])
    assert counted["shares"][0][0] == 0.5 and counted["shares"][0][-1] == 0.25


def test_what_is_not_finite_has_no_bin() -> None:
    counted = histograms([[(8, np.array([1.0, 2.0, 3.0, 4.0, math.inf, math.inf, -math.inf, math.nan]))]])
    assert (counted["low"], counted["high"]) == pytest.approx((1.0, 4.0), abs=0.01)
    assert sum(counted["shares"][0]) == pytest.approx(0.5)
    assert histograms([[(2, np.array([math.nan, math.inf]))]]) is None


def test_numbers_that_are_all_one_have_no_bins_and_none_have_no_histogram() -> None:
    assert histograms([[(3, np.ones(3))]]) == {"low": 1.0, "high": 1.0, "shares": [], "zeros": []}
    assert histograms([[]]) is None
