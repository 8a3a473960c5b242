"""``weights="row"``: greedy decoding of one row by one kernel, everything else by XLA on the same weights."""

import dataclasses
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.generate.sampling import SamplingConfig
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.run.causal_lm import CausalLM
from tests.drawn import drawn_params

GREEDY = SamplingConfig(temperature=0.0)
CONFIG = DecoderConfig(
    vocab_size=ByteTokenizer().vocab_size,
    max_seq_len=64,
    num_layers=1,
    model_dim=32,
    num_heads=2,
    qk_norm=False,
    init_std=0.1,
    kernels="triton_interpret",
)


def model_of(config: DecoderConfig, **options) -> CausalLM:
    model = make_decoder(config)
    return CausalLM(model, drawn_params(model), ByteTokenizer(), {}, **options)


@pytest.mark.slow  # Pallas's interpreter
def test_a_row_is_written_by_the_kernel_and_all_else_as_before():
    plain, row = model_of(CONFIG), model_of(CONFIG, weights="row")
    every: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0.7, "num_samples": 2},
        {"temperature": 0, "stop": ["zq"]},
    ]
    for options in every:
        written = [lm.generate(["to be"], max_new_tokens=20, **options) for lm in (plain, row)]
        for one, other in zip(*written, strict=True):
            assert one.tokens == other.tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
    assert "".join(text for _, text in row.stream("to be", max_new_tokens=5, sampling=GREEDY)) == (
        plain.generate(["to be"], max_new_tokens=5, temperature=0)[0].text
    )
    assert row.score(["to be or not"])[0].nats == pytest.approx(plain.score(["to be or not"])[0].nats, rel=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": "xla"}, "one NVIDIA GPU"),
        ({"qk_norm": True}, "model.qk_norm=True"),
        ({"mlp": "gelu"}, "model.mlp='gelu'"),
    ],
)
def test_what_no_kernel_decodes_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        model_of(dataclasses.replace(CONFIG, **change), weights="row")
