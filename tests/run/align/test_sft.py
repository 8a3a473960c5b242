"""Supervised fine-tuning end to end at tiny size: it learns, resumes bit for bit, answers; bad input is one line."""

import json
import shutil

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.core.errors import UserError
from jaxlm.core.tree import flatten_with_paths
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.run.text_scores import fit_ngram_run
from jaxlm.text.tokenizer import TokenizerConfig
from tests.run.align.tuning_commands import command_of, write
from tests.run.commands import assert_same_run

command = command_of("sft")

CONFIG = """
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.lora import LoraConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.align.config import AnswersConfig, RecordsConfig
from jaxlm.run.align.sft_config import SftConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return SftConfig(
        START
        data=RecordsConfig(train=(TRAIN,), seq_len=64, validation_fraction=0.2),
        optimizer=OptimizerConfig(peak_lr=0.02, schedule="constant", warmup_steps=1, weight_decay=0.0),
        lora=LoraConfig(rank=4, alpha=8.0, targets=("/(attn|mlp)/.*kernel$",)),
        checkpoint=CheckpointConfig(save_every=10, keep_last=2),
        sample=AnswersConfig(num_prompts=1, max_new_tokens=4),
        num_steps=20, global_batch_size=8, log_every=5, eval_every=10, eval_batch_size=8,
    )
"""
FRESH = """model=DecoderConfig(num_layers=1, model_dim=16, num_heads=2, max_seq_len=64),
        tokenizer=TokenizerConfig(kind="byte"),"""


def records(count):
    """Two letters are said, and said again."""
    for i in range(count):
        said = chr(97 + i % 10) + chr(107 + i % 7)
        yield {"messages": [{"role": "user", "content": said}, {"role": "assistant", "content": said * (1 + i % 3)}]}


def write_config(directory, base):
    """A config over `records`, from a base or (None) from fresh parameters."""
    train = write(directory / "train.jsonl", records(70))
    start = FRESH if base is None else f"base={str(base)!r},"
    path = directory / "tiny.py"
    path.write_text(CONFIG.replace("START", start).replace("TRAIN", repr(str(train))))
    return path


def losses(run_dir, name="eval/loss"):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def test_it_learns_resumes_bit_for_bit_and_answers(base, tmp_path, capsys):
    config = write_config(tmp_path, base)
    whole = tmp_path / "whole"
    code, figures, err = command(capsys, config, "--run-dir", whole, "--neftune-alpha", "2")
    assert code == 0, err
    assert figures["step"] == 20
    assert losses(whole)[0] > losses(whole)[-1] == figures["eval/loss"]
    assert "<pre><b>" in (whole / "report.html").read_text()  # the answers are in the report

    # What a run killed after step 10 leaves.
    shutil.copytree(whole, tmp_path / "killed")
    (tmp_path / "killed" / "done.json").unlink()
    shutil.rmtree(tmp_path / "killed" / "checkpoints" / "20")
    code, again, err = command(capsys, config, "--run-dir", tmp_path / "killed", "--neftune-alpha", "2")
    assert code == 0, err
    assert "resuming from step 10" in err
    assert_same_run(tmp_path / "killed", whole)
    assert again["eval/loss"] == figures["eval/loss"]
    assert command(capsys, config, "--run-dir", whole, "--neftune-alpha", "2")[1] == figures  # finished
    code, _, err = command(capsys, config, "--run-dir", whole)
    assert code == 2
    assert "holds another config (neftune_alpha: 2.0 -> 0.0)" in err

    lm = jaxlm.load(whole)
    (said,) = lm.answer(["al"], max_new_tokens=8, temperature=0)
    turns = [{"role": "user", "content": "al"}]
    assert lm.answer([turns], max_new_tokens=8, temperature=0)[0].text == said.text
    assert len(lm.answer(["al", "bm"], max_new_tokens=4, num_samples=2)) == 4
    for asked, words in (
        ([[{"role": "user"}]], "which is no turn"),
        ([[("robot", "x")]], "conversations\\[0\\]: message 1 has the role 'robot'"),
        (["x" * 60], "conversations\\[0\\] has .* tokens, more than the context"),
    ):
        with pytest.raises(UserError, match=words):
            lm.answer(asked, max_new_tokens=4)
    with pytest.raises(UserError, match="taught no chat template"):
        jaxlm.load(base).answer(["al"])


