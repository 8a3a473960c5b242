"""Pretraining through the real command: figures, resume, signals, refusals. Each run is a tiny model on real text."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import jaxlm
from jaxlm.io.checkpoints import Checkpointer
from jaxlm.io.tokenizers import ByteTokenizer, load_tokenizer
from jaxlm.run.prepare import keep_tokenizer
from tests.run import commands
from tests.run.commands import launch, refused_here, start, wait_for

REPO = Path(__file__).parents[2]
CONFIG = '''
"""A tiny run for the tests."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.io.checkpoints import CheckpointConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.optim.optimizers import OptimizerConfig
from jaxlm.run.config import PretrainConfig, SampleConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return PretrainConfig(
        corpus=CorpusConfig(source="text", paths=("TEXT",), document="paragraph"),
        tokenizer=TokenizerConfig(kind="byte"),
        data=DataConfig(seq_len=32),
        model=DecoderConfig(max_seq_len=64, num_layers=2, model_dim=32, num_heads=2, dropout=0.1, scan_layers=False),
        optimizer=OptimizerConfig(name="muon", peak_lr=0.02, warmup_steps=2),
        sample=SampleConfig(prompts=("The ",), max_new_tokens=8, num_samples=1),
        checkpoint=CheckpointConfig(save_every=4),
        num_steps=40, global_batch_size=16, grad_accum_steps=2, ema_decay=0.9, log_every=4, eval_every=20,
    )
