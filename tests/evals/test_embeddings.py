"""Neighbours and analogies in a table whose geometry is known."""

import numpy as np
import pytest

from jaxlm.evals.embeddings import analogy, nearest

# Gender along the first axis, royalty along the second, food along the third.
TABLE = np.array([[1, 0, 0], [-1, 0, 0], [1, 2, 0], [-1, 2, 0], [0.1, 0, 3], [0, 0.1, 2]], np.float32)
MAN, WOMAN, KING, QUEEN, BREAD, SOUP = range(6)


def test_neighbours_are_ordered_by_cosine_whatever_their_length():
    found = nearest(TABLE, TABLE[BREAD], count=2, without=[BREAD])
    assert found[0].token == SOUP
    assert found[0].cosine == pytest.approx(
        TABLE[BREAD] @ TABLE[SOUP] / np.prod(np.linalg.norm(TABLE[[BREAD, SOUP]], axis=1))
    )
    assert nearest(TABLE, TABLE[KING], count=9)[0].token == KING
    assert len(nearest(TABLE, TABLE[KING], count=9, without=[KING, MAN])) == 4


def test_king_is_to_man_as_queen_is_to_woman():
    assert analogy(TABLE, MAN, KING, WOMAN)[0].token == QUEEN
    assert {MAN, KING, WOMAN}.isdisjoint(one.token for one in analogy(TABLE, MAN, KING, WOMAN))
