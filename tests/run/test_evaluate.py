"""``jaxlm evaluate`` on a tiny model: likelihoods by hand, resuming item by item, and what is refused."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.data.batches import DataConfig
from jaxlm.data.corpus import CorpusConfig
from jaxlm.evals.strategies import Ask
from jaxlm.evals.tasks.forms import FORMS
from jaxlm.io.eval_files.results import ItemResults
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.io.tokenizers import ByteTokenizer
from jaxlm.models.decoder import DecoderConfig, make_decoder
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.run import evaluate
from jaxlm.run.causal_lm import CausalLM
from jaxlm.run.config import PretrainConfig, SampleConfig, TasksConfig
from jaxlm.run.evaluate_items import ByWriting, Settings, make_scorer
from jaxlm.run.handle import load
from jaxlm.run.ngram_runs import fit_text
from jaxlm.run.pretrain import pretrain
from jaxlm.run.task_scores import make_task_scores
from jaxlm.run.text_scores import fit_ngram_run
from jaxlm.text.chat.templates import TEMPLATES
from jaxlm.text.tokenizer import TokenizerConfig
from tests.drawn import drawn_params
from tools import score


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("runs") / "byte"
    make_run(path)
    return path


@pytest.fixture
def data(tmp_path):
    """Ten passages, eight pairs, and a subject of MMLU with one dev question."""
    words = ("not", "now", "never", "when", "where", "why", "who", "how", "what", "that")
    texts = [{"text": f"to be or {word} to be {word}"} for word in words]
    pairs = [{"sentence_good": f"it is {i}", "sentence_bad": f"it are {i}", "UID": f"p{i % 2}"} for i in range(8)]
    (tmp_path / "lambada").mkdir()
    (tmp_path / "lambada" / "lambada_test.jsonl").write_text("".join(json.dumps(one) + "\n" for one in texts))
    (tmp_path / "blimp").mkdir()
    (tmp_path / "blimp" / "p.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
    for split, question in (("test", "Which?"), ("dev", "Who?")):
        (tmp_path / "mmlu" / split).mkdir(parents=True)
        (tmp_path / "mmlu" / split / f"birds_{split}.csv").write_text(f"{question},w,x,y,z,B\n")
    return tmp_path


def _run(*argv):
    assert evaluate.main([str(one) for one in argv]) == 0


def _figures(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_tasks_while_a_run_trains(data, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be now\n" * 60)
    config = PretrainConfig(
        corpus=CorpusConfig(source="text", paths=(str(text),), document="line", split="tail"),
        tokenizer=TokenizerConfig(kind="byte"),
        data=DataConfig(seq_len=32),
        model=DecoderConfig(num_layers=1, model_dim=16, num_heads=2, max_seq_len=64),
        tasks=TasksConfig(names=("blimp", "lambada"), data=str(data), limit=6),
        num_steps=4,
        global_batch_size=8,
        eval_batch_size=8,
        eval_every=2,
        sample=SampleConfig(prompts=()),
    )
    figures = pretrain(config, tmp_path / "watched")
    assert "tasks: accuracy" in (tmp_path / "watched" / "report.html").read_text()
    for name in ("blimp", "lambada"):  # the last evaluation is that of the finished run
        task = evaluate.limited(load_task(name, data), 6)
        results = ItemResults(tmp_path / "items", name, {})
        found = evaluate.evaluate(load(tmp_path / "watched"), task, make_scorer(task, Settings(limit=6)), results)
        assert found["accuracy"]["value"] == pytest.approx(figures[f"eval/{name}/accuracy"])
    tasks = TasksConfig(names=("blimb",), data=str(data))
    with pytest.raises(UserError, match="unknown task 'blimb'"):
        pretrain(dataclasses.replace(config, tasks=tasks), tmp_path / "bad")
    with pytest.raises(ValueError, match=r"without tasks.data"):
        TasksConfig(names=("blimp",))


def test_parameters_that_are_no_numbers_end_no_training_run(data, capsys):
    config = DecoderConfig(vocab_size=300, num_layers=1, model_dim=16, num_heads=2, max_seq_len=64)
    model = make_decoder(config)
    scores = make_task_scores(TasksConfig(names=("blimp",), data=str(data), limit=2), model, ByteTokenizer(), {})
    params = drawn_params(model)
    assert "eval/blimp/accuracy" in scores(params)
    assert scores(jax.tree.map(lambda leaf: leaf * np.nan, params)) == {}
    assert "not scored: task 'blimp', blimp/p0:0: the model's log-probability is NaN" in capsys.readouterr().err


def test_only_items_of_known_words(run, data, tmp_path, capsys):
    known = tmp_path / "known.txt"
    known.write_text("To be or not, to be now; when where")
    out = ("--data", data, "--words", known)
    _run(run, "--tasks", "lambada", *out, "--out", tmp_path / "out")
    found = _figures(capsys)["tasks"]["lambada"]
    assert found["num_items"] == 4  # not, now, when, where
    assert score.main(["lambada", "--outputs", str(next((tmp_path / "out").glob("*.jsonl"))), *map(str, out)]) == 0
    assert _figures(capsys)["accuracy"] == found["accuracy"]
    with pytest.raises(UserError, match=r"no item of task 'blimp' has all its words"):
        _run(run, "--tasks", "blimp", *out, "--out", tmp_path / "none")


def test_likelihoods_are_those_of_full_forwards(run):
    lm = load(run)
    assert isinstance(lm, CausalLM)
    behind = [("to be, or not to ", end) for end in ("be", "b", "xyz w")] + [("that is the question", "!")]
    requests = [("to be", " or not"), ("", "to be"), ("to be ", "x"), ("x" * 40, "yz"), ("", "ab" * 30), *behind]
    for (context, continuation), reply in zip(requests, lm.likelihoods(requests), strict=True):
        ids = lm.encode(context + continuation)
        start = max(1, len(lm.encode(context.rstrip()))) if context else 1
        if len(ids) - 1 <= lm.context:
            log_probs = np.asarray(jax.nn.log_softmax(lm.logits([ids[:-1]])[0], axis=-1))
            expected = log_probs[np.arange(start - 1, len(ids) - 1), ids[start:]]
            np.testing.assert_allclose(reply.token_logprobs, expected, atol=1e-5)
            assert reply.is_greedy == bool((log_probs[start - 1 :].argmax(-1) == ids[start:]).all())
        assert reply.num_tokens == len(ids) - start
        assert reply.num_bytes == len(continuation.lstrip())
        assert reply.truncated == (43 - 33 if context.startswith("xx") else 0)
    with pytest.raises(UserError, match=r"requests\[3\] has 42 tokens, more than the context of 32"):
        lm.likelihoods(requests, truncate=False)


def test_scores_with_intervals_and_every_item_on_disk(run, data, capsys):
    _run(run, "--tasks", "lambada,blimp,mmlu", "--data", data, "--shots", 1, "--out", data / "out")
    found = _figures(capsys)
    assert found["tasks"]["blimp"]["chance"] == 0.5
    assert found["tasks"]["lambada"]["perplexity"]["lower"] < found["tasks"]["lambada"]["perplexity"]["value"]
    assert {"accuracy", "accuracy_unconditional", "brier", "calibration_error"} <= found["tasks"]["mmlu"].keys()
    assert found["tasks"]["mmlu"]["truncated"] == 1  # one example and a question are more than 32 bytes
    rows = [json.loads(line) for line in Path(found["items"]["lambada"]).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 10
    assert {"name", "prompt", "continuations", "logprobs", "token_logprobs", "scores"} <= rows[0].keys()
    assert all(row["prompt"].count("to be or") == 2 for row in rows)  # an example, and the item
    # What is on disk is what tools.score grades.
    assert score.main(["blimp", "--outputs", found["items"]["blimp"], "--data", str(data)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["accuracy"] == found["tasks"]["blimp"]["accuracy"]


def test_a_killed_run_goes_on_and_finished_items_are_never_run_again(run, data, capsys, monkeypatch):
    monkeypatch.setattr(evaluate, "CHUNK", 3)
    _run(run, "--tasks", "lambada", "--data", data, "--out", data / "whole")
    whole = _figures(capsys)["tasks"]["lambada"]
    items = data / "out" / "lambada-0shot.jsonl"
    _run(run, "--tasks", "lambada", "--data", data, "--out", data / "out")
    lines = items.read_text().splitlines(keepends=True)
    items.write_text("".join(lines[:4]) + lines[4][:25])  # killed in the middle of a line
    _run(run, "--tasks", "lambada", "--data", data, "--out", data / "out")
    resumed = _figures(capsys)["tasks"]["lambada"]
    assert resumed["num_run_now"] == 6
    assert resumed["perplexity"]["value"] == pytest.approx(whole["perplexity"]["value"], rel=1e-6)
    assert items.read_text().splitlines(keepends=True)[:4] == lines[:4]
    _run(run, "--tasks", "lambada", "--data", data, "--out", data / "out")
    assert _figures(capsys)["tasks"]["lambada"]["num_run_now"] == 0


def test_shards_share_the_items(run, data, capsys):
    asked = ["--tasks", "lambada", "--data", data, "--out", data / "out"]
    for share, count in (("0/3", 4), ("1/3", 3), ("2/3", 3)):
        _run(run, *asked, "--shard", share)
        assert _figures(capsys)["tasks"]["lambada"]["num_run_now"] == count
    _run(run, *asked)
    found = _figures(capsys)["tasks"]["lambada"]
    assert (found["num_run_now"], found["num_items"], found["num_missing"]) == (0, 10, 0)
    with pytest.raises(UserError, match="'3/3' is no share"):
        _run(run, *asked, "--shard", "3/3")


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (("--tasks", "lambada", "--shots", "1"), r"was made otherwise \(seed was 1, now 0\)|num_shots"),
        (("--tasks", "lambda"), "unknown task 'lambda'"),
        (("--tasks", "lambada", "--shots", "10"), "10 examples are asked for and task 'lambada' has 9"),
        (("--tasks", "blimp", "--strategy", "direct"), "is scored by likelihoods: leave --strategy direct out"),
        (("--tasks", "mmlu", "--strategy", "direct", "--samples", "2"), "at temperature 0 are all the same"),
        (("--tasks", "mmlu", "--samples", "2", "--temperature", "1.0"), "name a --strategy"),
        (("--tasks", "mmlu", "--strategy", "cot", "--shots", "1", "--limit", "1"), "shows no steps"),
        (("--tasks", "bbh"), "task 'bbh' has no files"),
        (
            ("--tasks", "instructions", "--strategy", "direct", "--samples", "8", "--temperature", "0.7"),
            "task 'instructions' is answered by one text, .*: give neither --samples nor another --strategy",
        ),
        (("--tasks", "instructions", "--strategy", "zero-shot-cot"), "is answered by one text"),
        (("--tasks", ","), "names no task"),
        (("--tasks", "lambada", "--limit", "0"), "must be at least"),
        (("--tasks", "lambada", "--seed", "-1"), "--seed: -1 must be a whole number"),
    ],
)
def test_bad_requests_are_refused(run, data, capsys, argv, match):
    (data / "instructions.jsonl").write_text('{"prompt": "Be brief.", "constraints": [{"id": "words", "at_most": 5}]}')
    if argv[-1] == "1":
        _run(run, "--tasks", "lambada", "--data", data, "--shots", 1, "--seed", 1, "--out", data / "out")
    with pytest.raises(UserError, match=match):
        _run(run, "--data", data, "--out", data / "out", *argv)


def test_an_overlong_item_is_named_and_may_then_be_cut(run, data, capsys):
    asked = ["--tasks", "mmlu", "--data", data, "--shots", 1, "--out", data / "out"]
    with pytest.raises(UserError, match=r"mmlu/birds:0: .* the context of 32: .*\(--overlong truncate\)"):
        _run(run, *asked, "--overlong", "refuse")
    _run(run, *asked)
    assert _figures(capsys)["tasks"]["mmlu"]["truncated"] == 1


def test_a_prompt_that_just_fits_is_not_cut(run, data):
    lm = load(run)
    assert isinstance(lm, CausalLM)
    (data / "svamp.jsonl").write_text('{"input": "1 and 1?", "target": 2}\n')
    scorer = make_scorer(load_task("svamp", data), Settings(strategy="direct", overlong="refuse"))
    assert isinstance(scorer, ByWriting)
    for start_id in (None, 0):
        lm.start_id = start_id
        room = lm.context - 8 - (start_id is not None)
        assert scorer._generate(lm, [Ask("x" * room, (), 8, item="svamp:0")])[0].truncated == 0
        with pytest.raises(UserError, match=f"a prompt of {lm.context - 7} tokens and 8 new ones exceed"):
            scorer._generate(lm, [Ask("x" * (room + 1), (), 8, item="svamp:0")])


def test_a_chat_model_is_asked_in_its_template(data, capsys, make_run, monkeypatch):
    """Instructions by default, other written tasks if wanted; a model without a template never."""
    make_run(data / "chat", seq_len=96, max_seq_len=96)
    asked = [data / "chat", "--tasks", "instructions", "--data", data]
    (data / "instructions.jsonl").write_text('{"prompt": "Be brief.", "constraints": [{"id": "words", "at_most": 5}]}')
    monkeypatch.setitem(FORMS, "instructions", dataclasses.replace(FORMS["instructions"], max_new_tokens=12))
    with pytest.raises(UserError, match="--chat: this model was taught no chat template, leave it out"):
        _run(*asked, "--chat")
    (data / "chat" / "chat_template.jinja").write_text(TEMPLATES["chatml"].source)
    lm = load(data / "chat")
    how = {"max_new_tokens": 12, "temperature": 0.0}
    spoken, bare = lm.answer(["Be brief."], **how)[0].text, lm.generate(["Be brief."], **how)[0].text
    assert spoken != bare
    for argv, said in (((), spoken), (("--chat",), spoken), (("--no-chat",), bare)):
        _run(*asked, *argv, "--out", data / "out" / "".join(argv))
        found = _figures(capsys)
        items = Path(found["items"]["instructions"])
        assert json.loads(items.read_text())["outputs"] == [said]
        settings = json.loads(items.with_suffix(".settings.json").read_text())
        assert settings["chat"] is found["tasks"]["instructions"]["chat"] is (said == spoken)
    with pytest.raises(UserError, match=r"was made otherwise \(chat was True, now False\)"):
        _run(*asked, "--no-chat", "--out", data / "out" / "--chat")
    with pytest.raises(UserError, match="--chat is for written answers, and task 'blimp' is scored by likelihoods"):
        _run(data / "chat", "--tasks", "blimp", "--data", data, "--chat")
    monkeypatch.setitem(FORMS, "instructions", dataclasses.replace(FORMS["instructions"], max_new_tokens=90))
    with pytest.raises(UserError, match=r"instructions:0: a prompt of \d+ tokens and 90 new ones exceed the context"):
        _run(*asked, "--overlong", "refuse", "--out", data / "refused")


def test_a_spoilt_results_file_is_named(run, data):
    _run(run, "--tasks", "lambada", "--data", data, "--out", data / "out")
    items = data / "out" / "lambada-0shot.jsonl"
    items.write_text("half\n" + items.read_text())
    with pytest.raises(UserError, match=r"lambada-0shot.jsonl line 1 is no result of an item"):
        _run(run, "--tasks", "lambada", "--data", data, "--out", data / "out")


def test_written_answers_depend_on_the_item_and_not_on_where_a_run_stopped(run, data, capsys):
    problems = [{"input": f"{i} and 1?", "target": i + 1} for i in range(4)]
    (data / "svamp.jsonl").write_text("".join(json.dumps(one) + "\n" for one in problems))
    asked = ["--tasks", "svamp", "--data", data, "--strategy", "direct", "--samples", 2, "--temperature", 0.8]
    _run(run, *asked, "--out", data / "whole")
    whole = _figures(capsys)
    rows = [json.loads(line) for line in Path(whole["items"]["svamp"]).read_text(encoding="utf-8").splitlines()]
    assert {"answered", "accuracy", "truncated"} <= whole["tasks"]["svamp"].keys()
    assert all(len(row["outputs"]) == 2 and row["behind_cue"] for row in rows)
    assert rows[0]["outputs"][0] != rows[0]["outputs"][1]
    said = rows[0]["exchanges"][1][0]
    assert said["prompt"].endswith("A: The answer (arabic numerals) is")
    assert said["completion"] == rows[0]["outputs"][1]
    assert len(said["token_logprobs"]) > 0
    first = json.dumps(rows[2]) + "\n"
    (data / "out").mkdir()
    for name in ("svamp-direct-vote2.settings.json",):
        (data / "out" / name).write_text((data / "whole" / name).read_text())
    (data / "out" / "svamp-direct-vote2.jsonl").write_text(first)
    _run(run, *asked, "--out", data / "out")
    assert _figures(capsys)["tasks"]["svamp"]["num_run_now"] == 3
    again = [json.loads(line) for line in (data / "out" / "svamp-direct-vote2.jsonl").read_text().splitlines()]
    assert sorted((row["name"], row["outputs"]) for row in again) == sorted(
        (row["name"], row["outputs"]) for row in rows
    )
    assert score.main(["svamp", "--outputs", whole["items"]["svamp"], "--data", str(data)]) == 0
    assert _figures(capsys)["accuracy"] == whole["tasks"]["svamp"]["accuracy"]


@pytest.mark.parametrize("kind", ["byte", "word"])
def test_n_gram_models_are_evaluated_too(data, capsys, kind):
    lines = [f"to be or not to be that is {i}" for i in range(30)]
    if kind == "byte":
        fit_ngram_run(lines, data / "ngram", tokenizer=TokenizerConfig(kind="byte"))
    else:
        (data / "text").write_text("\n".join(lines), encoding="utf-8")
        fit_text(data / "text", data / "ngram", NgramConfig(order=3))
    lm = load(data / "ngram")
    context, rest = ("to be or not to b", "e") if kind == "byte" else ("to be or not", " to")
    reply, whole = lm.likelihoods([(context, rest), ("", "to be or not")])
    assert reply.is_greedy
    place = -1 if kind == "byte" else 4
    assert reply.token_logprobs == pytest.approx([lm.score([context + rest])[0].logprobs[place]], abs=1e-5)
    assert -whole.logprob == pytest.approx(lm.score(["to be or not"])[0].nats)
    _run(data / "ngram", "--tasks", "blimp", "--data", data)
    assert _figures(capsys)["tasks"]["blimp"]["num_items"] == 8
