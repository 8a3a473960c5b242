"""Generations side by side at a tiny size, through the real command: every model there, resumed, one JSON line."""

import json
import shutil
import signal
import subprocess
import sys

import jax
import pytest

import jaxlm
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.cli import main
from jaxlm.run.config import SampleConfig
from jaxlm.run.encoder_lm import EncoderLM
from jaxlm.run.generations import _samples, first_piece
from jaxlm.run.generations_config import GenerationsConfig
from tests.run.commands import REPO, environment, finish, wait_for

CONFIG = '''
"""Tiny."""
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.models.decoder import DecoderConfig
from jaxlm.models.encoder_config import EncoderConfig
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.models.recurrent import RecurrentConfig
from jaxlm.run.config import SampleConfig
from jaxlm.run.generations_config import GenerationsConfig, TrainedConfig
from jaxlm.text.tokenizer import TokenizerConfig


def config():
    return GenerationsConfig(
        corpus=CorpusConfig(source="text", paths=("TEXT",), document="paragraph"),
        tokenizer=TokenizerConfig(kind="byte"),
        ngram=NgramConfig(order=3),
        recurrent=TrainedConfig(
            RecurrentConfig(model_dim=16), DataConfig(seq_len=16, packing="stream"), num_steps=12, global_batch_size=4
        ),
        decoder=TrainedConfig(
            DecoderConfig(max_seq_len=32, num_layers=1, model_dim=16, num_heads=2),
            DataConfig(seq_len=32),
            num_steps=12,
            global_batch_size=4,
        ),
        encoder=TrainedConfig(
            EncoderConfig(max_seq_len=32, num_layers=1, model_dim=16, num_heads=2),
            DataConfig(seq_len=32),
            num_steps=12,
            global_batch_size=4,
        ),
        max_encoder_documents=3,
        cells=("gru",),
        sample=SampleConfig(prompts=("def ",), max_new_tokens=6, num_samples=1),
        max_scored_documents=10,
    )
'''


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    directory = tmp_path_factory.mktemp("generations")
    text = "\n\n".join(path.read_text() for path in sorted((REPO / "jaxlm" / "core").glob("*.py")))
    (directory / "text.txt").write_text(text)
    (directory / "tiny.py").write_text(CONFIG.replace("TEXT", str(directory / "text.txt")))

    def run(*argv):
        process = begin("run", *argv)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def begin(name, *argv):
        args = [sys.executable, "-m", "jaxlm", "generations", str(directory / "tiny.py"), *argv]
        args += ["--run-dir", str(directory / name)]
        pipe = subprocess.PIPE
        return subprocess.Popen(args, cwd=REPO, env=environment(1), stdout=pipe, stderr=pipe, text=True)

    return run, begin, directory


@pytest.mark.slow
def test_one_table_of_all_generations(command):
    run, _, directory = command
    run_dir = directory / "run"
    done = run()
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert list(rows) == ["n-gram", "gru", "decoder", "encoder"]
    encoder = rows.pop("encoder")
    assert 0 < encoder["pseudo_nats_per_token"] < 10
    assert encoder["bits_per_byte"] is None  # it is no likelihood
    assert encoder["nats_per_token"] is None
    assert encoder["train_tokens"] == rows["decoder"]["train_tokens"] == 12 * 4 * 32
    for name, row in rows.items():
        assert row["pseudo_nats_per_token"] is None
        assert 0 < row["bits_per_byte"] < 10
        assert [one["last"] for one in row["by_position"]] == [1, 2, 4, 8, 16, 32]
        assert set(row["milliseconds_by_length"]) == {"16", "32"}
        assert row["samples"][0]["prompt"] == "def "
        assert jaxlm.load(run_dir / name).family == {"gru": "recurrent", "n-gram": "ngram"}.get(name, name)
    # The counts are exact on so little text; twelve steps of training are not.
    assert rows["n-gram"]["bits_per_byte"] < rows["decoder"]["bits_per_byte"]
    report = (run_dir / "report.html").read_text()
    for words in ("loss by position", "pseudo-nats a token", "are no likelihood", "<h1>generations</h1>"):
        assert words in report
    lm = jaxlm.load(run_dir / "encoder")
    assert isinstance(lm, EncoderLM)
    for text, length in (("abc", 3), ("x" * 100, 30), ("\U0001f600" * 20, 7), ("", 0)):  # between <bos> and <eos>
        assert len(first_piece(lm, text)) == length
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("  n-gram ")]
    assert f"{rows['n-gram']['bits_per_byte']:.3f}" in line
    again = run()
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("is finished") == 4
    repeated = json.loads(again.stdout.splitlines()[-1])["rows"]
    for name, row in rows.items():
        assert repeated[name]["bits_per_byte"] == row["bits_per_byte"]
    assert repeated["n-gram"]["train_seconds"] == rows["n-gram"]["train_seconds"]  # not counted again


def in_process(capsys, *argv):
    code = main([*map(str, argv)])
    out, err = capsys.readouterr()
    return code, out.splitlines()[-1:], err.splitlines()[-1:]