@pytest.mark.parametrize("tune", ["lora", pytest.param("lora_int8", marks=pytest.mark.slow)])
def test_adapters_are_saved_alone_and_load_merged(tune, base, tmp_path, capsys):
    config = write_config(tmp_path, base)
    run = tmp_path / "run"
    code, figures, err = command(capsys, config, "--run-dir", run, "--tune", tune)
    assert code == 0, err
    assert 0 < figures["num_trained"] < figures["num_params"]
    assert losses(run)[0] > losses(run)[-1]
    with Checkpointer(run / "checkpoints", read_only=True) as checkpointer:
        kept = flatten_with_paths(checkpointer.shapes()["params"])
    assert all("/lora_" in path for path in kept)
    assert sum(np.prod(leaf.shape) for leaf in kept.values()) == figures["num_trained"]
    tuned = jaxlm.load(run)
    assert {path: leaf.shape for path, leaf in flatten_with_paths(tuned.params).items()} == {
        path: leaf.shape for path, leaf in flatten_with_paths(jaxlm.load(base).params).items()
    }
    # Merged as it is loaded, and beside its base as it was trained: the samples' likelihoods agree.
    whole_figures = held_out_loss(tuned, tmp_path / "train.jsonl")
    assert whole_figures == pytest.approx(figures["eval/loss"], rel=1e-5)

    shutil.rmtree(run / "checkpoints" / "20")
    shutil.copytree(run, tmp_path / "killed")
    (tmp_path / "killed" / "done.json").unlink()
    code, again, err = command(capsys, config, "--run-dir", tmp_path / "killed", "--tune", tune)
    assert code == 0, err
    assert again["eval/loss"] == figures["eval/loss"]
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    record = json.loads((moved / "config.json").read_text())
    record["config"]["base"] = str(tmp_path / "nowhere")
    (moved / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"holds adapters, and their base .*nowhere cannot be opened"):
        jaxlm.load(moved)


def held_out_loss(lm, path):
    """Nats a token that the assistant says, over the held-out conversations one by one."""
    from jaxlm.io.conversations import read_conversations
    from jaxlm.run.align.records import first_prompt, is_held_out

    nats, count = 0.0, 0
    for one in read_conversations(path):
        if is_held_out(first_prompt(one.messages), 0.2):
            tokens, mask = lm.form.encode(one)
            log_probs = jax.nn.log_softmax(lm.logits(tokens[None, :-1])[0])
            chosen = np.asarray(log_probs)[np.arange(len(tokens) - 1), tokens[1:]]
            nats, count = nats - chosen[mask[1:] == 1].sum(), count + mask[1:].sum()
    return nats / count


def test_from_scratch_and_dry_run(tmp_path, capsys):
    config = write_config(tmp_path, None)
    code, figures, err = command(capsys, config, "--run-dir", tmp_path / "run", "--dry-run")
    assert code == 0, err
    assert "fresh; 20 steps of 8 rows" in err
    assert not (tmp_path / "run").exists()
    code, figures, err = command(capsys, config, "--run-dir", tmp_path / "run", "--packing", "none")
    assert code == 0, err
    assert figures["eval/loss"] < losses(tmp_path / "run")[0]


def test_a_teacher_is_learnt_from_and_must_read_the_same_symbols(base, tmp_path, capsys, make_run):
    config = write_config(tmp_path, base)
    argv = ("--distil.teacher", base, "--num-steps", "2")
    code, _, err = command(capsys, config, *argv, "--run-dir", tmp_path / "run", "--log-every", "1")
    assert code == 0, err
    assert losses(tmp_path / "run", "train/term/kl_teacher")[0] == pytest.approx(0, abs=1e-6)  # it is its own teacher
    other = tmp_path / "other"
    make_run(other, kind="char", max_seq_len=64, seq_len=64)
    code, _, err = command(capsys, config, "--distil.teacher", other, "--run-dir", tmp_path / "refused")
    assert code == 2
    assert "has another vocabulary" in err


