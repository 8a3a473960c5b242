"""``python -m tools.plan align``: what a large road costs, and what is refused."""

import json

import pytest

from jaxlm.models.presets import preset
from jaxlm.plan.alignment import LLAMA_70B, plan_on_chip
from jaxlm.run.plan_align import KINDS
from tools import plan


def test_the_cost_of_the_large_road(capsys):
    assert plan.main(["align", "llama3-70b", "--chip", "H100"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["stages"] == plan_on_chip(preset("llama3-70b"), LLAMA_70B, chip="H100", utilisation=0.4)
    assert [one["stage"] for one in found["stages"]] == ["pretraining", "SFT", "reward model", "PPO"]
    assert "99.98" in told.err
    assert plan.main(["align", "llama3-70b", "--rollouts", "800"]) == 0
    twice = json.loads(capsys.readouterr().out)["stages"]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(found["stages"], twice, strict=True)]
    assert ratios == pytest.approx([1, 1, 1, 2])


@pytest.mark.parametrize("chip", KINDS)
def test_every_chip_that_is_offered_is_known(chip, capsys):
    assert plan.main(["align", "gpt2", "--chip", chip, "--pretrain-seq-len", "1024", "--seq-len", "1024"]) == 0
    assert f"gpt2 on {KINDS[chip]} at 40%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["llama3-70"], "did you mean llama3-70b"),
        (["llama3-70b", "--chip", "abacus"], "--chip 'abacus' is not known: there are"),
        (["llama3-70b", "--mfu", "2"], "--mfu 2 is a share of the peak"),
        (["llama3-70b", "--rollouts", "0"], "--rollouts 0 must be above 0"),
        (["llama3-70b", "--reward-pairs", "nan"], "--reward-pairs nan must be above 0"),
        (["gpt2"], "the context of gpt2 is 1024"),
        ([], "NAME"),
    ],
)
def test_what_is_refused(options, message, capsys):
    assert plan.main(["align", *options]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.out == ""
    assert told.err.count("\n") == 1
