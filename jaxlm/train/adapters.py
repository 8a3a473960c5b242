"""Any objective, with low-rank adapters as what is trained and the base among what is frozen."""

from jaxlm.core.types import Array, Batch, Params, PyTree, Terms
from jaxlm.models.lora import LoraConfig, attach
from jaxlm.train.step import Objective


def lora_objective(objective: Objective, config: LoraConfig) -> Objective:
    """``objective`` of ``attach(base, adapters)``: ``params`` are the adapters, ``frozen`` is ``{"base": parameters of
    the model, "rest": the objective's own frozen}``. The base is an argument, sharded like parameters, and for losses
    against a reference it is the reference too."""

    def terms(params: Params, frozen: PyTree, carry: PyTree, batch: Batch, key: Array) -> tuple[Terms, PyTree]:
        return objective.terms(attach(frozen["base"], params, config), frozen.get("rest"), carry, batch, key)

    return objective._replace(terms=terms)