def test_bad_input_is_one_line_and_leaves_nothing(base, tmp_path, capsys):
    config = write_config(tmp_path, base)
    user, said = ({"role": role, "content": "al"} for role in ("user", "assistant"))
    good = {"messages": [user, said]}
    files = {
        "silent": [good, {"messages": [user]}],
        "robot": [good, {"messages": [{"role": "robot", "content": "x"}, said]}],
        "empty": [good, {"messages": [user, {"role": "assistant", "content": " "}]}],
        "long": [good, {"messages": [{"role": "user", "content": "x" * 90}, said]}],
        "none": [],
    }
    paths = {name: write(tmp_path / f"{name}.jsonl", lines) for name, lines in files.items()}
    copy = write(tmp_path / "copy.jsonl", records(70))
    refusing = tmp_path / "refusing.jinja"
    refusing.write_text("{{ raise_exception('not today') }}")
    broken = tmp_path / "broken.jinja"
    broken.write_text("{% for %}")
    fit_ngram_run(["to be or not to be"] * 30, tmp_path / "ngram", tokenizer=TokenizerConfig(kind="byte"))
    for argv, words in [
        (("--data.train", paths["silent"]), ["silent.jsonl line 2 has no assistant turn"]),
        (("--data.train", paths["robot"]), ["robot.jsonl line 2: message 1 has the role 'robot'"]),
        (("--data.train", paths["empty"]), ["empty.jsonl line 2: message 2 (assistant) is empty"]),
        (("--data.train", paths["long"]), ["long.jsonl line 2: the prompt has", "leaves no room", "data.seq_len=64"]),
        (("--data.train", paths["none"]), ["none.jsonl holds no conversations"]),
        (("--data.train", tmp_path / "gone.jsonl"), ["gone.jsonl cannot be read"]),
        (("--data.template", refusing), ["train.jsonl line", "refusing.jinja", "not today"]),
        (("--data.template", broken), ["broken.jinja' is no Jinja"]),
        (("--data.template", "nosuch"), ["'nosuch' is none of chatml"]),
        (("--data.seq-len", "128"), ["data.seq_len=128", "max_seq_len=64"]),
        (("--data.validation-fraction", "1e-9"), ["leaves none held out"]),
        (("--data.validation", tmp_path / "train.jsonl"), ["train.jsonl is in data.train and in data.validation: "]),
        (("--data.validation", copy), ["copy.jsonl in data.validation is a copy of", "train.jsonl in data.train: "]),
        (("--sample.prompts", "x" * 70), ["sample.prompts holds", "leaves no room"]),
        (("--tune", "lora", "--lora.rank", "99"), ["lora.rank=99 is not below both sides"]),
        (("--base", tmp_path / "ngram"), ["ngram is an n-gram model: "]),
        (("--base", tmp_path / "nowhere"), ["nowhere is not a run directory"]),
    ]:
        code, _, err = command(capsys, config, *argv, "--run-dir", tmp_path / "run")
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert code == 2
        for word in words:
            assert word in line, line
    part = write(tmp_path / "part.jsonl", records(7))
    code, _, err = command(capsys, config, "--data.validation", part, "--run-dir", tmp_path / "run", "--dry-run")
    assert code == 0
    assert "7 of 7 in data.validation stand in data.train word for word" in err
    assert not (tmp_path / "run" / "config.json").exists()
    argv = ("--data.train", tmp_path / "train.jsonl", paths["long"], paths["silent"], "--data.on-bad", "skip")
    code, _, err = command(capsys, config, *argv, "--run-dir", tmp_path / "run", "--num-steps", "2")
    assert code == 0
    assert "2 bad records passed over" in err