'''


@pytest.fixture(scope="session")
def config_file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("config")
    text = (REPO / "docs" / "architecture.md").read_text() if (REPO / "docs" / "architecture.md").exists() else ""
    text += "\n\n".join(path.read_text() for path in sorted((REPO / "jaxlm" / "core").glob("*.py")))
    (directory / "text.txt").write_text(text)
    path = directory / "tiny.py"
    path.write_text(CONFIG.replace("TEXT", str(directory / "text.txt")))
    return path


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def command(config_file, cache_dir, tmp_path):
    """``command("--flag", ...)`` starts ``jaxlm pretrain`` on the tiny config as a process of its own, on one
    device."""

    def begin(*argv, config=config_file, sub="pretrain", run_dir=tmp_path / "run"):
        place = () if run_dir is None else ("--run-dir", str(run_dir))
        return launch(sub, str(config), *argv, *place, JAXLM_CACHE_DIR=str(cache_dir))

    return begin


def finish(process):
    (found,) = commands.finish([process])
    return found


def parameters(run_dir):
    with Checkpointer(run_dir / "checkpoints", read_only=True) as checkpointer:
        params, meta = checkpointer.restore_params()
        ema, _ = checkpointer.restore_params(name="ema_params")
    return {"params": params, "ema": ema}, meta


def flat(tree):
    import jax

    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.fixture(scope="session")
def whole_run(config_file, cache_dir, tmp_path_factory):
    """One uninterrupted run, and what it printed."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = finish(start(config_file, run_dir, JAXLM_CACHE_DIR=str(cache_dir)))
    assert code == 0, err
    return run_dir, out, err


def test_the_last_line_holds_the_final_figures(whole_run):
    _, out, err = whole_run
    figures = json.loads(out.splitlines()[-1])
    assert {"eval/loss", "eval/bits_per_byte", "perf/tokens_per_second", "num_params", "step"} <= figures.keys()
    assert figures["step"] == 40
    assert 0 < figures["eval/loss"] < np.log(281)
    assert figures["eval/xz_bits_per_byte"] > 0
    assert "compiling the train step" in err
    assert "memory a device" in err


def test_a_run_directory_has_what_the_contract_names(whole_run):
    run_dir, _, _ = whole_run
    there = {path.name for path in run_dir.iterdir()}
    assert {"config.json", "metrics.jsonl", "tensorboard", "checkpoints", "report.html", "tokenizer"} <= there
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(4, 41, 4))
    assert [line["step"] for line in lines if "eval/loss" in line] == [20, 40]
    assert json.loads((run_dir / "config.json").read_text())["config"]["model"]["vocab_size"] == 281


def test_a_finished_run_says_so_and_does_nothing(whole_run, command):
    run_dir, out, _ = whole_run
    code, again, err = finish(command(run_dir=run_dir))
    assert code == 0
    assert "is finished" in err
    assert json.loads(again.splitlines()[-1]) == json.loads(out.splitlines()[-1])


def test_the_handle_scores_and_generates(whole_run):
    run_dir, _, _ = whole_run
    model = jaxlm.load(run_dir)
    text = "Return the number of tokens."
    (score,) = model.score([text])
    assert score.num_bytes == score.num_tokens == len(text)
    assert score.bits_per_byte is not None
    assert 0 < score.bits_per_byte < 9
    assert model.logits([[1, 2, 3]]).shape == (1, 3, 281)
    (generation,) = model.generate(["Return"], max_new_tokens=5, temperature=0.0, seed=0)
    assert len(generation.logprobs) == len(generation.tokens) <= 5
    assert model.tokenizer.decode(model.tokenizer.encode(text)) == text
    assert model.is_ema


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stopped_run_goes_on_to_the_same_parameters_bit_for_bit(whole_run, command, tmp_path, signum):
    whole_dir, _, _ = whole_run
    run_dir = tmp_path / "run"
    process = command()
    wait_for(lambda: (run_dir / "checkpoints" / "4").exists(), [process])
    process.send_signal(signum)
    code, out, err = finish(process)
    assert not (run_dir / "done.json").exists()
    if signum == signal.SIGKILL:
        assert code == -signum, err
    else:
        assert code == 128 + signum, err
        assert json.loads(out.splitlines()[-1])["stopped_by"] == signum.name
        assert "Traceback" not in err
    code, out, err = finish(command())
    assert code == 0, err
    ours, meta = parameters(run_dir)
    theirs, whole_meta = parameters(whole_dir)
    assert meta["data"] == whole_meta["data"]
    ours, theirs = flat(ours), flat(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)


def test_a_run_killed_after_its_last_save_is_concluded_with_all_its_figures(whole_run, command, tmp_path):
    whole_dir, whole_out, _ = whole_run
    run_dir = tmp_path / "run"
    shutil.copytree(whole_dir, run_dir)
    (run_dir / "done.json").unlink()
    (run_dir / "report.html").unlink()
    code, out, err = finish(command())
    assert code == 0, err
    whole, figures = (json.loads(text.splitlines()[-1]) for text in (whole_out, out))
    assert figures.keys() == whole.keys()
    same = [name for name in whole if not name.startswith("perf/") and name != "run_dir"]
    assert {name: figures[name] for name in same} == {name: whole[name] for name in same}
    assert (run_dir / "report.html").exists()
    for name in ("metrics.jsonl", "samples.jsonl"):
        ours, theirs = ((path / name).read_text().count("\n") for path in (run_dir, whole_dir))
        assert ours == theirs, name


def test_a_start_that_ended_inside_the_tokenizer_is_no_obstacle(tmp_path):
    tokenizer = ByteTokenizer()
    (tmp_path / "tokenizer").mkdir()
    for _ in range(2):
        keep_tokenizer(tokenizer, tmp_path / "tokenizer")
        assert load_tokenizer(tmp_path / "tokenizer").fingerprint == tokenizer.fingerprint


def test_dropped_updates_are_written_down(command, tmp_path):
    argv = (
        "--optimizer.name",
        "adamw",
        "--optimizer.peak-lr",
        "1e25",
        "--num-steps",
        "6",
        "--checkpoint.save-every",
        "3",
        "--spikes.response",
        "note",
    )
    code, out, err = finish(command(*argv))
    assert code == 0, err

    def no_nan(constant):
        raise AssertionError(f"{constant} is no JSON")

    figures = json.loads(out.splitlines()[-1], parse_constant=no_nan)
    incidents = json.loads((tmp_path / "run" / "incidents.json").read_text())
    dropped = [incident for incident in incidents if incident["kind"] == "not_finite"]
    assert figures["train/skipped"] == len(dropped) > 0
    assert f"step {dropped[0]['step']}: loss or gradient not finite" in err
    _, meta = parameters(tmp_path / "run")
    assert meta["incidents"] == incidents
    assert all(incident["batch_id"] == incident["step"] - 1 for incident in dropped)


def test_a_hopeless_run_stops_with_a_diagnosis_and_can_be_started_again(command, tmp_path):
    argv = ("--optimizer.name", "adamw", "--num-steps", "8", "--checkpoint.save-every", "3", "--spikes.max-rollbacks")
    rate = ("--optimizer.peak-lr", "1e25")
    for times in (1, 2):
        code, out, err = finish(command(*argv, "1", *rate))
        assert code == 3, err
        figures = json.loads(out.splitlines()[-1])
        assert (figures["stopped_by"], figures["step"]) == ("incidents", 0)
        assert "lower optimizer.peak_lr" in figures["diagnosis"]
        assert figures["diagnosis"] in err
        kinds = [one["kind"] for one in json.loads((tmp_path / "run" / "incidents.json").read_text())]
        assert kinds.count("stopped") == times
        assert not (tmp_path / "run" / "done.json").exists()
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Incidents" in page
    assert "<h2>Time" in page


def test_dry_run_trains_nothing(command, tmp_path):
    code, out, err = finish(command("--dry-run"))
    assert code == 0, err
    plan = json.loads(out.splitlines()[-1])
    assert plan["mesh"] == {"data": 1, "stage": 1, "fsdp": 1, "expert": 1, "context": 1, "model": 1}
    assert plan["memory_bytes_per_device"] == sum(plan["memory_terms"].values())
    assert "embed/table" in err
    assert not (tmp_path / "run").exists()


def test_inspect_shows_decoded_batches(command):
    code, out, err = finish(command(sub="inspect", run_dir=None))
    assert code == 0, err
    assert "segment" in out


@pytest.fixture
def refused(config_file, tmp_path, capsys):
    """``refused(argv, *words)``: the command is refused, in this process, in one line that has these words."""

    def ask(argv, *words, config=config_file, run_dir=tmp_path / "run"):
        refused_here(capsys, ["pretrain", str(config), *argv, "--run-dir", str(run_dir)], *words)

    return ask


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--model.num-layer", "2"), ("num_layer", "num_layers")),
        (("--num-steps", "many"), ("num_steps", "many")),
        (("--seed", "-1"), ("seed=-1", "0..4294967295")),
        (("--sample.top-p", "2"), ("sample.top_p=2.0", "(0, 1]")),
        (("--sample.temperature", "-1"), ("sample.temperature=-1.0",)),
        (("--sample.num-samples", "0"), ("sample.num_samples=0",)),
        (("--mesh.fsdp", "3"), ("mesh", "3")),
        (("--mesh.context", "3"), ("data.seq_len=32", "mesh.context=3", "multiple of 3")),
        (("--mesh.context-attention", "rings"), ("rings", "'ring', 'all_to_all'")),
        (("--global-batch-size", "7"), ("global_batch_size=7", "grad_accum_steps=2")),
        (("--data.seq-len", "128"), ("seq_len=128", "max_seq_len=64")),
        (("--model.vocab-size", "100"), ("vocab_size=100", "281")),
        (("--corpus.paths", "/no/such/file.txt"), ("/no/such/file.txt",)),
        (("--data.num-epochs", "1", "--num-steps", "5000"), ("num_epochs=1", "num_steps=5000")),
    ],
)
def test_bad_values_are_refused_in_one_line(refused, tmp_path, argv, words):
    refused(argv, *words)
    assert not (tmp_path / "run" / "config.json").exists()  # the mended command may use the same directory


def test_an_unknown_config_is_refused(refused):
    refused((), "no_such_config", config="no_such_config")


@pytest.mark.parametrize(
    ("content", "word"), [(b"", "empty"), (b"caf\xe9 " * 40, "utf-8"), (b"only a few words here", "sequence")]
)
def test_bad_text_is_refused_and_named(refused, tmp_path, content, word):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    argv = ("--corpus.paths", str(path), "--corpus.split", "tail", "--corpus.document", "file")
    refused(argv, word)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_run_directory_of_another_config_is_refused_with_the_fields(whole_run, refused):
    run_dir, _, _ = whole_run
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    refused(("--seed", "5", "--optimizer.peak-lr", "0.5"), "seed", "peak_lr", run_dir=run_dir)
    lock = run_dir / "lock"
    after = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*") if path.is_file()}
    assert {p: t for p, t in after.items() if p != lock} == {p: t for p, t in before.items() if p != lock}
