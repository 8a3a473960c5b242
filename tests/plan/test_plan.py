"""Counts of parameters, FLOPs and memory against published figures and hand counts."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxlm.models.decoder import DecoderConfig
from jaxlm.plan.activations import Share, StepBytes, decoder_step_bytes
from jaxlm.plan.decoding import memory_bandwidth
from jaxlm.plan.flops import attention_flops_per_token, peak_flops, train_flops_per_token
from jaxlm.plan.memory import estimate_memory, sharded_bytes
from jaxlm.plan.params import attention_params, count_decoder_params, feed_forward_params
from jaxlm.sharding.activations import ActivationLayout
from jaxlm.sharding.pipeline import PipelineConfig, Schedule

GPT2 = DecoderConfig(
    vocab_size=50257,
    max_seq_len=1024,
    num_layers=12,
    model_dim=768,
    num_heads=12,
    mlp="gelu",
    norm="layernorm",
    bias=True,
    qk_norm=False,
    position="learned",
    tie_embeddings=True,
)


def test_gpt2_has_the_published_number_of_parameters():
    counts = count_decoder_params(GPT2)
    assert counts.total == 124_439_808
    assert counts.embedding == 50257 * 768 + 1024 * 768
    assert counts.matmul == counts.total - 1024 * 768


def test_attention_counts_causal_keys_exactly():
    config = DecoderConfig(vocab_size=10, num_layers=3, model_dim=32, num_heads=2, window_pattern=(None, 4, 4))
    seq_len = 16
    keys = [sum(min(t + 1, window or seq_len) for t in range(seq_len)) / seq_len for window in (None, 4, 4)]
    np.testing.assert_allclose(attention_flops_per_token(config, seq_len), 4 * 2 * 16 * sum(keys))


def test_train_flops_are_six_n_plus_attention():
    flops = train_flops_per_token(GPT2, 1024)
    n = count_decoder_params(GPT2).matmul
    np.testing.assert_allclose(flops, 6 * n + 3 * 12 * 4 * 768 * 1025 / 2)


def test_peaks_are_found_by_device_kind():
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("TPU v5 lite") == 197e12
    assert peak_flops("TPU v5p") == 459e12
    assert peak_flops("TPU v6 lite") == 918e12
    assert peak_flops("NVIDIA L40S") == 362e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("NVIDIA L400") is None
    assert peak_flops("cpu") is None
    assert memory_bandwidth("NVIDIA GH200 480GB") == 4.0e12
    assert memory_bandwidth("NVIDIA L4") == 0.3e12


def test_sharded_bytes_divide_by_the_axes_of_each_spec():
    shapes = {"a": jax.ShapeDtypeStruct((8, 4), "float32"), "b": jax.ShapeDtypeStruct((6,), "bfloat16")}
    specs = {"a": P(("data", "fsdp"), "model"), "b": P()}
    assert sharded_bytes(shapes, specs, {"data": 2, "fsdp": 2, "model": 4}) == 8 * 4 * 4 // 16 + 12


@pytest.mark.parametrize(
    ("change", "term"), [({"remat_policy": "full"}, "activations"), ({"vocab_size": 5025}, "logits")]
)
def test_what_the_advice_names_lowers_its_term(change, term):
    def bytes_of(config):
        estimate = estimate_memory(param_bytes=10, state_bytes=30, step=decoder_step_bytes(config, Share(8, 1024)))
        return {t.name: t.num_bytes for t in estimate.terms}

    assert bytes_of(DecoderConfig(**{**vars(GPT2), **change})).get(term, 0) < 0.5 * bytes_of(GPT2)[term]


def test_the_loss_and_the_backward_pass_are_not_held_at_once():
    small, large = (
        estimate_memory(param_bytes=10, state_bytes=30, step=StepBytes(kept=100, layer=20, weights=5, logits=logits))
        for logits in (1, 1000)
    )
    assert small.total == 30 + 100 + 10 + 20 + 5
    assert large.total == 30 + 100 + 1000
    summed = estimate_memory(param_bytes=10, state_bytes=30, step=StepBytes(100, 20, 5, 1), accumulates=True)
    assert summed.total == small.total + 10


def test_a_stage_holds_its_own_layers_and_works_on_one_microbatch():
    """docs/pipeline.md, "What a tick keeps": counted by hand for four stages of three layers."""
    sizes = {"data": 1, "stage": 4, "fsdp": 2, "expert": 1, "context": 1, "model": 1}
    share = Share.on(sizes, ActivationLayout(pipeline=PipelineConfig(num_microbatches=8)), rows=8, seq_len=1024)
    assert share.schedule is not None
    assert (share.schedule.slots, share.schedule.ticks) == (2, 11)
    step = decoder_step_bytes(GPT2, share)
    tick = 8 // 2 * 1024
    assert step.kept == 11 * tick * 768 * 4
    layer = attention_params(GPT2) + feed_forward_params(GPT2)[0]
    assert step.stage == 3 * layer * 4
    alone = decoder_step_bytes(dataclasses.replace(GPT2, num_layers=3), Share(4, 1024))
    assert step.stage_kept == alone.kept
    # Two rounds: as many layers, half of them in a tick; and a run without a pipeline is as it was.
    circular = decoder_step_bytes(GPT2, share._replace(schedule=Schedule(stages=2, rounds=2, microbatches=4)))
    assert circular.stage == 2 * step.stage
    assert circular.stage_kept == step.stage_kept
    assert decoder_step_bytes(GPT2, share._replace(schedule=None)) == decoder_step_bytes(GPT2, Share(8, 1024))


def test_the_work_of_a_stage_counts_while_layers_go_backward():
    def total(**sizes):
        return estimate_memory(param_bytes=10, state_bytes=30, step=StepBytes(100, 20, 5, **sizes)).total

    assert total(logits=1, stage=7, stage_kept=9) == total(logits=1) + 16
    assert total(logits=1000, stage=7, stage_kept=9) == total(logits=1000) + 7
