"""The commands of scaling laws: fit, recover, and the plan."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.core.errors import UserError
from jaxlm.io.run_table import read_table
from jaxlm.run import plan_scaling, scaling
from jaxlm.run.cli import run_main
from jaxlm.scaling import isoflop
from jaxlm.scaling.forms import CHINCHILLA
from jaxlm.scaling.recovery import TRUTH, design


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of made runs, tokens in billions and compute beside."""
    inputs = design(5, 6)
    loss = CHINCHILLA.predict(TRUTH, *inputs.values())
    loss = loss * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(loss)))
    lines = ["size,tokens,eval loss,C"]
    for n, d, one in zip(*inputs.values(), loss, strict=True):
        lines.append(f"{n!r},{d / 1e9!r},{one!r},{6 * n * d!r}")
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    path.write_text("\n".join(lines).replace("np.float64(", "").replace(")", ""), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def fitted(table):
    out = table.parent / "fit"
    argv = ["fit", "--csv", str(table), "--columns", "n=size,d=tokens*1e9,loss=eval loss"]
    assert run_main(scaling.main, [*argv, "--resamples", "200", "--least-squares", "--out", str(out)]) == 0
    return out


def test_a_table_is_fitted_and_a_plan_reads_it(fitted, capsys):
    written = json.loads((fitted / "fit.json").read_text())
    assert written["laws"]["chinchilla"]["interval_kind"] == "profile"
    low, high = written["laws"]["chinchilla"]["intervals"]["E"]
    assert low < 1.817 < high
    assert written["params"] == "total"
    low, high = written["approaches"]["approach 2, IsoFLOP parabolas"]["exponent_n_interval"]
    assert low < 0.513 < high
    assert {tuple(one["laws"]) for one in written["verdicts"]} == {
        ("chinchilla", "kaplan"),
        ("chinchilla", "equal exponents"),
    }
    laws = written["laws"].values()
    assert {law["prediction_interval_kind"] for law in laws} == {"bootstrap"}
    assert written["approaches"]["approach 2, IsoFLOP parabolas"]["share_kept"] > 0.8
    assert (fitted / "report.html").read_text().count("data:image/svg+xml") >= 4
    capsys.readouterr()
    assert run_main(plan_scaling.main, ["--flops", "1e22", "--fit", str(fitted / "fit.json")]) == 0
    out, err = capsys.readouterr()
    plan = json.loads(out.splitlines()[-1])
    assert plan["laws"][0]["law"] == "your runs"
    assert counted(err) == {"your runs": "with", "Chinchilla 1: envelope": "with", "Kaplan (2020)": "without"}


@pytest.fixture
def by_kaplan(fitted, tmp_path):
    """A fit.json whose runs speak for Kaplan's form, and whose table counted more compute in small models."""
    written = json.loads((fitted / "fit.json").read_text())
    written["verdicts"][0] |= {"better": "kaplan", "z": -19.1}
    written["flops_over_6nd"] = {"smallest": 1.7, "largest": 1.01}
    (tmp_path / "fit.json").write_text(json.dumps(written))
    return tmp_path / "fit.json"


def planned(capsys, *argv):
    """The JSON of a plan, and what it says."""
    assert run_main(plan_scaling.main, list(map(str, argv))) == 0
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]), err


