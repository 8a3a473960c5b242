"""``python -m tools.plan run``: plans for the real configs, and what is refused."""

import json
import math

import pytest

from jaxlm.plan.topology import GIB, parse_topology
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import load_config
from jaxlm.run.plan_run import PlanOptions, as_configured, workload
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


@pytest.mark.parametrize(
    ("args", "peak", "sent"),
    [
        (["gpt3_175b", "--topology", "v5p:8x8x16"], 64.6, 611),
        (["palm_540b", "--topology", "v4:12x16x16", "--slices", "2"], 21.6, 796),
        (["llama3_8b", "--topology", "v5e:16x16"], 7.7, 90),
        (["mixtral_8x7b", "--topology", "v5p:4x8x8"], 36.2, 182),
    ],
)
def test_the_large_runs_as_the_compiler_has_them(args, peak, sent):
    """docs/compile.md: GiB a chip at the peak, and GiB that leave it in a step. None of them is in the grid."""
    config, options = load_config(PretrainConfig, args, PlanOptions, prog="x")
    assert options.topology is not None
    topology = parse_topology(options.topology, options.slices)
    row = as_configured(config, workload(config), topology)
    assert not isinstance(row, str)
    assert row["memory_bytes"] / GIB == pytest.approx(peak, rel=0.10)
    assert sum(c["bytes"] for c in row["collectives"].values()) / GIB == pytest.approx(sent, rel=0.06)


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
