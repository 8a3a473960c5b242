"""Best of n: what the judge prefers is kept, for tuning and as pairs; bad input is one line."""

import json

import numpy as np
import pytest

import jaxlm
from jaxlm.io.conversations import read_conversations, read_rankings
from jaxlm.run.align.best_of import best_of
from jaxlm.text.chat.templates import CHATML
from tests.run.align.tuning_commands import command_of

command = command_of("best-of")

JUDGE = """
def spread(prompts, answers, records):
    return [len(set(answer)) + record["bonus"] for answer, record in zip(answers, records)]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_run):
    path = tmp_path_factory.mktemp("runs") / "answers"
    make_run(path, max_seq_len=64, seq_len=64)
    (path / "chat_template.jinja").write_text(CHATML)
    return path


def test_the_best_answers_are_kept(run, tmp_path, capsys):
    prompts, judge = tmp_path / "prompts.jsonl", tmp_path / "judge.py"
    prompts.write_text("".join(json.dumps({"prompt": said, "bonus": 3}) + "\n" for said in ("to", "be", "or")))
    judge.write_text(JUDGE)
    out, pairs = tmp_path / "best.jsonl", tmp_path / "pairs.jsonl"
    options = ("--num-samples", "6", "--max-new-tokens", "24", "--keep-cut")
    argv = (run, "--prompts", prompts, "--judge", f"{judge}:spread", "--out", out, "--pairs", pairs, *options)
    code, figures, err = command(capsys, *argv)
    assert code == 0, err
    assert figures["reward_of_best"] >= figures["reward_mean"] >= 3
    drawn = jaxlm.load(run).answer(["to", "be", "or"], num_samples=6, max_new_tokens=24)
    texts = [[one.text for one in drawn[i : i + 6]] for i in (0, 6, 12)]
    kept = [one.messages[-1].content for one in read_conversations(out)]
    for row, best in zip(texts, kept, strict=True):
        assert len(set(best)) == max(len(set(text)) for text in row if text.strip())
    assert figures["reward_of_best"] == pytest.approx(3 + np.mean([len(set(text)) for text in kept]))
    assert figures["num_pairs"] > 0
    for pair in read_rankings(pairs):
        assert len(set(pair.answers[0])) > len(set(pair.answers[1]))
    # What was cut has no end to be learnt: a model that has not learnt to end has nothing to give.
    again = (*argv[:1], *argv[1:5], "--out", tmp_path / "again.jsonl", "--num-samples", "2", "--max-new-tokens", "2")
    code, _, err = command(capsys, *again)
    assert figures["num_cut"] > 0
    assert (code, "raise --max-new-tokens" in err) == (2, True)


def test_what_is_refused(run, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "to"}\n')
    raising = tmp_path / "raising.py"
    raising.write_text("def f(prompts, answers, records):\n    raise ValueError('no')\n")
    good = {"--prompts": prompts, "--judge": f"{raising}:f", "--out": tmp_path / "out.jsonl", "--max-new-tokens": "4"}
    for change, words in (
        ({"--judge": f"{raising}:g"}, "has no function 'g'"),
        ({"--judge": run}, "is no reward model of answers"),
        ({"--out": tmp_path / "out.txt"}, "name a .jsonl file"),
        ({"--num-samples": "1"}, "leaves nothing to choose"),
        ({"--pairs": tmp_path / "out.jsonl"}, "name one file twice"),
        ({"--out": prompts}, "name one file twice"),
        ({"--least": "nan"}, "least=nan is no number"),
        ({"--time-limit": "0"}, "time_limit=0 must be a number of seconds above 0"),
        ({"--time-limit": "nan"}, "time_limit=nan must be a number of seconds above 0"),
        ({"--prompts": tmp_path / "none.jsonl"}, "none.jsonl cannot be read"),
        ({}, "raised ValueError: no for an answer to"),
    ):
        argv = [str(part) for item in (good | change).items() for part in item] + ["--keep-cut"]
        code, _, err = command(capsys, run, *argv)
        assert code == 2
        assert words in err
    assert not (tmp_path / "out.jsonl").exists()


def test_the_time_limit_is_for_the_answers_to_one_prompt(run, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": said}) + "\n" for said in ("to", "be", "or", "not")))
    together = []

    def judge(prompts, answers, records):
        together.append((*prompts,))
        return [len(answer) for answer in answers]

    options = {"num_samples": 3, "max_new_tokens": 8, "keep_cut": True, "functions": {"judge": judge}}
    best_of(run, prompts, "judge", tmp_path / "out.jsonl", **options)
    assert [set(each) for each in together] == [{"to"}, {"be"}, {"or"}, {"not"}]


def test_functions_of_the_caller(run, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "to"}\n')
    judge = {"short": lambda prompts, answers, records: [-len(answer) for answer in answers]}
    options = {"num_samples": 4, "max_new_tokens": 8, "keep_cut": True, "functions": judge}
    figures = best_of(run, prompts, "short", tmp_path / "out.jsonl", **options)
    assert figures["num_kept"] == 1


def test_answers_outlive_a_judge_that_fails(run, tmp_path, capsys):
    prompts, judge, out = tmp_path / "prompts.jsonl", tmp_path / "judge.py", tmp_path / "best.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": said, "bonus": 3}) + "\n" for said in ("to", "be")))
    judge.write_text("def spread(prompts, answers, records):\n    return [1 / 0]\n")
    argv = (run, "--prompts", prompts, "--judge", f"{judge}:spread", "--out", out, "--num-samples", "3", "--keep-cut")
    code, _, err = command(capsys, *argv, "--max-new-tokens", "8", "--seed", "5")
    kept = tmp_path / "best.answers.jsonl"
    assert code == 2
    assert f"give --answers {kept}" in err
    assert not out.exists()
    judge.write_text(JUDGE)
    code, figures, err = command(capsys, *argv, "--answers", kept)
    assert code == 0, err
    assert figures["num_kept"] == 2
    mended = out.read_text()
    code, drawn_again, err = command(capsys, *argv, "--max-new-tokens", "8", "--seed", "5")
    assert code == 0, err
    assert (out.read_text(), drawn_again) == (mended, figures)
    prompts.write_text('{"prompt": "not"}\n')
    code, _, err = command(capsys, *argv, "--answers", kept)
    assert (code, "does not answer these prompts" in err) == (2, True)
    kept.write_text('{"prompt": 3}\n')
    code, _, err = command(capsys, *argv, "--answers", kept)
    assert (code, "is not what best-of keeps" in err) == (2, True)