def test_a_plan_says_that_the_runs_speak_for_another_form(by_kaplan, fitted, capsys):
    plan, err = planned(capsys, "--flops", "1e24", "--fit", by_kaplan)
    assert (plan["own"]["form"], plan["own"]["preferred"], plan["own"]["z"]) == ("chinchilla", "kaplan", -19.1)
    assert set(plan["own"]["held_out"]) == {"chinchilla", "kaplan"}
    assert "your runs speak for kaplan against chinchilla (z = -19.1; the largest runs, predicted by the others" in err
    assert [row["law"] for row in plan["laws"][:2]] == ["your runs", "your runs, Kaplan's form"]
    best, constants = plan["laws"][1], json.loads(by_kaplan.read_text())["laws"]["kaplan"]["constants"]
    part = (constants["N_c"] / best["num_params"]) ** (constants["alpha_N"] / constants["alpha_D"])
    law = (part + constants["D_c"] / best["num_tokens"]) ** constants["alpha_D"]
    assert best["loss"] == pytest.approx(law)
    # A file of before says so too, and has no constants of the other form.
    old = json.loads(by_kaplan.read_text())
    for key in ("preferred", "other_fits", "flops_over_6nd"):
        del old[key]
    by_kaplan.write_text(json.dumps(old))
    plan, err = planned(capsys, "--flops", "1e24", "--fit", by_kaplan)
    assert "your runs speak for kaplan against chinchilla" in err
    assert "your runs, Kaplan's form" not in [row["law"] for row in plan["laws"]]
    plan, err = planned(capsys, "--flops", "1e24", "--fit", fitted / "fit.json")
    assert plan["own"]["preferred"] == json.loads((fitted / "fit.json").read_text())["preferred"] == "chinchilla"
    assert "speak for" not in err


def test_a_plan_says_how_the_table_counted_compute(by_kaplan, fitted, capsys):
    runs = {"n": np.array([2.0, 1.0, 1.0]), "d": np.ones(3), "flops": np.array([13.2, 9.0, 12.0])}
    assert scaling._over_6nd(runs) == pytest.approx({"smallest": 1.75, "largest": 1.1})
    _, err = planned(capsys, "--flops", "1e24", "--fit", by_kaplan)
    assert "C here is 6 N D, and your table counts 1.7 times that at its smallest N and 1.01 at its largest" in err
    plan, err = planned(capsys, "--flops", "1e24", "--fit", fitted / "fit.json")
    assert plan["own"]["flops_over_6nd"] == pytest.approx({"smallest": 1.0, "largest": 1.0})
    assert "your table counts" not in err


def test_a_plan_of_ones_own_runs_mixes_no_other_tokens_in(fitted, capsys):
    fit = json.loads((fitted / "fit.json").read_text())
    plan, err = planned(capsys, "--flops", "1e22", "--unique-tokens", "1e15", "--fit", fitted / "fit.json")
    repeats, best = plan["repeated"], plan["laws"][0]
    assert repeats["law"].startswith("your runs")
    assert repeats["loss"] == pytest.approx(best["loss"], rel=1e-4)
    assert "losses of published laws are of their authors' texts" in err
    plan, _ = planned(capsys, "--loss", fit["E"] + 0.3, "--fit", fitted / "fit.json")
    assert list(plan["cost_by_law"]) == ["your runs"]


def counted(table):
    """How some laws of a plan count N, by its table."""
    rows = [line.strip().split("  ") for line in table.splitlines()]
    cells = {row[0]: next(cell.strip() for cell in row[1:] if cell) for row in rows if len(row) > 3}
    return {law: cells[law] for law in ("your runs", "Chinchilla 1: envelope", "Kaplan (2020)")}


def test_a_plan_says_how_ones_own_runs_count(table, tmp_path, capsys):
    argv = ["fit", "--csv", str(table), "--columns", "n=size,d=tokens*1e9,loss=eval loss", "--equal-exponents"]
    argv += ["--params", "non-embedding", "--resamples", "200", "--out", str(tmp_path)]
    assert run_main(scaling.main, argv) == 0
    capsys.readouterr()
    picture = tmp_path / "plan.svg"
    argv = ["--flops", "1e22", "--fit", str(tmp_path / "fit.json"), "--picture", str(picture)]
    assert run_main(plan_scaling.main, argv) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["laws"][0]["embeddings"] is False
    assert counted(err) == {"your runs": "without", "Chinchilla 1: envelope": "with", "Kaplan (2020)": "without"}
    assert "by the first, N without embeddings" in err
    assert "your runs, without embeddings" in picture.read_text()


