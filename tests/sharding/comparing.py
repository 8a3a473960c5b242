"""A model on a mesh beside the same on one device: loss with all its terms, and each gradient tensor by norm."""

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxlm.core.tree import flatten_with_paths
from jaxlm.run.setup import batch_sharding
from jaxlm.sharding.rules import param_specs
from jaxlm.train.objectives import causal_objective

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""For programs that run once: compiling them well would take most of the time."""


def loss_and_grads(model, params, rows, loss_chunk=None):
    """The loss of a batch and its gradients."""
    objective = causal_objective(model, loss_chunk=loss_chunk)

    def loss_fn(params):
        terms, _ = objective.terms(params, None, None, rows, jax.random.key(0))
        counts = objective.counts(rows)
        return sum(term.weight * term.total / counts[name] for name, term in terms.items())

    return jax.jit(jax.value_and_grad(loss_fn), compiler_options=QUICK)(params)


def placed(model, params, mesh):
    """The parameters as the model's rules lay them on the mesh."""
    specs = param_specs(model.rules, params, dict(mesh.shape))
    return jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), params, specs)


def assert_same_on(mesh, model, rows, params, loss, grads, loss_chunk=None):
    """On the mesh the loss is ``loss`` and each gradient is that of ``grads``, to 1e-5."""
    with jax.set_mesh(mesh):
        rows = jax.device_put(rows, batch_sharding(mesh))
        other, other_grads = loss_and_grads(model, placed(model, params, mesh), rows, loss_chunk)
    np.testing.assert_allclose(other, loss, rtol=1e-5)
    others = flatten_with_paths(other_grads)
    for path, x in flatten_with_paths(grads).items():
        assert np.linalg.norm(np.asarray(others[path]) - x) <= 1e-5 * np.linalg.norm(x), path
