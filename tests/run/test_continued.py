"""Pretraining that goes on from a trained model, and with a tokenizer that is there."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig, Checkpointer
from jaxlm.io.tokenizers import open_tokenizer
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.run.continued import on_base
from jaxlm.run.pretrain import plan_run, pretrain
from jaxlm.text.tokenizer import TokenizerConfig

MODEL = DecoderConfig(max_seq_len=64, num_layers=2, model_dim=16, num_heads=2, mlp="geglu")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text("".join(f"Line {i} of the text says {i * i % 97}.\n\n" for i in range(400)))
    return str(path)


@pytest.fixture(scope="module")
def first(text):
    """The config of the base."""
    return PretrainConfig(
        corpus=CorpusConfig(source="text", paths=(text,), document="paragraph"),
        tokenizer=TokenizerConfig(kind="char"),
        data=DataConfig(seq_len=32),
        model=MODEL,
        optimizer=OptimizerConfig(peak_lr=3e-3, warmup_steps=2),
        checkpoint=CheckpointConfig(save_every=4, keep_last=9),
        sample=SampleConfig(prompts=()),
        num_steps=8,
        global_batch_size=8,
    )


@pytest.fixture(scope="module")
def base(first, tmp_path_factory):
    path = tmp_path_factory.mktemp("base") / "run"
    pretrain(first, path)
    return path


@pytest.fixture
def second(first, base):
    """Another rate, longer rows, an average; the model and the tokenizer are not said."""
    return dataclasses.replace(
        first,
        base=str(base),
        model=DecoderConfig(),
        tokenizer=TokenizerConfig(),
        data=DataConfig(seq_len=64),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=1),
        checkpoint=CheckpointConfig(save_every=1, keep_last=9),
        ema_decay=0.5,
        num_steps=4,
    )


def state_of(run, step):
    with Checkpointer(run / "checkpoints", read_only=True) as checkpointer:
        names = ("params", "ema_params") if checkpointer.shapes(step)["ema_params"] else ("params",)
        return [checkpointer.restore_params(step=step, name=name)[0] for name in names]


def same(ours, theirs):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, theirs)))


def test_it_begins_with_the_parameters_of_the_base(second, base, tmp_path):
    still = dataclasses.replace(second, optimizer=OptimizerConfig(peak_lr=1e-30, warmup_steps=0), num_steps=1)
    pretrain(still, tmp_path / "run")
    (trained,), (params, average) = state_of(base, 8), state_of(tmp_path / "run", 1)
    assert same(params, trained)
    assert same(average, trained)
    model = jaxlm.load(tmp_path / "run")
    assert model.tokenizer.fingerprint == jaxlm.load(base).tokenizer.fingerprint
    assert model.config == dataclasses.replace(MODEL, vocab_size=model.tokenizer.vocab_size)


def test_a_run_goes_on_where_it_was_though_the_base_trained_on(second, base, first, tmp_path):
    pretrain(second, tmp_path / "whole")
    copy = tmp_path / "base"
    shutil.copytree(base, copy)
    on_copy = dataclasses.replace(second, base=str(copy), base_step=None)
    pretrain(on_copy, tmp_path / "run")
    (tmp_path / "run" / "done.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "3")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    shutil.rmtree(copy / "checkpoints")  # not needed any more
    pretrain(on_copy, tmp_path / "run")
    assert same(state_of(tmp_path / "run", 4), state_of(tmp_path / "whole", 4))
    assert pretrain(on_copy, tmp_path / "run")["step"] == 4  # finished


def test_what_trains_and_does_not_make_parameters_may_be_set(second, base):
    found = on_base(dataclasses.replace(second, base_step=4, model=DecoderConfig(dropout=0.1, remat_policy="full")))
    assert isinstance(found.model, DecoderConfig)
    assert (found.model.dropout, found.model.remat_policy, found.model.mlp) == (0.1, "full", "geglu")
    assert found.base_step == 4
    assert on_base(found) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model": DecoderConfig(num_layers=3)},
            r"\(num_layers=3\) makes other parameters .*\(2, 16, 16\) -> \(3, 16, 16\)",
        ),
        ({"model": RecurrentConfig(hidden_dim=8)}, "is a decoder, and model a recurrent: leave the model out"),
        ({"base_step": 5}, "has no checkpoint of step 5: there are 4, 8"),
        ({"data": DataConfig(seq_len=65)}, r"more than model.max_seq_len=64.*\(the model is that of base"),
        ({"base": "nowhere"}, "nowhere is not a run directory"),
    ],
)
def test_what_does_not_go_with_the_base_is_said_before_the_text_is_read(second, change, said):
    change = change | {"corpus": CorpusConfig(source="text", paths=("missing.txt",))}
    with pytest.raises(UserError, match=said):
        plan_run(dataclasses.replace(second, **change))


def test_a_step_of_no_base_is_refused():
    with pytest.raises(ValueError, match="base_step=4 speaks of a base"):
        PretrainConfig(base_step=4)


@pytest.mark.parametrize("place", ["run", "tokenizer", "hf"])
def test_a_tokenizer_that_is_there_is_used(first, base, tmp_path, place):
    path = {"run": base, "tokenizer": base / "tokenizer", "hf": tmp_path / "hf"}[place]
    if place == "hf":
        tokenizers = pytest.importorskip("tokenizers")
        words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "Line": 1, "text": 2}, unk_token="<unk>"))
        words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        path.mkdir()
        words.save(str(path / "tokenizer.json"))
    config = dataclasses.replace(first, tokenizer=TokenizerConfig(path=str(path)), num_steps=3)
    pretrain(config, tmp_path / "run")
    assert jaxlm.load(tmp_path / "run").tokenizer.fingerprint == open_tokenizer(path).fingerprint


def test_no_tokenizer_at_a_path_is_said(first, tmp_path):
    with pytest.raises(UserError, match="no tokenizer at"):
        pretrain(dataclasses.replace(first, tokenizer=TokenizerConfig(path=str(tmp_path / "gone"))), tmp_path / "run")
