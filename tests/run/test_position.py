"""Where a run goes back to: the checkpoint is verified before the later ones go."""

import jax.numpy as jnp
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer
from jaxlm.run.position import _intact_target
from jaxlm.train.spikes import Seen, Spike
from tests.io.test_checkpoint_damage import files_of, flip


@pytest.mark.parametrize(("damaged", "target"), [((), 60), ((60,), 40), ((40, 60), 20), ((20, 40, 60), None)])
def test_a_damaged_checkpoint_is_not_gone_back_to_and_nothing_has_gone(tmp_path, damaged, target):
    steps = [20, 40, 60, 80]
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=9)) as checkpointer:
        for step in steps:
            checkpointer.save(step, {"w": jnp.arange(300.0) + step}, {})
    for step in damaged:
        flip(max(files_of(tmp_path / str(step)), key=lambda path: path.stat().st_size), 99)
    spike = Spike(tuple(Seen(step, step, 9.0, 1.0) for step in (70, 71, 72)), ((68, 68), (69, 69)), None, True)
    with Checkpointer(tmp_path) as checkpointer:
        if target is None:
            with pytest.raises(UserError, match=r"before it \(60, 40, 20 in .* are damaged"):
                _intact_target(spike, checkpointer)
        else:
            assert _intact_target(spike, checkpointer) == target
        assert checkpointer.steps() == steps


def test_the_step_before_a_suspected_spike_stays(tmp_path):
    with Checkpointer(tmp_path, CheckpointConfig(save_every=1, keep_last=1)) as checkpointer:
        for step, keep_before in ((10, None), (20, 18), (30, 18), (40, None), (50, None)):
            checkpointer.save(step, {"w": jnp.ones(3)}, {}, keep_before=keep_before)
            checkpointer.wait()
            kept = [step] if keep_before is None else [10, step]
            assert checkpointer.steps() == kept
