"""Laws of lanes: every prediction once, each row goes on where the one before it in its lane ended."""

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig, batch_keys, eval_plan, make_batch, train_plan
from jaxlm.data.lanes import lay_in_lanes
from jaxlm.data.rows import ArraySource


@pytest.mark.parametrize(
    ("num_tokens", "seq_len", "lanes"), [(101, 5, 4), (17, 4, 4), (16, 4, 3), (5, 8, 4), (90, 1, 7)]
)
def test_every_prediction_once_and_in_order(num_tokens, seq_len, lanes):
    source = ArraySource(np.arange(num_tokens))
    config = DataConfig(seq_len=seq_len, packing="stream")
    plans = [eval_plan(source, config, batch_size=lanes)]
    if num_tokens >= seq_len:
        plans.append(train_plan(source, config, global_batch_size=lanes, seed=0))
    for plan in plans:
        seen, next_token = [], None
        assert plan.rows.num_rows % lanes == 0
        for batch_id in range(plan.rows.num_rows // lanes):
            batch = make_batch(source, plan, plan.row_ids(batch_id), pad_id=0)
            assert tuple(batch) == batch_keys(plan.rows)
            counted = batch["loss_mask"] > 0
            seen.append(batch["targets"][counted])
            np.testing.assert_array_equal(batch["tokens"][counted] + 1, batch["targets"][counted])
            np.testing.assert_array_equal(batch["positions"][:, 0] == 0, batch_id == 0)
            if next_token is not None:
                begun = counted[:, 0]
                np.testing.assert_array_equal(batch["tokens"][begun, 0], next_token[begun])
            next_token = batch["targets"][:, -1]
        assert sorted(np.concatenate(seen).tolist()) == list(range(1, num_tokens))


def test_epochs_follow_each_other_in_the_same_order():
    source = ArraySource(np.arange(50))
    plan = train_plan(source, DataConfig(seq_len=5, packing="stream"), global_batch_size=3, seed=7)
    per_epoch = plan.rows.num_rows // 3
    for batch_id in range(per_epoch):
        first, again = (
            make_batch(source, plan, plan.row_ids(batch_id + e * per_epoch), pad_id=0)["tokens"] for e in (0, 1)
        )
        np.testing.assert_array_equal(first, again)


def test_too_little_text_is_refused():
    with pytest.raises(UserError, match="do not fill 8 lanes"):
        lay_in_lanes(8, 4, 8)
