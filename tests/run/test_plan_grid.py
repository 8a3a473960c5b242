"""The memory model against the compiler, on the half of the grid that its constants were not fitted on."""

from pathlib import Path

import pytest

from jaxlm.core.errors import UserError
from jaxlm.plan.activations import CALIBRATED
from jaxlm.plan.calibration import COUNTED, Case, fit_constants
from jaxlm.run.plan_grid import FULL, GridCase, halves, measure, prepared, read_grid, write_grid


@pytest.fixture(scope="module")
def cases(repo: Path) -> list[GridCase]:
    return read_grid(repo / "experiments" / "plan_grid.csv")


def test_the_other_half_is_foretold(cases):
    _, judged = halves(cases)
    compared = [case for case in judged if case.is_compared]
    errors = sorted(abs(prepared(case).error(CALIBRATED)) for case in compared)
    assert len(errors) >= 25
    assert errors[len(errors) // 2] <= 0.03
    assert errors[-1] <= 0.10


def test_the_halves_depend_on_what_the_runs_are_alone(cases):
    fitted, judged = halves(cases)
    assert {case.name for case in fitted} | {case.name for case in judged} == {case.name for case in cases}
    assert abs(len(fitted) - len(judged)) <= 1
    other = [GridCase(case.row | {"peak_bytes": "1"}) for case in reversed(cases)]
    assert [case.name for case in halves(other)[0]] == [case.name for case in fitted]


def test_a_full_chip_is_not_compared(cases):
    case = cases[0]
    limit = int(FULL * case.topology.chip.hbm_bytes)
    for peak, compared in ((str(limit - 1), True), (str(limit + 1), False), ("does not fit", False), ("", False)):
        assert GridCase(case.row | {"peak_bytes": peak}).is_compared == compared


def test_the_table_is_filled_in_and_read_back(tmp_path, cases):
    given = [GridCase(cases[0].row | {"peak_bytes": ""}), cases[1]]
    memory = {"peak": 10, "arguments": 5, "temporaries": 6}
    collectives = {"all-gather": {"bytes": 3}, "collective-permute": {"bytes": 4}}
    figures = {"fits": True, "bytes_per_device": memory, "collectives": collectives, "compile_seconds": 1.5}
    (filled,) = measure(given, lambda config, topology: figures)
    write_grid(tmp_path / "grid.csv", filled)
    read = read_grid(tmp_path / "grid.csv")
    assert read[0].peak_bytes == 10
    assert read[0].row["other_bytes"] == "4"
    assert read[1].row == cases[1].row


def test_a_table_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("n,d,loss\n1,2,3\n")
    with pytest.raises(UserError, match="is no grid of runs: it has no column"):
        read_grid(tmp_path / "other.csv")


def test_constants_are_found_where_the_cases_say_so():
    true = COUNTED._replace(inner=2.6, logits=1.2)

    def case(a: float, b: float) -> Case:
        def total(c):
            return int(1e6 * (1 + a * c.inner + b * c.logits))

        return Case(total(true), total)

    found = fit_constants([case(1, 0.5), case(0.5, 1), case(1, 1)])
    assert found.inner == pytest.approx(2.6, rel=0.05)
    assert found.logits == pytest.approx(1.2, rel=0.05)
    assert found.table == COUNTED.table


def test_the_constants_in_the_code_are_those_of_the_table(cases):
    fitted, _ = halves(cases)
    found = fit_constants([prepared(case) for case in fitted if case.is_compared])
    assert found == pytest.approx(CALIBRATED, abs=0.02)
