"""A base to tune."""

import pytest


@pytest.fixture(scope="module")
def base(tmp_path_factory, make_run):
    """A small decoder over bytes that has learnt nothing."""
    path = tmp_path_factory.mktemp("base") / "run"
    make_run(path, max_seq_len=64, seq_len=64)
    return path
