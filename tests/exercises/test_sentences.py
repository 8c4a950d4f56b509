"""The name of a test as the sentence that it is."""

from __future__ import annotations

import pytest

from exercises.sentences import sentence


@pytest.mark.parametrize("test, words", [
    ("test_rows_sum_to_one", "Rows sum to one"), ("test_giou_is_that_of_torch_nn", "GIoU is that of torch.nn"),
    ("test_nan_is_refused", "NaN is refused"),
    ("tests/ops/test_linear.py::test_the_ladder_agrees[3-x]", "The ladder agrees"),
])
def test_the_name_of_a_test_becomes_a_sentence(test: str, words: str) -> None:
    assert sentence(test) == words
