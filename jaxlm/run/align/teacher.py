"""A second model beside the one that is tuned: a teacher whose distribution is learnt."""

from typing import NamedTuple

from jax.sharding import Mesh

from jaxlm.core.errors import UserError
from jaxlm.core.types import Params
from jaxlm.models.api import Model
from jaxlm.run.align.base import ChatBase, check_length, check_vocabulary, open_chat_base
from jaxlm.run.align.policy import make_policy_model
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.run.setup import place_params


class Teacher(NamedTuple):
    """A model and its parameters on the mesh."""

    model: Model
    params: Params


def open_teacher(config: SftConfig, base: ChatBase, mesh: Mesh) -> Teacher | None:
    """The teacher that the config names. Raises UserError where it is no run, or reads other symbols."""
    if config.distil.teacher is None:
        return None
    found = open_chat_base(config.distil.teacher, config.distil.step)
    what = f"distil.teacher={config.distil.teacher}"
    check_vocabulary(base.tokenizer, found.tokenizer, what)
    if found.model.vocab_size != base.model.vocab_size:
        raise UserError(
            f"{what} gives {found.model.vocab_size:,} symbols and the model that is tuned {base.model.vocab_size:,}: "
            "set model.vocab_size alike"
        )
    check_length(found, config.data.seq_len)
    model = make_policy_model(found.model, config, mesh)
    assert found.params is not None
    return Teacher(model, place_params(found.params, model.rules, mesh))
