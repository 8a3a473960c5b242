"""Bins of loss by position."""

import numpy as np
import pytest

from jaxlm.evals.positions import loss_by_position


def test_bins_double_and_every_token_up_to_the_longest_is_in_one():
    texts = [-np.arange(1.0, 13.0), -np.arange(1.0, 4.0), np.zeros(0)]
    found = loss_by_position(texts, longest=10)
    assert [(one.first, one.last, one.num_tokens) for one in found] == [
        (1, 1, 2),
        (2, 2, 2),
        (3, 4, 3),
        (5, 8, 4),
        (9, 10, 2),
    ]
    assert [one.nats for one in found] == pytest.approx([1, 2, 10 / 3, 6.5, 9.5])
    assert [one.last for one in loss_by_position(texts[1:], longest=10)] == [1, 2, 4]
