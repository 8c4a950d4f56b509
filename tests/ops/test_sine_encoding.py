"""sine_encoding: equal to a slow loop over the definition, to hand-worked numbers, and blind to padding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from scratch.ops.attention import MultiheadAttention
from scratch.ops.sine_encoding import sine_code_naive, sine_encoding


def slow(pad_mask: Tensor, F: int, temperature: float = 10000.0, normalize: bool = True) -> Tensor:
    """Cell by cell and channel by channel, in Python's own floats."""
    B, h, w = pad_mask.shape
    image = (~pad_mask).tolist()
    code = torch.zeros(B, 2 * F, h, w, dtype=torch.float64)
    for b in range(B):
        for i in range(h):
            for j in range(w):
                y = sum(image[b][u][j] for u in range(i + 1))
                x = sum(image[b][i][u] for u in range(j + 1))
                if normalize:
                    y = y / (sum(image[b][u][j] for u in range(h)) + 1e-6) * 2 * math.pi
                    x = x / (sum(image[b][i][u] for u in range(w)) + 1e-6) * 2 * math.pi
                for channel in range(F):
                    sinusoid = math.cos if channel % 2 else math.sin
                    period = temperature ** (2 * (channel // 2) / F)
                    code[b, channel, i, j] = sinusoid(y / period)
                    code[b, F + channel, i, j] = sinusoid(x / period)
    return code


def padded(B: int, h: int, w: int, sizes: list[tuple[int, int]]) -> Tensor:
    mask = torch.ones(B, h, w, dtype=torch.bool)
    for b, (rows, columns) in enumerate(sizes):
        mask[b, :rows, :columns] = False
    return mask


@given(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5), st.sampled_from([2, 4, 6]), st.booleans(),
       st.sampled_from([20.0, 10000.0]), st.data())
def test_equals_the_slow_loop(B, h, w, F, normalize, temperature, data):
    sizes = [(data.draw(st.integers(0, h)), data.draw(st.integers(0, w))) for _ in range(B)]
    mask = padded(B, h, w, sizes)
    fast = sine_encoding(mask, F, temperature, normalize, dtype=torch.float64)
    torch.testing.assert_close(fast, slow(mask, F, temperature, normalize), rtol=0, atol=1e-12)


def test_the_ladder_agrees():
    code = sine_encoding(padded(1, 3, 5, [(3, 5)]), 6, normalize=False, dtype=torch.float64)[0]
    for i in range(3):
        for j in range(5):
            naive = sine_code_naive(i + 1, 6) + sine_code_naive(j + 1, 6)
            assert code[:, i, j].tolist() == pytest.approx(naive, abs=1e-12)


def test_float32_is_off_by_rounding_only():
    mask = padded(2, 11, 13, [(11, 7), (5, 13)])
    torch.testing.assert_close(sine_encoding(mask, 8), slow(mask, 8).float(), rtol=0, atol=2e-6)


def test_numbers_worked_by_hand():
    # A 2×4 image, F = 4, so the two periods are 1 and 100. Cell (0, 0): y = ½·2π = π and x = ¼·2π = π/2.
    code = sine_encoding(padded(1, 2, 4, [(2, 4)]), 4, dtype=torch.float64)[0, :, 0, 0]
    by_hand = [0, -1, math.sin(math.pi / 100), math.cos(math.pi / 100),
               1, 0, math.sin(math.pi / 200), math.cos(math.pi / 200)]
    assert code.tolist() == pytest.approx(by_hand, abs=4e-6)  # the 1e-6 of the denominator moves y by 1.6e-6


def test_the_picture_of_the_header():
    mask = torch.tensor([[[0, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1]]], dtype=torch.bool)
    # F = 2 has the period 1 alone; with scale 1 in place of 2π the angle is the share of the picture.
    code = sine_encoding(mask, 2, scale=1.0, dtype=torch.float64)[0]
    y, x = torch.atan2(code[0], code[1]), torch.atan2(code[2], code[3])
    third = 1 / 3
    by_hand_y = torch.tensor([[0.5, 0.5, 0.5, 0], [1, 1, 1, 0], [1, 1, 1, 0]], dtype=torch.float64)
    by_hand_x = torch.tensor([[third, 2 * third, 1, 1], [third, 2 * third, 1, 1], [0, 0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(y, by_hand_y, rtol=0, atol=1e-6)
    torch.testing.assert_close(x, by_hand_x, rtol=0, atol=1e-6)


def test_the_code_of_an_image_does_not_depend_on_its_padding():
    alone = sine_encoding(padded(1, 5, 7, [(5, 7)]), 6, dtype=torch.float64)
    in_a_batch = sine_encoding(padded(1, 11, 13, [(5, 7)]), 6, dtype=torch.float64)
    torch.testing.assert_close(alone, in_a_batch[:, :, :5, :7], rtol=0, atol=1e-12)


def test_y_comes_first_and_x_second():
    code = sine_encoding(padded(1, 5, 7, [(5, 7)]), 6)[0]
    assert (code[:6] == code[:6, :, :1]).all() and (code[6:] == code[6:, :1, :]).all()


def test_a_fully_padded_image_gives_finite_values():
    assert sine_encoding(torch.ones(1, 5, 7, dtype=torch.bool), 6).isfinite().all()


def test_a_step_is_a_rotation_of_each_pair():
    code = sine_encoding(padded(1, 1, 9, [(1, 9)]), 4, normalize=False, dtype=torch.float64)[0, 4:, 0]  # (F, w)
    for pair, period in ((0, 1.0), (2, 100.0)):
        sin, cos = math.sin(3 / period), math.cos(3 / period)
        turn = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
        torch.testing.assert_close(turn @ code[pair:pair + 2, :-3], code[pair:pair + 2, 3:], rtol=0, atol=1e-12)


def test_the_first_pair_turns_once_over_the_image_and_the_last_hardly_moves():
    code = sine_encoding(padded(1, 1, 100, [(1, 100)]), 128, dtype=torch.float64)[0, 128:, 0]
    assert code[0].amax() > 0.99 and code[0].amin() < -0.99
    assert code[126].amax() - code[126].amin() < 1e-3 and code[127].amin() > 1 - 1e-6


def test_of_detrs_64_pairs_35_move_by_less_than_a_tenth_of_a_radian_and_only_the_first_turns_once():
    turns = [2 * math.pi / 10000 ** (2 * i / 128) for i in range(64)]  # from one edge of the image to the other
    assert turns[0] == 2 * math.pi and max(turns[1:]) < 2 * math.pi
    assert sum(turn < 0.1 for turn in turns) == 35
    code = sine_encoding(padded(1, 1, 1000, [(1, 1000)]), 128, dtype=torch.float64)[0, 128:, 0].unflatten(0, (64, 2))
    steps = (code[:, :, 1:] - code[:, :, :-1]).norm(dim=1).sum(-1)  # the way along the circle, but for the first cell
    torch.testing.assert_close(steps, torch.tensor(turns, dtype=torch.float64) * 999 / 1000, rtol=1e-5, atol=0)


@pytest.mark.parametrize("columns", [8, 12])
def test_a_quarter_of_the_image_is_one_rotation_whatever_the_number_of_its_cells(columns):
    code = sine_encoding(padded(1, 1, columns, [(1, columns)]), 4, dtype=torch.float64)[0, 4:, 0]  # (F, w)
    for pair, period in ((0, 1.0), (2, 100.0)):
        sin, cos = math.sin(math.pi / 2 / period), math.cos(math.pi / 2 / period)
        turn, cells = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64), columns // 4
        torch.testing.assert_close(turn @ code[pair:pair + 2, :-cells], code[pair:pair + 2, cells:], rtol=0, atol=1e-6)


def test_without_an_encoding_attention_does_not_see_the_order_of_its_tokens():
    layer, tokens, order = MultiheadAttention(6, 2).double(), torch.randn(1, 5, 6, dtype=torch.float64), [3, 0, 4, 1, 2]
    shuffled = tokens[:, order]
    torch.testing.assert_close(layer(shuffled, shuffled, shuffled)[0], layer(tokens, tokens, tokens)[0][:, order])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_the_float32_code_rounded_once(dtype):
    mask = padded(2, 11, 13, [(11, 7), (5, 13)])
    assert torch.equal(sine_encoding(mask, 8, dtype=dtype), sine_encoding(mask, 8).to(dtype))


def test_an_odd_number_of_features_is_refused():
    with pytest.raises(ValueError, match="num_pos_feats 5"):
        sine_encoding(torch.zeros(1, 2, 2, dtype=torch.bool), 5)
