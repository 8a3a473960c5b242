"""What ``jaxlm evaluate`` leaves on disk: read back whole, never a traceback, by n-gram models, which are quick."""

import json
import math
import shutil

import pytest

from jaxlm.core.errors import UserError
from jaxlm.evals.prompting import Template
from jaxlm.evals.tasks.task import Form, Item, Likelihood, Task
from jaxlm.io.eval_files.tasks import load_task
from jaxlm.models.ngram_estimate import NgramConfig
from jaxlm.run import evaluate
from jaxlm.run.config import TasksConfig
from jaxlm.run.evaluate_items import Settings, make_scorer
from jaxlm.run.handle import load
from jaxlm.run.language_model import LanguageModel
from jaxlm.run.ngram_runs import fit_text
from jaxlm.run.opening import stored_digest
from jaxlm.run.text_scores import fit_ngram_run
from jaxlm.text.tokenizer import TokenizerConfig
from tools import score


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An n-gram of maximum likelihood: what it has not seen cannot be."""
    path = tmp_path_factory.mktemp("runs") / "ngram"
    ngram = NgramConfig(order=3, smoothing="ml")
    fit_ngram_run(["to be or not to be"] * 30, path, tokenizer=TokenizerConfig(kind="byte"), ngram=ngram)
    return path


def _lines(path, records):
    path.write_text("".join(json.dumps(one) + "\n" for one in records))


@pytest.fixture
def data(tmp_path):
    """Two passages, four pairs, and two questions of AQuA."""
    _lines(tmp_path / "lambada_test.jsonl", [{"text": "to be or not"}, {"text": "be or not to"}])
    (tmp_path / "blimp").mkdir()
    _lines(tmp_path / "blimp" / "p.jsonl", [{"sentence_good": f"it is {i}", "sentence_bad": f"{i}"} for i in range(4)])
    asked = {"question": "Which?", "options": ["A)1", "B)2"], "correct": "B"}
    _lines(tmp_path / "AQuA_test.json", [asked, {**asked, "correct": "A"}])
    return tmp_path


def _run(capsys, run, data, tasks, *argv):
    assert (
        evaluate.main([str(one) for one in (run, "--tasks", tasks, "--data", data, "--out", data / "out", *argv)]) == 0
    )
    said = capsys.readouterr()

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    return json.loads(said.out.splitlines()[-1], parse_constant=refuse), said.err


def test_what_cannot_be_is_read_back_and_graded_again(run, data, capsys):
    _lines(data / "lambada_test.jsonl", [{"text": "to be or not"}, {"text": "to be or zebra"}])
    first, _ = _run(capsys, run, data, "aqua,blimp,lambada")
    for again in (_run(capsys, run, data, "aqua,blimp,lambada")[0], json.loads((data / "out/scores.json").read_text())):
        for name, one in first["tasks"].items():
            same = {key: value for key, value in one.items() if key not in ("num_run_now", "items_per_second")}
            assert same.items() <= again["tasks"][name].items()
    # No choice of AQuA is likelier than another; the pairs, impossible both, count as a half.
    assert first["tasks"]["aqua"]["gold_nats"] == {"value": "Infinity"}
    assert first["tasks"]["aqua"]["gold_probability"]["value"] == 0.5
    assert first["tasks"]["blimp"]["accuracy"]["value"] == 0.5
    assert first["tasks"]["lambada"]["perplexity"] == {"value": "Infinity"}
    for name, path in first["items"].items():
        assert score.main([name, "--outputs", path, "--data", str(data)]) == 0
        graded = json.loads(capsys.readouterr().out)
        assert graded["accuracy"] == first["tasks"][name]["accuracy"]


def test_log_probabilities_that_are_no_numbers_are_refused_by_item(data):
    class Broken(LanguageModel):
        family = "decoder"

        def likelihoods(self, requests, *, truncate=True):
            return [Likelihood(math.nan, 1, 1, False) for _ in requests]

    for name, item in (("lambada", "lambada:1"), ("aqua", "aqua:1"), ("blimp", "blimp/p:1")):
        with pytest.raises(UserError, match=f"task '{name}', {item}: the model's log-probability is NaN"):
            make_scorer(load_task(name, data), Settings()).run(Broken(), [1])


def test_a_continuation_without_a_token_of_its_own_is_not_certain(data, tmp_path):
    """Over words "be" + "fore" is one token: it is scored whole, and what adds nothing is refused by its item."""
    (tmp_path / "text").write_text("to be or not before to\n" * 30)
    fit_text(tmp_path / "text", tmp_path / "words", NgramConfig(order=2))
    lm = load(tmp_path / "words")
    merged, whole = lm.likelihoods([("to be", "fore"), ("to", " before")])
    assert merged.num_tokens == 1
    assert merged.logprob == whole.logprob < 0
    with pytest.raises(UserError, match=r"requests\[1\] has the continuation '', which adds no token to its context"):
        lm.likelihoods([("to", " be"), ("to", "")])
    task = Task("own", Form("cloze", Template("{question}", gap="")), (Item("own:0", "to zeb", "ra"),))
    with pytest.raises(UserError, match=r"^own:0 has the continuation 'ra', which adds no token"):  # both unknown
        make_scorer(task, Settings()).run(lm, [0])


@pytest.mark.parametrize(
    "line",
    [
        '{"name":"lambada:0"}',
        '{"name":"lambada:0","scores":{"accuracy":1.0},"truncated":0}',
        '{"name":"lambada:0","scores":{"accuracy":null,"nats":1.0,"bytes":1.0},"truncated":0}',
        '{"name":"lambada:0","scores":{"accuracy":1.0,"nats":1.0,"bytes":1.0}}',
        '{"name":["lambada:0"],"scores":{"accuracy":1.0,"nats":1.0,"bytes":1.0},"truncated":0}',
        "[1]",
    ],
)
def test_a_line_that_lacks_something_is_named(run, data, capsys, line):
    _run(capsys, run, data, "lambada")
    items = data / "out" / "lambada-0shot.jsonl"
    items.write_text(items.read_text() + line + "\n")
    with pytest.raises(UserError, match=r"lambada-0shot.jsonl line 3 is no result of an item: remove the line"):
        _run(capsys, run, data, "lambada")


def test_a_written_answer_that_lacks_something_is_named(run, data, capsys):
    asked = ("aqua", "--strategy", "direct", "--limit", "1")
    _run(capsys, run, data, *asked)
    items = data / "out" / "aqua-direct.jsonl"
    record = json.loads(items.read_text())
    for spoilt in ({"outputs": 3}, {"outputs": []}, {"behind_cue": None}, {"answer": 3}):
        _lines(items, [{**record, **spoilt}])
        with pytest.raises(UserError, match=r"aqua-direct.jsonl line 1 is no result of an item"):
            _run(capsys, run, data, *asked)


def test_half_written_settings_are_named_beside_the_items(run, data, capsys):
    _run(capsys, run, data, "lambada")
    settings = data / "out" / "lambada-0shot.settings.json"
    settings.write_text(settings.read_text()[:20])
    with pytest.raises(UserError, match=r"0shot.settings.json is no JSON object.*remove .*lambada-0shot.jsonl and"):
        _run(capsys, run, data, "lambada")
    (data / "out" / "lambada-0shot.jsonl").unlink()
    assert _run(capsys, run, data, "lambada")[0]["tasks"]["lambada"]["num_run_now"] == 2


def test_settings_count_only_where_there_are_items(run, data, capsys):
    _run(capsys, run, data, "lambada", "--seed", "1")
    items = data / "out" / "lambada-0shot.jsonl"
    both = r"lambada-0shot.jsonl was made otherwise \(seed was 1, now 0\).* remove .*0shot.jsonl and .*settings.json"
    with pytest.raises(UserError, match=both):
        _run(capsys, run, data, "lambada")
    items.write_text("{half")  # a kill in the middle of the first line
    assert _run(capsys, run, data, "lambada")[0]["tasks"]["lambada"]["num_run_now"] == 2
    assert len(items.read_text().splitlines()) == 2


def test_results_are_written_to_a_folder(run, data, capsys):
    (data / "out").write_text("")
    with pytest.raises(UserError, match=r"out cannot be a folder of results"):
        _run(capsys, run, data, "lambada")


def test_tasks_that_take_no_examples_are_said_to_have_none(run, data, capsys):
    found, said = _run(capsys, run, data, "lambada,blimp", "--shots", "1")
    assert "blimp: takes no examples: 0 shots, not 1" in said.splitlines()
    assert {name: one["num_shots"] for name, one in found["tasks"].items()} == {"lambada": 1, "blimp": 0}
    assert found["items"]["blimp"].endswith("blimp-0shot.jsonl")
    assert json.loads((data / "out" / "blimp-0shot.settings.json").read_text())["num_shots"] == 0


def test_scores_of_several_commands_stand_together(run, data, capsys, tmp_path_factory):
    _run(capsys, run, data, "lambada,blimp")
    _run(capsys, run, data, "lambada", "--shots", "1")
    scores = data / "out" / "scores.json"
    found = json.loads(scores.read_text())
    assert {name: one["num_shots"] for name, one in found["tasks"].items()} == {"lambada": 1, "blimp": 0}
    assert found["items"].keys() == {"lambada", "blimp"}
    other = tmp_path_factory.mktemp("runs") / "other"
    fit_ngram_run(["to be or"] * 30, other, tokenizer=TokenizerConfig(kind="byte"))
    _, said = _run(capsys, other, data, "aqua")
    assert "scores.json held no scores of this model: it is written anew" in said
    assert json.loads(scores.read_text())["tasks"].keys() == {"aqua"}
    scores.write_text("{")
    _run(capsys, other, data, "aqua")
    assert json.loads(scores.read_text())["tasks"].keys() == {"aqua"}


def test_a_model_of_the_same_name_and_config_is_another(data, capsys, tmp_path_factory):
    """Two that differ in their counts alone: the second gets no result of the first."""
    runs = [tmp_path_factory.mktemp("runs") / "same" for _ in range(2)]
    for run, text in zip(runs, ("to be or not", "or to not be"), strict=True):
        fit_ngram_run([text] * 30, run, tokenizer=TokenizerConfig(kind="byte"))
    assert (runs[0] / "config.json").read_text() == (runs[1] / "config.json").read_text()
    _run(capsys, runs[0], data, "lambada")
    with pytest.raises(UserError, match=r"was made otherwise \(stored was .*, now .*\)"):
        _run(capsys, runs[1], data, "lambada")
    shutil.copytree(runs[0], moved := runs[0].parent / "moved")
    assert _run(capsys, moved, data, "lambada")[0]["tasks"]["lambada"]["num_run_now"] == 0


def test_adapters_are_another_model_on_another_base(tmp_path):
    """Also where their own files are the same."""

    def keep(run, config, weight):
        (run / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)
        (run / "config.json").write_text(json.dumps({"config": config}))
        (run / "checkpoints" / "3" / "state").write_text(weight)

    base, adapters = tmp_path / "base", tmp_path / "adapters"
    keep(adapters, {"tune": "lora", "base": str(base), "base_step": 3}, "small")
    found = []
    for weight in ("one", "two", "one"):
        keep(base, {"model": {}}, weight)
        found.append(stored_digest(adapters, 3))
    assert found[0] == found[2] != found[1]


def test_tasks_of_ones_own(run, data, capsys, tmp_path):
    """Scored, kept, resumed and graded again as published ones are; an item that changed is another."""
    (tmp_path / "a").mkdir()
    texts, sums, same = tmp_path / "texts.jsonl", tmp_path / "sums.jsonl", tmp_path / "a" / "texts.jsonl"
    _lines(texts, [{"form": {"kind": "text"}}, {"question": "to be or not"}, {"question": "not to be"}])
    number = {"form": {"kind": "answer", "extraction": {"form": "number"}, "max_new_tokens": 4}}
    _lines(sums, [number, {"question": "1 and 1?", "answer": 2, "name": "first"}])
    own = [str(run), "--tasks", f"{texts},{sums}", "--out", str(data / "out")]
    for num_run in (2, 0):
        assert evaluate.main(own) == 0
        found = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert found["tasks"]["texts"]["num_run_now"] == num_run
    (whole,) = load(run).likelihoods([("", "to be or not")])
    rows = [json.loads(line) for line in (data / "out" / "texts-0shot.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == ["texts:0", "texts:1"]
    assert rows[0]["scores"] == {"nats": -whole.logprob, "tokens": 12.0, "bytes": 12.0}
    assert json.loads((data / "out" / "sums-direct.jsonl").read_text())["name"] == "first"
    assert score.main([str(texts), "--outputs", found["items"]["texts"], "--against", found["items"]["texts"]]) == 0
    graded = json.loads(capsys.readouterr().out)
    assert graded["perplexity"] == found["tasks"]["texts"]["perplexity"]
    assert graded["against"]["difference"] == 0
    _lines(sums, [number, {"question": "1 and 1?", "answer": 3, "name": "first"}])
    with pytest.raises(UserError, match=r"sums-direct.jsonl was made otherwise \(items was"):
        evaluate.main(own)
    _lines(same, [{"form": {"kind": "text"}}, {"question": "to be"}])
    with pytest.raises(UserError, match="--tasks names two files of the task 'texts': rename one"):
        evaluate.main([str(run), "--tasks", f"{texts},{same}", "--out", str(data / "out")])
    TasksConfig(names=(str(texts),))  # needs no folder while a run trains
    with pytest.raises(ValueError, match=r"without tasks.data"):
        TasksConfig(names=(str(texts), "blimp"))


def test_examples_from_the_items_themselves_are_said_to_be(run, data, capsys):
    """And AQuA's are worked."""
    asked = {"question": "Which?", "options": ["A)1", "B)2"], "correct": "B", "rationale": "So two."}
    _lines(data / "AQuA_test.json", [asked, {**asked, "question": "What?"}])
    found, said = _run(capsys, run, data, "aqua", "--strategy", "cot", "--shots", "1")
    assert "aqua: its files have no training examples: an item's are other items of the same set" in said.splitlines()
    first = json.loads((data / "out" / "aqua-1-shot-cot.jsonl").read_text().splitlines()[0])
    assert "A: So two. The answer is B.\n\nQ:" in first["exchanges"][0][0]["prompt"]
    _lines(data / "train.jsonl", [{"question": "r", "answer": "So 6.\n#### 6"}])
    _lines(data / "test.jsonl", [{"question": "q", "answer": "So 7.\n#### 7"}])
    _, said = _run(capsys, run, data, "gsm8k", "--shots", "1", "--strategy", "direct")
    assert "training examples" not in said
    assert found["tasks"]["aqua"]["num_shots"] == 1


def test_the_split_that_was_read_is_said(run, data, capsys):
    _lines(data / "train.jsonl", [{"question": "q", "answer": "So 6.\n#### 6"}])
    for split in ("train", "test"):
        found, said = _run(capsys, run, data, "gsm8k", "--out", data / split)
        assert f"gsm8k: 1 items, those of its {split} split" in said.splitlines()
        assert found["tasks"]["gsm8k"]["split"] == split
        _lines(data / "test.jsonl", [{"question": "q", "answer": "So 7.\n#### 7"}])
