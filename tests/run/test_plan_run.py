"""``python -m tools.plan run``: plans for the real configs, and what is refused."""

import json
import math

import pytest

from tools import plan


def run(capsys, *argv):
    code = plan.main(["run", *argv])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_plan_for_a_real_run(capsys):
    code, out, err = run(capsys, "llama3_8b", "--topology", "v5e:16x16", "--tokens", "1e12")
    assert code == 0, err
    figures = json.loads(out.splitlines()[-1])
    best = figures["recommended"]
    assert math.prod(best["mesh"].values()) == figures["chips"] == 256
    assert figures["steps"] == math.ceil(1e12 / 4194304)
    assert best["memory_bytes"] <= 0.9 * figures["hbm_bytes"]
    least, most = figures["days"]
    assert least * 86400 == pytest.approx(figures["steps"] * best["step_seconds"])
    assert figures["chip_hours"] == [pytest.approx(24 * 256 * days) for days in (least, most)]
    assert figures["as_configured"]["mesh"]["fsdp"] == 256
    assert {r["reason"].split(":")[0] for r in figures["refused"]} >= {"does not divide", "slower"}
    assert "chip-hours" in err


def test_compute_gives_tokens_and_days_give_chips(capsys):
    code, out, _ = run(capsys, "llama3_8b", "--chip", "v5e", "--flops", "1e21", "--days", "2")
    assert code == 0
    figures = json.loads(out)
    assert figures["flops"] == pytest.approx(1e21, rel=1e-3)
    assert figures["days"][1] <= 2
    assert figures["chips"] < 256


def test_nothing_fits(capsys):
    code, out, err = run(capsys, "gpt3_175b", "--topology", "v5e:2x4")
    assert code == 1
    figures = json.loads(out)
    assert figures["recommended"] is None
    assert "does not fit" in figures["refused"][0]["reason"]
    assert "nothing fits" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["llama3_8b"], "no machine given"),
        (["llama3_8b", "--topology", "v5p:8x8x15"], "did you mean v5p:8x8x16"),
        (["llama3_8b", "--chips", "250", "--chip", "v5e"], "no v5e has --chips 250: near it are 64, 128, 256"),
        (["llama3_8b", "--chips", "256", "--chip", "v5"], "there is no topology 'v5'"),
        (["llama3_8b", "--topology", "v5e:2x4", "--flops", "1", "--tokens", "1"], "give one"),
        (["llama3_8b", "--topology", "v5e:2x4", "--days", "0"], "--days 0.0 must be above 0"),
        (["gpt3_175b", "--chip", "v5e", "--flops", "1e24", "--days", "0.1"], "give more days"),
        (["shakespeare_lstm", "--topology", "v5e:2x4"], "plans are made for decoders"),
        (["llama3_9b", "--topology", "v5e:2x4"], "unknown config 'llama3_9b'"),
    ],
)
def test_bad_input_is_one_line(argv, said, capsys):
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