def test_an_unbounded_end_is_null(capsys):
    """Some resamples' irreducible loss lies above the loss that is wanted."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert run_main(plan_scaling.main, ["--loss", "1.84"]) == 0
    out, err = capsys.readouterr()
    plan = json.loads(out, parse_constant=refuse)
    low, high = plan["flops_interval"]
    assert low < plan["flops"]
    assert high is None
    assert "to inf)" in err


@pytest.fixture(scope="module")
def four_sizes(tmp_path_factory):
    """A CSV of twelve budgets of four sizes: next to no resample has a parabola at every one."""
    rng, lines = np.random.default_rng(0), ["n,d,loss,c"]
    for c in np.geomspace(1e18, 1e21, 12):
        for n in np.sqrt(c / 120) * np.geomspace(0.4, 2.5, 4):
            loss = (2 + 100 / n**0.3 + 245 / (c / 6 / n) ** 0.3) * np.exp(0.001 * rng.standard_normal())
            lines.append(f"{n:.10g},{c / 6 / n:.10g},{loss:.10g},{c:.10g}")
    path = tmp_path_factory.mktemp("four") / "runs.csv"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("least", [50, 1000])
def test_an_interval_that_cannot_be_had_leaves_the_law(four_sizes, least, monkeypatch, capsys):
    monkeypatch.setattr(isoflop, "_LEAST_KEPT", least)
    argv = ["fit", "--csv", str(four_sizes), "--columns", "n=n,d=d,loss=loss,flops=c", "--resamples", "150"]
    assert run_main(scaling.main, argv) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["alpha"] == pytest.approx(0.3, abs=0.05)
    name = "approach 2, IsoFLOP parabolas"
    if least == 50:
        low, high = figures["approaches"][name]["exponent_n_interval"]
        assert low < 0.5 < high
        assert 0.4 < figures["approaches"][name]["share_kept"] < 0.8
    else:
        assert name not in figures["approaches"]
        assert any(f"{name} is left out: only" in one for one in figures["left_out"])


def test_the_plan_without_runs(capsys, tmp_path):
    picture = tmp_path / "plan.svg"
    argv = ["--flops", "5.76e23", "--inference-tokens", "1e13", "--unique-tokens", "2e11", "--picture", str(picture)]
    assert run_main(plan_scaling.main, argv) == 0
    plan = json.loads(capsys.readouterr().out)
    by_name = {one["law"]: one for one in plan["laws"]}
    rounded = by_name["Chinchilla 3: parametric, rounded"]
    assert rounded["num_params"] == pytest.approx(32.2e9, rel=1e-3)
    assert rounded["num_tokens"] == pytest.approx(2.98e12, rel=1e-3)
    again = by_name["Chinchilla, fitted again (Besiroglu 2024)"]
    assert again["num_params_interval"][0] < 70e9 < again["num_params_interval"][1]
    assert by_name["Kaplan (2020)"]["embeddings"] is False
    # What is printed of these two is the exponent's spread, which is none of N at the budget that ties the line down.
    assert by_name["Chinchilla 2: IsoFLOP"]["num_params_interval"] is None
    assert plan["by_exponents_alone"]["Chinchilla 2: IsoFLOP"]["exponent"] == [0.462, 0.534]
    assert plan["inference"]["saved"] > 0
    low, high = plan["inference"]["num_params_interval"]
    assert low < plan["inference"]["within_budget"]["num_params"] < high
    low, high = plan["inference"]["same_loss_intervals"]["num_params"]
    assert low < plan["inference"]["same_loss"]["num_params"] < high
    for row in plan["over_training"]:
        assert row["loss_interval"][0] < row["loss"] < row["loss_interval"][1]
    assert plan["repeated"]["epochs"] > 1
    assert picture.read_text().startswith("<svg")


def test_what_a_loss_costs(capsys):
    assert run_main(plan_scaling.main, ["--loss", "2.0"]) == 0
    plan = json.loads(capsys.readouterr().out)
    low, high = plan["flops_interval"]
    assert low < plan["flops"] < high
    assert plan["cost_by_law"]["Chinchilla, fitted again (Besiroglu 2024)"] == pytest.approx(plan["flops"])
    assert plan["cost_by_law"]["Kaplan (2020)"] == pytest.approx(3.1e8 * 8.64e19 / 2**20)
    assert plan["laws"][0]["loss"] == pytest.approx(2.0)


def test_chips_and_days(capsys):
    assert run_main(plan_scaling.main, ["--chip", "v5p", "--chips", "10", "--days", "1", "--mfu", "0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["flops"] == pytest.approx(10 * 459e12 * 0.5 * 86400)


def test_a_picture_of_a_small_budget(tmp_path, capsys):
    assert run_main(plan_scaling.main, ["--flops", "1e8", "--picture", str(tmp_path / "plan.svg")]) == 0
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "give one of --flops C"),
        (["--flops", "nan"], "--flops nan must be above 0"),
        (["--loss", "1.5"], "not above the irreducible loss"),
        (["--chips", "4"], "--chips and --days go together"),
        (["--chips", "4", "--days", "1", "--chip", "x"], "--chip 'x' is not known"),
        (["--flops", "1e20", "--fit", "no.json"], "cannot be read"),
        (["--flops", "1e20", "--picture", "/no/such/plan.svg"], "/no/such is no directory"),
        (["--flops", "1e21", "--unique-tokens", "200"], "200 unique tokens are below 1000: give single tokens"),
        (["--flops", "1e12", "--inference-tokens", "1e13"], "within them N would be 0.05"),
    ],
)
def test_plans_of_nothing_are_refused(argv, said, capsys):
    assert run_main(plan_scaling.main, argv) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("n=size,loss=eval loss", "needs two of n=COLUMN"),
        ("n=size,d=tokens", "no loss=COLUMN"),
        ("m=size,loss=eval loss", "is no ROLE=COLUMN"),
        ("n=sizes,d=tokens,loss=eval loss", "has no column 'sizes'"),
        ("n=size,d=tokens,loss=eval loss", "no billions"),
        ("n=size,d=size,loss=eval loss", "D / N is 1 in every run"),
    ],
)
def test_tables_of_no_law_are_refused(table, columns, said, capsys):
    assert run_main(scaling.main, ["fit", "--csv", str(table), "--columns", columns]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--delta", "nan"], "--delta: nan must be"),
        (["--delta", "0"], "--delta: 0 must be a number above 0"),
        (["--delta", "-1"], "--delta: -1 must be"),
        (["--seed", "-1"], "--seed: -1 must be a whole number in"),
        (["--columns", "n=size*1.2.3,d=tokens*1e9,loss=eval loss"], "no column 'size*1.2.3'"),
        (["--out", "TABLE"], "is a file, name a directory"),
    ],
)
def test_bad_options_of_a_fit_are_named_before_any_work(table, options, said, capsys):
    argv = ["fit", "--csv", str(table), "--columns", "n=size,d=tokens*1e9,loss=eval loss"]
    assert run_main(scaling.main, [*argv, *(str(table) if one == "TABLE" else one for one in options)]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


@pytest.mark.parametrize(
    ("column", "factor", "said"),
    [("loss", 1 / np.log(2), "mixed units of N, D or loss"), ("c", 1e9, "times 6 N D")],
)
def test_units_mixed_in_every_third_run_are_refused(tmp_path, column, factor, said, capsys):
    """Too little apart for a gap in the column, too far for any law."""
    inputs = design(5, 6)
    rows = {"n": inputs["N"], "d": inputs["D"], "loss": CHINCHILLA.predict(TRUTH, *inputs.values())}
    rows["c"] = 6 * rows["n"] * rows["d"]
    rows[column] = rows[column] * np.where(np.arange(30) % 3 == 0, factor, 1.0)
    path = tmp_path / "runs.csv"
    lines = [",".join(f"{value:.10g}" for value in row) for row in zip(*rows.values(), strict=True)]
    path.write_text("\n".join([",".join(rows), *lines]))
    columns = "n=n,d=d,loss=loss" + (",flops=c" if column == "c" else "")
    assert run_main(scaling.main, ["fit", "--csv", str(path), "--columns", columns, "--resamples", "200"]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


def test_what_is_left_out_of_a_fit_is_said(table, capsys):
    argv = ["fit", "--csv", str(table), "--columns", "n=size,d=tokens*1e9,loss=eval loss", "--resamples", "100"]
    assert run_main(scaling.main, [*argv, "--equal-exponents", "--drop-highest", "20"]) == 0
    out, err = capsys.readouterr()
    figures = json.loads(out)
    assert any(
        "approach 2, IsoFLOP parabolas is left out: needs at least 3 budgets" in one for one in figures["left_out"]
    )
    assert "approach 3, parametric: N ~ C^0.500 (held at that)" in err


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_two_columns_of_one_name_are_refused(tmp_path, suffix):
    path = tmp_path / f"runs{suffix}"
    if suffix == ".csv":
        path.write_text("n,d,loss, loss,,\n1e6,1e9,3,4,,\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array([3.0]), pa.array([4.0])], names=["loss", "loss"]), path)
    with pytest.raises(UserError, match=r"has 2 columns 'loss': which one is meant"):
        read_table(path)


def test_bad_cells_and_commands_are_named(table, tmp_path, capsys):
    bad = tmp_path / "bad.csv"
    bad.write_text("n,d,loss\n1e6,1e9,3\n\n\n2e6,x,3\n")
    assert run_main(scaling.main, ["fit", "--csv", str(bad), "--columns", "n=n,d=d,loss=loss"]) == 2
    assert "line 5: d is 'x', which is no number" in capsys.readouterr().err
    bad.write_text("n,d,loss,c\n1e6,1e9,3,6e15\n2e6,1e9,3,nan\n")
    assert run_main(scaling.main, ["fit", "--csv", str(bad), "--columns", "n=n,d=d,loss=loss,flops=c"]) == 2
    assert "line 3: c is nan, which is no compute" in capsys.readouterr().err
    assert run_main(scaling.main, ["fir"]) == 2
    assert "there are fit, recover" in capsys.readouterr().err


def test_a_bad_run_is_named_by_its_line(table, tmp_path, capsys):
    head, *rows = table.read_text().splitlines()
    bad = tmp_path / "bad.csv"
    argv = ["fit", "--csv", str(bad), "--columns", "n=size,d=tokens*1e9,loss=eval loss", "--drop-highest", "1"]
    size, tokens, _, c = rows[9].split(",")
    for text, said in (
        ([*rows[:9], f"{size},{tokens},-3,{c}", *rows[10:]], "bad.csv: loss of line 12 is -3"),
        ([*rows[:9], "", *rows[9:], rows[9]], "bad.csv: line 13 and line 34 are the same"),
    ):
        bad.write_text("\n".join([head, "", *text]))
        assert run_main(scaling.main, argv) == 2
        assert said in capsys.readouterr().err


def test_recovery_is_reported(capsys):
    assert run_main(scaling.main, ["recover", "--trials", "20"]) == 0
    out, err = capsys.readouterr()
    assert set(json.loads(out)["coverage"]) == set(CHINCHILLA.names)
    assert "intervals hold it" in err
    assert run_main(scaling.main, ["recover", "--help"]) == 0
    assert "whether 95 % intervals cover 95 % of the time" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["sweep", "predict", "quality", "align"])
def test_commands_with_a_config_show_their_fields_without_one(command, capsys):
    assert run_main(scaling.main, [command, "--help"]) == 0
    assert "--run-dir" in capsys.readouterr().out