@pytest.mark.slow
def test_a_finished_decoder_stands_in_the_table_and_its_report_shows_it(command, tmp_path, capsys):
    run, _, directory = command
    trained = directory / "run" / "decoder"
    if not (trained / "done.json").exists():
        run()
    base = tmp_path / "decoder"
    shutil.copytree(trained, base)
    text = (directory / "tiny.py").read_text().replace('cells=("gru",)', f"cells=(), decoder_run={str(base)!r}")
    config = tmp_path / "beside.py"
    config.write_text(text.replace("encoder=TrainedConfig(", "encoder=None and TrainedConfig("))

    code, (line,), _ = in_process(capsys, "generations", config, "--run-dir", base / "generations")
    assert code == 0
    rows = json.loads(line)["rows"]
    assert list(rows) == ["n-gram", "decoder"]
    there = json.loads((directory / "run" / "generations.json").read_text())["rows"]["decoder"]
    for name in ("num_params", "train_flops", "train_tokens", "train_seconds"):
        assert rows["decoder"][name] == there[name]
    assert rows["decoder"]["bits_per_byte"] == pytest.approx(there["bits_per_byte"], rel=1e-5)
    assert not (base / "generations" / "decoder").exists()
    assert in_process(capsys, "report", base)[0] == 0
    report = (base / "report.html").read_text()
    assert "The generations side by side" in report
    assert "are no likelihood" not in report  # no encoder

    def changed(name, change):
        path = tmp_path / name
        shutil.copytree(base, path)
        change(path)
        return path

    def other_data(path):
        record = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(record | {"dataset_key": "another"}))

    unfinished = changed("unfinished", lambda path: (path / "done.json").unlink())
    for argv, words in (
        (("--decoder-run", tmp_path / "nowhere"), "is not a run directory"),
        (("--decoder-run", directory / "run" / "gru"), "is no pretrained decoder"),
        (("--decoder-run", unfinished), "is not finished"),
        (("--corpus.document", "line"), "has another corpus"),
        (("--tokenizer.kind", "bpe"), "has another tokenizer"),
        (("--decoder-run", changed("data", other_data)), "was trained on another data set"),
    ):
        code, out, (line,) = in_process(capsys, "generations", config, *argv, "--run-dir", tmp_path / "refused")
        assert (code, out) == (2, [])
        assert words in line
    assert not any((tmp_path / "refused").glob("*/done.json"))


@pytest.mark.slow
def test_a_signal_stops_it_as_it_stops_pretraining(command):
    _, begin, directory = command
    argv = ("stopped", "--recurrent.num-steps", "1000000", "--log-every", "1")
    process = begin(*argv)
    wait_for((directory / "stopped" / "gru" / "metrics.jsonl").exists, [process])
    process.send_signal(signal.SIGTERM)
    ((code, out, err),) = finish([process])
    assert code == 128 + signal.SIGTERM, err
    (line,) = out.splitlines()
    figures = json.loads(line)
    assert (figures["stopped_by"], figures["model"]) == ("SIGTERM", "gru")
    assert "while training gru: the same command goes on" in err
    # The counts are finished, and another text's would be refused.
    assert (directory / "stopped" / "n-gram" / "done.json").exists()
    path = directory / "stopped" / "n-gram" / "config.json"
    record = json.loads(path.read_text())
    record["config"]["data"]["dataset_key"] = "another"
    path.write_text(json.dumps(record))
    ((code, _, err),) = finish([begin(*argv)])
    assert code == 2, err
    assert "holds the counts of other text or another config" in err.splitlines()[-1]


def test_a_refused_start_leaves_the_directory_to_the_mended_command(command, tmp_path, capsys):
    _, _, directory = command
    rows = [word for name in ("recurrent", "decoder") for word in (f"--{name}.global-batch-size", "8")]
    long = ("--decoder.data.seq-len", "1000000", "--decoder.model.max-seq-len", "1000000")
    for argv, words in (
        ((*rows, *long), "decoder: num_tokens="),
        ((*rows, "--sample.prompts", "", "--decoder.data.add-bos", "False"), "decoder: sample.prompts"),
        (("--corpus.paths", "/nowhere.txt"), "/nowhere.txt"),
    ):
        code, _, (line,) = in_process(
            capsys, "generations", directory / "tiny.py", *argv, "--run-dir", tmp_path / "refused"
        )
        assert code == 2
        assert words in line
        assert not (tmp_path / "refused" / "config.json").exists()


def test_samples_may_be_longer_than_the_context():
    model = make_decoder(DecoderConfig(vocab_size=281, max_seq_len=8, num_layers=1, model_dim=8, num_heads=2))
    lm = CausalLM(model, jax.jit(model.init)(jax.random.key(0)), ByteTokenizer(), {})
    config = GenerationsConfig(sample=SampleConfig(prompts=("def ",), max_new_tokens=20, num_samples=2))
    assert [one["prompt"] for one in _samples(lm, config)] == ["def "] * 2


def test_bad_input_is_one_line(command, capsys):
    _, _, directory = command
    for argv, words in (
        (("--tokenizer.kind", "char"), "cannot spell every text"),
        (("--ngram.smoothing", "backoff"), "no likelihoods"),
        (("--ngram.smoothing", "ml"), "an infinite loss"),
        (("--ngram.smoothing", "imported"), "no way to fit"),
        (("--decoder.num-layers", "3"), "or --decoder.model.num_layers or"),
        (("--max-encoder-documents", "0"), "max_encoder_documents=0"),
        (("--encoder.data.seq-len", "64"), "encoder: data.seq_len=64 is more than model.max_seq_len=32"),
    ):
        run_dir = ("--run-dir", str(directory / "refused"))
        assert main(["generations", str(directory / "tiny.py"), *argv, *run_dir]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
