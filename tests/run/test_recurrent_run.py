"""An LSTM through the real command: its state is carried, saved and resumed; a mesh changes nothing; it loads."""

import signal

import jax
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.io.ngram.word_vocab import learn_words
from jaxlm.models.families import make_model
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.run.causal_lm import CausalLM
from tests.run.commands import assert_same_run, finish, losses, refused, saved, start, succeed, wait_for, write_config

FIELDS = """
        data=DataConfig(seq_len=16, packing="stream"),
        model=RecurrentConfig(cell="lstm", num_layers=2, model_dim=32, hidden_dropout=0.1, weight_dropout=0.1),
        optimizer=OptimizerConfig(name="adamw", peak_lr=0.003, warmup_steps=2),
        checkpoint=CheckpointConfig(save_every=10),
        num_steps=40, global_batch_size=8, grad_accum_steps=2, ema_decay=0.9, log_every=1, eval_batch_size=4,
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("config"), FIELDS)


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    return run_dir, succeed([start(config_file, run_dir)])


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_its_state(whole, config_file, tmp_path):
    run_dir = tmp_path / "run"
    processes = [start(config_file, run_dir)]
    wait_for((run_dir / "checkpoints" / "10").exists, processes)
    processes[0].send_signal(signal.SIGTERM)
    assert finish(processes)[0][0] == 128 + signal.SIGTERM
    succeed([start(config_file, run_dir)])
    assert_same_run(run_dir, whole[0])
    state, _ = saved(run_dir)
    carried = {path: leaf for path, leaf in state.items() if "carry" in path}
    assert len(carried) == 4  # h and c of two layers
    assert all(leaf.shape == (8, 32) and leaf.any() for leaf in carried.values())


@pytest.mark.slow
def test_a_mesh_takes_the_same_steps(whole, config_file, tmp_path):
    argv = ("--mesh.fsdp", "2", "--mesh.expert", "2", "--num-steps", "40", "--eval-batch-size", "4")
    figures = succeed([start(config_file, tmp_path / "run", *argv, num_devices=4)])
    ours, theirs = losses(tmp_path / "run"), losses(whole[0])
    for step in range(1, 11):
        assert ours[step] == pytest.approx(theirs[step], rel=1e-5), step
    assert figures["eval/loss"] == pytest.approx(whole[1]["eval/loss"], rel=1e-4)
    argv = ("--mesh.fsdp", "2", "--mesh.expert", "2", "--eval-batch-size", "6")
    refused([start(config_file, tmp_path / "other", *argv, num_devices=4)], "eval_batch_size=6", "a multiple of 4")
    refused([start(config_file, whole[0], "--eval-batch-size", "8")], "holds another config", "eval_batch_size: 4 -> 8")


def test_it_is_opened_scored_and_sampled(whole):
    run_dir, figures = whole
    lm = jaxlm.load(run_dir)
    assert lm.family == "recurrent"
    one, both = lm.score(["def keys", "def keys" * 20])
    assert one.num_bytes == 8
    assert both.nats > one.nats > 0
    (text,) = lm.generate(["def "], max_new_tokens=6, temperature=0.0)
    assert len(text.tokens) == 6
    assert figures["eval/bits_per_byte"] > 0
    assert isinstance(lm, CausalLM)
    assert len(lm.neighbours("d", count=3)) == len(lm.analogy("a", "b", "c", count=3)) == 3
    with pytest.raises(UserError, match="'def' is 3 tokens here"):
        lm.neighbours("def")


def test_a_word_outside_the_vocabulary_has_no_neighbours():
    """A closed tokenizer reads it as <unk>, whose embedding says nothing of the word."""
    vocab = learn_words(["the man and the woman saw <unk>"])
    model = make_model(RecurrentConfig(vocab_size=vocab.vocab_size, model_dim=8))
    lm = CausalLM(model, model.init(jax.random.key(0)), vocab, {})
    assert len(lm.neighbours("man", count=3)) == len(lm.neighbours("<unk>", count=3)) == 3
    for ask in (lambda: lm.neighbours("queen"), lambda: lm.analogy("man", "queen", "woman")):
        with pytest.raises(UserError, match="'queen' is not in the vocabulary of 8 tokens"):
            ask()


def test_a_decoder_has_no_state_to_carry(config_file, tmp_path):
    plain = tmp_path / "plain.py"
    fields = config_file.read_text()
    plain.write_text(
        fields.replace(
            'RecurrentConfig(cell="lstm", num_layers=2, model_dim=32, hidden_dropout=0.1, weight_dropout=0.1)',
            "DecoderConfig()",
        )
    )
    refused([start(plain, tmp_path / "run")], "data.packing='stream'", "decoder")
