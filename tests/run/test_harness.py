"""lm-evaluation-harness on a random-weight model and tasks of the test's own, against our scorers: item by item."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import types

import numpy as np
import pytest

from jaxlm.core.errors import UserError
from jaxlm.evals.grading import Output, grade, report
from jaxlm.evals.prompting import Template
from jaxlm.evals.tasks.answers import Written
from jaxlm.evals.tasks.kinds import LIKELIHOOD_KINDS
from jaxlm.evals.tasks.task import Form, Item, Task
from jaxlm.io.eval_files.harness_results import read_results, read_samples
from jaxlm.run.cli import run_main
from jaxlm.run.handle import load
from tools.harness import main

needs_harness = pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs jaxlm[eval]")

CHOICES = [
    {"question": f"Which of them is {word}?", "choices": ["a cat", "not", f"the {word}", "question"], "gold": i % 4}
    for i, word in enumerate(("big", "small", "to be", "or", "that", "the", "best", "last"))
]
CLOZES = [{"text": f"to be or {word} to", "last": word} for word in ("not", "be", "question", "that")]
TEXTS = [{"text": "to be, or not to be"}, {"text": "that is the question: " * 5}]
WRITTEN = [{"question": word, "answer": "be"} for word in ("to", "or", "not to")]

TASKS = {
    "local_choice": (CHOICES, """
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}]
"""),
    "local_cloze": (CLOZES, """
output_type: loglikelihood
doc_to_text: "{{text}}"
doc_to_target: "{{' ' + last}}"
metric_list: [{metric: acc}, {metric: perplexity}]
"""),
    "local_text": (TEXTS, """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]
"""),
    "local_written": (WRITTEN, """
