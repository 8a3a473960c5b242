"""The doctor says what is there, and each thing that is wrong comes with its mend."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from jaxlm.run import doctor


def test_this_machine_is_usable(capsys):
    assert doctor.main([]) == 0
    text = capsys.readouterr().out
    for part in (
        "system",
        "packages",
        "extras",
        "storage",
        "devices",
        "cores",
        "matmul bfloat16",
        "CPU kernels",
        "jaxlm can run here",
    ):
        assert part in text


def test_json_is_one_object():
    done = subprocess.run([sys.executable, "-m", "jaxlm", "doctor", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["usable"]
    assert found["fatal"] == []
    assert found["facts"]["devices"]["backend"].startswith("cpu, 8 device(s)")
    assert set(found["facts"]["extras"]) == set(doctor.EXTRAS)


def with_requirements(monkeypatch, *lines: str) -> doctor.Report:
    real = metadata.requires
    monkeypatch.setattr(metadata, "requires", lambda name: list(lines) if name == "jaxlm" else real(name))
    report = doctor.Report()
    doctor._packages(report)
    doctor._extras(report)
    return report


def test_missing_and_misfitting_packages(monkeypatch):
    report = with_requirements(
        monkeypatch,
        "numpy>=1",
        "jax<0.1",
        "no-such-thing>=2",
        'also-not-there>=1; extra == "hf"',
        'numpy; extra == "dev"',
    )
    assert report.fatal == [("package no-such-thing is missing", "pip install 'no-such-thing>=2'")]
    assert [(what.split()[0], mend) for what, mend in report.warnings] == [("jax", "pip install 'jax<0.1'")]
    assert report.facts["extras"]["hf"] == "missing also-not-there: pip install 'jaxlm[hf]'"
    assert report.facts["extras"]["dev"] == "present"
    assert report.facts["extras"]["eval"] == "not offered"
    assert "jaxlm cannot run here" in doctor.render(report)


def test_an_extra_of_an_extra_counts():
    assert not doctor._is_met(Requirement("jax[no-such-extra-has-no-needs]>=99"))
    assert doctor._is_met(Requirement("jax>=0.1"))


def test_not_installed_is_said_and_is_not_fatal(monkeypatch):
    def absent(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    report = doctor.Report()
    doctor._packages(report)
    doctor._extras(report)
    assert report.fatal == []
    assert "not installed" in report.warnings[0][0]


def test_a_failing_check_is_a_finding(monkeypatch, capsys):
    def broken(report: doctor.Report) -> None:
        raise RuntimeError("a\nb")

    broken.__name__ = "_system"
    monkeypatch.setattr(doctor, "_system", broken)
    monkeypatch.setattr(doctor, "_devices", lambda report: None)
    monkeypatch.setattr(doctor._devices, "__name__", "_devices", raising=False)
    assert doctor.main([]) == 1
    assert "wrong: system: RuntimeError: a b" in capsys.readouterr().out


def test_unwritable_cache_has_a_mend(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXLM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    report = doctor.Report()
    doctor._storage(report)
    assert [mend for what, mend in report.warnings if "file/cache" in what] == ["set JAXLM_CACHE_DIR to one that is"]


def test_a_kernel_that_the_cache_cannot_hold_asks_for_no_compiler(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXLM_CACHE_DIR", str(tmp_path / "file" / "cache"))
    mends = {}
    for reason in ("[Errno 20] Not a directory: 'kernels'", "no C++ compiler (c++) is installed"):
        monkeypatch.setattr("jaxlm.run.cpu_kernels.kernel_missing", lambda name, reason=reason: reason)
        report = doctor.Report()
        doctor._cpu_kernels(report)
        (mends[reason],) = {mend for _, mend in report.warnings}
    cache, compiler = mends.values()
    assert cache.startswith("set JAXLM_CACHE_DIR")
    assert compiler.startswith("install a C++17 compiler")


def test_a_jax_that_does_not_start_names_packages_of_the_index(monkeypatch):
    def broken() -> None:
        raise RuntimeError("no backend")

    monkeypatch.setattr("jax.devices", broken)
    report = doctor.Report()
    doctor._devices(report)
    ((_, mend),) = report.fatal
    assert mend == "pip install --force-reinstall jax jaxlib"


def test_looking_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXLM_CACHE_DIR", str(tmp_path / "a" / "b"))
    doctor._storage(doctor.Report())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["JAX_PLATFORMS", "XLA_FLAGS"])
def test_settings_that_change_jax_are_shown(monkeypatch, name):
    monkeypatch.setenv(name, "something")
    report = doctor.Report()
    doctor._system(report)
    assert report.facts["system"][name] == "something"


def test_what_a_run_would_take_itself_for_is_shown(monkeypatch):
    report = doctor.Report()
    doctor._processes(report)
    assert report.facts["processes"] == {"a run started here": "a single process"}
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
    doctor._processes(report)
    assert "JAX_NUM_PROCESSES" in report.warnings[0][0]
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    doctor._processes(report)
    assert report.facts["processes"]["a run started here"].startswith("process 3 of 4, coordinator host:1")


def test_slurm_without_srun_has_a_mend(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "2")
    report = doctor.Report()
    doctor._processes(report)
    assert [mend for _, mend in report.warnings] == ["start the training with srun"]
