"""Stages change nothing but rounding: schedules, loss and gradients, writing, and a state restored without them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.models.decoder import DecoderConfig, MoeConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.families import check_stages, make_model
from jaxlm.models.int8_base import int8_rules, quantize_base
from jaxlm.models.lora import LoraConfig, attach, init_adapters, lora_rules
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig, make_optimizer
from jaxlm.run.setup import check_rows, lay_out_state
from jaxlm.sharding.mesh import MeshConfig, make_mesh
from jaxlm.sharding.pipeline import PipelineConfig, Schedule, choose_schedule, run_pipeline
from jaxlm.sharding.rules import param_specs
from tests.drawn import drawn_params
from tests.sharding.comparing import assert_same_on, loss_and_grads, placed

VOCAB, ROWS, SEQ_LEN = 37, 8, 8
DEEP = DecoderConfig(
    vocab_size=VOCAB,  # odd, so that the table is padded
    vocab_multiple=8,
    max_seq_len=SEQ_LEN,
    num_layers=4,
    model_dim=16,
    num_heads=4,
    num_kv_heads=2,  # fewer than most axes
    mlp_dim=24,
    init_std=None,
)
NO_BALANCE = MoeConfig(num_experts=4, top_k=2, balance_coef=0.0)
MODELS = {
    "decoder": DEEP,
    "eight": dataclasses.replace(DEEP, num_layers=8),
    "experts": dataclasses.replace(DEEP, num_layers=2, moe=NO_BALANCE),
    "windows": dataclasses.replace(DEEP, num_layers=5, window_pattern=(3, None), remat_policy="dots"),
    "written out": dataclasses.replace(DEEP, scan_layers=False, remat_policy="full", position="learned"),
    "encoder": EncoderConfig(
        vocab_size=VOCAB, vocab_multiple=8, max_seq_len=SEQ_LEN, num_layers=2, model_dim=16, num_heads=4, mlp_dim=24
    ),
}
TWO_ROUNDS = {"pipeline": PipelineConfig(rounds=2)}
TABLE = [
    ({"stage": 2, "fsdp": 2, "model": 2, **TWO_ROUNDS}, "decoder", True),
    ({"stage": 2, "data": 2, "expert": 2}, "experts", True),
]
MORE = [
    ({"stage": 2}, "decoder", False),
    ({"stage": 2, **TWO_ROUNDS}, "decoder", True),
    ({"stage": 4}, "written out", True),
    ({"stage": 4, "pipeline": PipelineConfig(4, rounds=2)}, "eight", False),
    ({"stage": 2, "data": 2, **TWO_ROUNDS}, "decoder", False),
    ({"stage": 2, "model": 4}, "windows", True),
    ({"stage": 2, "fsdp": 2}, "encoder", True),
]
"""Beside what `test_axes` tries: stages with each other axis."""


def name_of(row):
    mesh, model, _ = row
    axes = [f"{axis}{value}" for axis, value in mesh.items() if axis != "pipeline"]
    return "-".join([*axes, f"rounds{mesh.get('pipeline', PipelineConfig()).rounds}", model])


def mesh_of(**sizes):
    config = MeshConfig(**{"data": 1, **sizes})
    axes = config.axis_sizes(8) if config.data is None else None
    count = 8 if axes else int(np.prod([getattr(config, a) for a in ("data", "stage", "fsdp", "expert", "model")]))
    return config, make_mesh(config, jax.devices()[:count])


def batch(packed):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB, (ROWS, SEQ_LEN + 1)).astype(np.int32)
    mask = rng.integers(0, 2, (ROWS, SEQ_LEN)).astype(np.float32)
    out = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "loss_mask": mask}
    if packed:  # two texts in a row, their border moving from row to row, and padding behind them
        first = 1 + np.arange(ROWS)[:, None] % 4
        places = np.arange(SEQ_LEN)[None]
        out["segment_ids"] = np.where(places < first, 1, np.where(places < 7, 2, 0)).astype(np.int32)
        out["positions"] = np.where(places < first, places, places - first).astype(np.int32)
        mask *= out["segment_ids"] > 0
    return out


@functools.cache
def on_one_device(name, packed):
    """Parameters, loss and gradients."""
    model = make_model(MODELS[name])
    params = drawn_params(model)
    return params, *loss_and_grads(model, params, batch(packed))


ROWS_OF_TABLE = [pytest.param(*row, id=name_of(row)) for row in TABLE]
ROWS_OF_TABLE += [pytest.param(*row, id=name_of(row), marks=pytest.mark.slow) for row in MORE]


@pytest.mark.parametrize(("sizes", "name", "packed"), ROWS_OF_TABLE)
def test_stages_give_the_loss_and_gradients_of_one_device(sizes, name, packed):
    config, mesh = mesh_of(**sizes)
    model = make_model(MODELS[name], config.activations)
    assert_same_on(mesh, model, batch(packed), *on_one_device(name, packed))


@pytest.mark.parametrize(
    ("stages", "slots", "rounds"),
    [(2, 1, 1), (2, 3, 1), (2, 2, 3), (3, 2, 2), (4, 1, 4), (4, 2, 2), (4, 3, 1), (4, 5, 6), (8, 1, 2), (8, 2, 3)],
)
def test_each_microbatch_meets_all_layers_in_their_order_and_comes_home(stages, slots, rounds):
    """Layers that do not commute, on whole numbers: x -> 3 x + layer, modulo a prime."""
    config = MeshConfig(stage=stages, data=1)
    mesh = make_mesh(config, jax.devices()[:stages])
    schedule, layers = Schedule(stages, rounds, stages * slots), jnp.arange(2 * stages * rounds, dtype=jnp.int32)
    x = jnp.arange(2 * schedule.microbatches, dtype=jnp.int32)[:, None]

    def stage(params, x, rows, first, draw):
        assert params.shape == (2,)
        for i in range(2):
            x = (3 * x + params[i]) % 1009
        return x, {"rows": jnp.sum(rows), "right": jnp.sum(first == params[0]), "draw": draw}

    with jax.set_mesh(mesh):
        run = jax.jit(lambda layers, x: run_pipeline(stage, layers, P("stage"), x, x[:, 0], schedule))
        out, sums = run(jax.device_put(layers, NamedSharding(mesh, P("stage"))), x)
    for layer in layers:
        x = (3 * x + layer) % 1009
    np.testing.assert_array_equal(out, x)
    pieces = schedule.microbatches * stages * rounds
    assert sums["right"] == pieces
    assert sums["rows"] == stages * rounds * sum(range(2 * schedule.microbatches))
    assert sums["draw"] == stages * rounds * sum(range(schedule.microbatches))


def test_the_bubble_is_that_of_the_papers():
    """(s - 1) / (m + s - 1), and with v rounds (s - 1) / (v m + s - 1): Huang et al. 2019; Narayanan et al. 2021."""
    assert Schedule(4, 1, 12).ticks == 15
    assert Schedule(4, 1, 12).bubble == 3 / 15
    assert Schedule(4, 2, 12).bubble == 3 / 27


def test_as_many_microbatches_as_divide_the_rows_up_to_four_a_stage():
    sizes = {"data": 2, "stage": 2, "fsdp": 1, "expert": 1, "context": 1, "model": 2}
    found = {rows: choose_schedule(PipelineConfig(), rows, sizes) for rows in (4, 8, 12, 40, 64, 6)}
    assert [s and s.microbatches for s in found.values()] == [2, 4, 6, 4, 8, None]
    assert choose_schedule(PipelineConfig(16), 64, sizes) == Schedule(2, 1, 32 // 2)
    assert choose_schedule(PipelineConfig(), 8, sizes | {"stage": 1}) is None


def test_a_routers_balance_is_a_statistic_of_each_microbatch():
    """Over the rows of one, wherever they lie: the sum of those of the microbatches, each on one device."""
    model_config = dataclasses.replace(MODELS["experts"], moe=dataclasses.replace(NO_BALANCE, balance_coef=0.01))
    config, mesh = mesh_of(stage=2, data=2)
    model, plain = make_model(model_config, config.activations), make_model(model_config)
    params, rows = drawn_params(plain), batch(packed=True)
    inputs = {name: rows[name] for name in ("segment_ids", "positions")}
    with jax.set_mesh(mesh):
        terms = jax.jit(lambda p, t, i: model.hidden(p, t, **i).terms)(
            placed(plain, params, mesh), rows["tokens"], inputs
        )
    schedule = choose_schedule(config.pipeline, ROWS, dict(mesh.shape))
    assert schedule is not None
    slots = schedule.slots
    of_microbatch = jax.jit(lambda p, t, i: plain.hidden(p, t, **i).terms)
    parts = []
    for own in np.arange(ROWS).reshape(2, -1, slots).swapaxes(1, 2).reshape(2 * slots, -1):
        parts.append(of_microbatch(params, rows["tokens"][own], {name: x[own] for name, x in inputs.items()}))
    for name, term in terms.items():
        np.testing.assert_allclose(term.total, sum(part[name].total for part in parts), rtol=1e-5)
        np.testing.assert_allclose(term.count, sum(part[name].count for part in parts))


def test_dropout_is_a_function_of_layer_microbatch_and_device():
    """The same rows, everywhere: each comes out otherwise, and all of them as before when asked again."""
    config, mesh = mesh_of(stage=2, data=2)
    model = make_model(dataclasses.replace(MODELS["experts"], moe=None, dropout=0.5), config.activations)
    params, tokens = drawn_params(model), np.zeros((ROWS, SEQ_LEN), np.int32)
    with jax.set_mesh(mesh):
        hidden = jax.jit(lambda p, t: model.hidden(p, t, dropout_key=jax.random.key(1)).hidden_btd)
        first, again = (np.asarray(hidden(placed(model, params, mesh), tokens)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({row.tobytes() for row in first}) == ROWS


def test_a_cache_and_rows_that_do_not_divide_do_without_the_pipeline():
    config, mesh = mesh_of(stage=2, data=2)
    model, (params, _, _) = make_model(DEEP, config.activations), on_one_device("decoder", packed=False)
    tokens = batch(packed=False)["tokens"][:3]
    whole = make_model(DEEP).hidden(params, tokens).hidden_btd
    with jax.set_mesh(mesh):
        params = placed(model, params, mesh)
        np.testing.assert_allclose(model.hidden(params, tokens).hidden_btd, whole, atol=1e-5)
        cached = jax.jit(lambda p, t: model.hidden(p, t, kv_cache=model.init_cache(3, SEQ_LEN)).hidden_btd)
        np.testing.assert_allclose(cached(params, tokens), whole, atol=1e-5)


def test_stacked_layers_lie_along_stage_and_nothing_else_does():
    config, mesh = mesh_of(stage=2, model=4)
    model = make_model(MODELS["windows"], config.activations)
    specs = flatten_with_paths(
        param_specs(model.rules, jax.eval_shape(model.init, jax.random.key(0)), dict(mesh.shape))
    )
    for path, spec in specs.items():
        assert ("stage" in spec) == path.startswith("layers/"), path
    assert specs["layers/layer_0/attn/q/kernel"][0] == "stage"


def test_a_state_of_two_rounds_is_kept_in_the_order_of_its_layers(tmp_path):
    """Made, saved and restored on two meshes: the same numbers in the same places."""
    tx, config, mesh = make_optimizer(OptimizerConfig(), 10), *mesh_of(stage=2, fsdp=2, **TWO_ROUNDS)
    there = lay_out_state(make_model(DEEP, config.activations), tx, mesh, seed=0, ema=True)
    here = lay_out_state(make_model(DEEP), tx, mesh_of()[1], seed=0, ema=True)
    state = there.init()
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state, {})
    with Checkpointer(tmp_path, read_only=True) as checkpointer:
        restored, _ = checkpointer.restore(here.abstract)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored.params), jax.device_get(here.init().params))


@pytest.mark.parametrize(
    ("changes", "mesh", "message"),
    [
        (
            {"num_layers": 6},
            {"stage": 4},
            r"model.num_layers=6 does not divide over mesh.stage=4: make it a multiple of 4",
        ),
        (
            {"num_layers": 4},
            {"stage": 2, "pipeline": PipelineConfig(rounds=4)},
            r"num_layers=4 does not divide over mesh.stage=2 \* mesh.pipeline.rounds=4",
        ),
        ({"window_pattern": (3, 3, None)}, {"stage": 2}, r"1 whole repeats of model.window_pattern, of 3 layers each"),
        ({}, {"stage": 2, "pipeline": PipelineConfig(3)}, r"num_microbatches=3 is not a multiple of mesh.stage=2"),
    ],
)
def test_layers_that_do_not_divide_are_refused(changes, mesh, message):
    with pytest.raises(ValueError, match=message):
        check_stages(MeshConfig(**mesh), dataclasses.replace(DEEP, **changes))


def test_recurrent_layers_and_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"mesh.stage=2 .* recurrent"):
        check_stages(MeshConfig(stage=2), RecurrentConfig())
    config, mesh = mesh_of(stage=2, data=2, pipeline=PipelineConfig(8))
    with pytest.raises(UserError, match=r"do not divide over mesh.stage \* mesh.data .* = 4 devices"):
        check_rows(mesh, global_batch_size=6, microbatch_size=6)
    with pytest.raises(UserError, match=r"24 rows do not divide into mesh.pipeline.num_microbatches=8"):
        check_rows(mesh, global_batch_size=24, microbatch_size=24, pipeline=config.pipeline)
    with pytest.raises(ValueError, match=r"mesh.pipeline.rounds=0 must be at least 1"):
        PipelineConfig(rounds=0)


def test_adapters_and_an_int8_base_go_through_the_stages():
    sizes, mesh = mesh_of(stage=2)
    lora = LoraConfig(rank=2)
    model, staged = make_model(DEEP), make_model(DEEP, sizes.activations)
    params = drawn_params(model)
    adapters = jax.tree.map(lambda x: x + 0.05, init_adapters(params, lora, jax.random.key(0)))
    rows = batch(True)
    read = {name: rows[name] for name in ("positions", "segment_ids")}
    for base, rules in ((params, model.rules), (quantize_base(params), int8_rules(model.rules))):
        whole = attach(base, adapters, lora)
        wanted = jax.jit(model.apply_fn)(whole, rows["tokens"], **read)
        specs = param_specs(lora_rules(rules), whole, dict(mesh.shape))
        with jax.set_mesh(mesh):
            laid = jax.tree.map(lambda x, s: jax.device_put(x, NamedSharding(mesh, s)), whole, specs)
            found = jax.jit(staged.apply_fn)(laid, rows["tokens"], **read)
        np.testing.assert_allclose(found, wanted, atol=2e-5)