output_type: generate_until
doc_to_text: "{{question}}:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["e"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""),
}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_run):
    """(a model, the folder of what the harness made of it)."""
    root = tmp_path_factory.mktemp("harness")
    make_run(root / "run")
    tasks = root / "tasks"
    tasks.mkdir()
    for name, (rows, form) in TASKS.items():
        data = root / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tasks / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
            f"test_split: test\n{form}"
        )
    argv = [str(root / "run"), "--tasks", ",".join(TASKS), "--include-path", str(tasks), "--out", str(root / "out")]
    # A process of its own: the harness warns, and keeps caches, which must not outlive the test.
    environment = {**os.environ, "HF_HOME": str(root / "cache"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tools.harness", *argv], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["num_items"]["local_choice"] == len(CHOICES)
    return load(root / "run"), root / "out"


def _form(kind, layout, gap=" "):
    return Form(kind, Template(layout, gap=gap))


TWINS = {
    "local_choice": Task(
        "local_choice",
        _form("choice", "{question}\nAnswer:"),
        tuple(
            Item(f"c{i}", row["question"], row["choices"][row["gold"]], tuple(row["choices"]), row["gold"])
            for i, row in enumerate(CHOICES)
        ),
    ),
    "local_cloze": Task(
        "local_cloze",
        _form("cloze", "{question}"),
        tuple(Item(f"l{i}", row["text"], row["last"]) for i, row in enumerate(CLOZES)),
    ),
    "local_text": Task(
        "local_text", _form("text", "{question}"), tuple(Item(f"t{i}", row["text"]) for i, row in enumerate(TEXTS))
    ),
}


def _ours(lm, task):
    kind = LIKELIHOOD_KINDS[task.form.kind]
    prompts = ["" if task.form.kind == "text" else task.form.template.ask(item.question) for item in task.items]
    replies = [
        lm.likelihoods(kind.requests(task, item, prompt)) for item, prompt in zip(task.items, prompts, strict=True)
    ]
    outputs = [
        Output(item.name, item.name, likelihoods=tuple(one)) for item, one in zip(task.items, replies, strict=True)
    ]
    return replies, report(task, grade(task, list(zip(task.items, outputs, strict=True))))


@needs_harness
@pytest.mark.parametrize("name", list(TWINS))
def test_every_likelihood_and_every_metric_is_the_same(runs, name):
    lm, out = runs
    replies, summary = _ours(lm, TWINS[name])
    samples = sorted(read_samples(out / f"samples_{name}.jsonl"), key=lambda one: one.doc_id)
    assert len(samples) == len(replies)
    for sample, mine in zip(samples, replies, strict=True):
        np.testing.assert_allclose(sample.logprobs, [one.logprob for one in mine], atol=1e-4, rtol=0)
        if sample.is_greedy:
            assert list(sample.is_greedy) == [one.is_greedy for one in mine]
    theirs = read_results(out / "results.json").tasks[name]
    same = {
        "local_choice": {"acc": "accuracy", "acc_norm": "accuracy_per_byte"},
        "local_cloze": {"acc": "accuracy", "perplexity": "perplexity"},
        "local_text": {"bits_per_byte": "bits_per_byte"},
    }[name]
    for metric, ours in same.items():
        assert theirs[metric].value == pytest.approx(summary[ours]["value"], rel=1e-5), metric
    if name == "local_text":
        nats = -sum(one.logprob for (one,) in replies)
        words = sum(len(re.split(r"\s+", row["text"])) for row in TEXTS)  # white space at the end makes one more
        assert theirs["word_perplexity"].value == pytest.approx(math.exp(nats / words), rel=1e-3)


@needs_harness
def test_completions_are_those_of_the_model(runs):
    lm, out = runs
    samples = sorted(read_samples(out / "samples_local_written.jsonl"), key=lambda one: one.doc_id)
    prompts = [f"{row['question']}:" for row in WRITTEN]
    mine = lm.generate(prompts, max_new_tokens=12, temperature=0.0, stop=("e",), slide=True)
    assert [one.texts for one in samples] == [(one.text,) for one in mine]
    assert all("e" not in one.texts[0] for one in samples)
    exact = np.mean([one.text == row["answer"] for one, row in zip(mine, WRITTEN, strict=True)])
    assert read_results(out / "results.json").tasks["local_written"]["exact_match"].value == exact
    item = Item("w0", "to", "be")
    assert grade(Task("w", _form("answer", "{question}:"), (item,)), [(item, Output("a", written=Written(("be",))))])


@needs_harness
def test_what_is_refused(runs, tmp_path):
    from jaxlm.run.harness import _options, run_harness

    lm, _ = runs
    with pytest.raises(UserError, match="task 'no_such_task' is not in the harness"):
        run_harness(lm, ["no_such_task"], include_path=str(tmp_path))
    with pytest.raises(UserError, match="asks to generate with 'num_beams'"):
        _options({"num_beams": 4})
    assert _options({"until": "x", "do_sample": True, "temperature": 0.5})["temperature"] == 0.5
    assert _options({"temperature": 0.5}) == {
        "stop": (), "max_new_tokens": 256, "temperature": 0.0, "top_p": None, "top_k": None,
    }  # fmt: skip


def test_what_was_cut_is_counted(tmp_path, make_run, monkeypatch, capsys):
    """The harness is a stand-in that asks and counts nothing, so that this runs without it."""

    def evaluate(model, **_):
        ask = lambda *args: types.SimpleNamespace(args=args)  # noqa: E731
        model.loglikelihood([ask("x" * 40, "y"), ask("x", "y"), ask("x" * 31, "yyy")])
        model.generate_until([ask("x" * 40, {"max_gen_toks": 4}), ask("x", {"max_gen_toks": 4})])
        return {"results": {"t": {"acc,none": 0.5}}}

    manager = lambda include_path: types.SimpleNamespace(all_tasks=["t"])  # noqa: E731
    stands_in = {"lm_eval": {"simple_evaluate": evaluate}, "lm_eval.api": {}, "lm_eval.api.model": {"LM": object},
                 "lm_eval.tasks": {"TaskManager": manager}}  # fmt: skip
    for name, members in stands_in.items():
        monkeypatch.setitem(sys.modules, name, module := types.ModuleType(name))
        vars(module).update(members)
    # Made anew with the stand-ins, and gone with them.
    monkeypatch.setitem(sys.modules, "jaxlm.run.harness", types.ModuleType("replaced"))
    del sys.modules["jaxlm.run.harness"]
    make_run(tmp_path / "run")
    assert main([str(tmp_path / "run"), "--tasks", "t", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["truncated"] == 3
    assert "3 requests were cut at their beginning: they exceed the context of 32" in said.err
    assert read_results(tmp_path / "out" / "results.json").truncated == 3


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="jaxlm[eval] is installed")
def test_without_the_extra_it_says_what_to_install(tmp_path, capsys):
    assert run_main(main, [str(tmp_path), "--tasks", "x"]) == 2
    assert "pip install 'jaxlm[eval]'" in capsys.readouterr().err


def test_result_files_of_both_forms_are_read(tmp_path, capsys):
    old = {"results": {"t": {"acc": 0.5, "acc_stderr": 0.1, "alias": "t"}}, "config": {"model_args": "m"}}
    new = {
        "results": {
            "t": {"alias": "t", "acc,none": 0.5, "acc_stderr,none": 0.1, "em,strict": 1, "em_stderr,strict": "N/A"}
        },
        "n-samples": {"t": {"original": 9, "effective": 4}},
        "model_name": "m",
    }  # fmt: skip
    for record, num_items in ((old, {}), (new, {"t": 4})):
        path = tmp_path / "results.json"
        path.write_text(json.dumps(record))
        found = read_results(path)
        assert found.tasks["t"]["acc"] == (0.5, 0.1)
        assert (found.model, found.num_items) == ("m", num_items)
    assert found.tasks["t"]["em,strict"] == (1.0, None)
    assert main(["--read", str(tmp_path / "results.json")]) == 0
    shown = json.loads(capsys.readouterr().out)["tasks"]["t"]
    assert shown == {"acc": {"value": 0.5, "standard_error": 0.1}, "em,strict": {"value": 1.0}}
    path.write_text("{}")
    assert run_main(main, ["--read", str(path)]) == 2
    assert "no result file of lm-evaluation-harness" in capsys.readouterr().err
    assert run_main(main, []) == 2
    bad = tmp_path / "samples.jsonl"
    bad.write_text('{"doc_id": 1}\n')
    with pytest.raises(UserError, match="no item of lm-evaluation-harness"):
        read_samples(bad)
