"""Where the tasks run changes nothing: processes, Ray, Slurm. Steps of a config file reach them; failures say where."""

import dataclasses
import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jaxlm.core.errors import UserError
from jaxlm.run.corpus import parcels
from jaxlm.run.corpus.build import build_corpus
from jaxlm.run.corpus.workspace import Stage, Workspace
from tests.run.corpus import corpus_config as planted

ROOT = Path(__file__).resolve().parents[3]
OWN_STEP = """
import dataclasses
from neighbour import LIMIT
from jaxlm.models.quality import Scored
from jaxlm.text.steps import above, decide


@dataclasses.dataclass(frozen=True)
class Own:
    most: float = LIMIT

    @property
    def name(self):
        return "own"

    def judge(self, texts):
        return decide([above("too long", texts.chars_n.astype(float), self.most)])


def length(texts):
    return [float(len(text)) for text in texts]

"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("executors")
    planted.write_sources(path)
    text = planted.write_config(path).read_text(encoding="utf-8")
    few = "deduplication=DeduplicationConfig(threshold=0.7, recall=0.9, max_hashes=32),\n        "
    text = "from jaxlm.data.deduplication import DeduplicationConfig\n" + text
    steps = "recipe=(*LIGHT, Own()), late_recipe=(Scored('length', length, minimum=10.0),)"
    text = OWN_STEP + text.replace("recipe=LIGHT", few + steps)
    (path / "neighbour.py").write_text("LIMIT = 1200.0\n")
    (path / "own.py").write_text(text, encoding="utf-8")
    (path / "wrong.py").write_text(text.replace("return decide", "raise RuntimeError('boom')\n        return decide"))
    return path


@pytest.fixture(scope="module")
def local(folder: Path) -> dict[str, Any]:
    """The figures of a build in one process."""
    return _figures(_build(folder, "own.py", "local", "--executor.workers", "1"))


def _build(folder: Path, config: str, run: str, *options: str, path: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.corpus", str(folder / config), "--run-dir", str(folder / run)]
    environment = os.environ | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, env=environment)


def _figures(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_steps_and_scores_of_a_config_file_reach_other_processes(folder: Path, local: dict[str, Any]) -> None:
    two = _figures(_build(folder, "own.py", "two", "--executor.workers", "2"))
    assert two["sha256"] == local["sha256"]
    again = _build(folder, "own.py", "two", "--executor.workers", "2")
    assert "is finished" in again.stderr  # a score has one name in every process


def test_what_a_task_raises_says_where(folder: Path) -> None:
    done = _build(folder, "wrong.py", "wrong", "--executor.workers", "2")
    assert done.returncode == 1
    assert re.search(r"RuntimeError: boom\nin task \d of stage 1-collect", done.stderr)  # whichever was first


def test_a_lambda_is_refused_before_the_work(folder: Path) -> None:
    text = (folder / "own.py").read_text(encoding="utf-8").replace("'length', length", "'length', lambda texts: texts")
    (folder / "hidden.py").write_text(text, encoding="utf-8")
    done = _build(folder, "hidden.py", "hidden", "--executor.workers", "2")
    assert done.returncode == 2
    assert "at the top level" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "hidden" / "stages").exists()


def test_an_interrupt_ends_all_processes_in_one_line(folder: Path) -> None:
    text = (folder / "own.py").read_text(encoding="utf-8")
    slow = text.replace("return decide", "import time; time.sleep(60); return decide")
    (folder / "slow.py").write_text(slow, encoding="utf-8")
    command = [sys.executable, "-m", "experiments.corpus", str(folder / "slow.py")]
    process = subprocess.Popen(
        [*command, "--run-dir", str(folder / "slow"), "--executor.workers", "2"],
        cwd=ROOT,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list((folder / "slow").glob("stages/1-collect/.*.partial"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "interrupted"
    assert "Traceback" not in said
    while _alive(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _alive(group: int) -> list[str]:
    """Processes of a group that run (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(path.parent.name)
    return found


def test_paths_of_a_parcel_are_the_senders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.getcwd()
    monkeypatch.chdir(tmp_path)
    parcel = parcels.pack(Stage("1-first", 1, _write), Workspace(tmp_path))
    os.chdir(here)
    stage, workspace = parcel.open()
    assert os.getcwd() == str(tmp_path)
    stage.run(workspace, 0)
    assert (tmp_path / "stages/1-first/00000/file").read_text() == "0"


def _write(number: int, directory: Path) -> None:
    (directory / "file").write_text(str(number))


@pytest.mark.slow
def test_ray_gives_the_same_bytes(folder: Path, local: dict[str, Any]) -> None:
    pytest.importorskip("ray")
    done = _build(folder, "own.py", "ray", "--executor.kind", "ray", "--executor.workers", "2")
    assert _figures(done)["sha256"] == local["sha256"]
    assert len(done.stdout.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_failed_task_on_ray_ends_the_build(folder: Path) -> None:
    pytest.importorskip("ray")
    done = _build(folder, "wrong.py", "ray_wrong", "--executor.kind", "ray", "--executor.workers", "2")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "3 of 3 tasks of stage 1-collect failed (task 0: RuntimeError: boom)" in last
    assert not (folder / "ray_wrong/stages/3-exact").exists()


SBATCH = """\
#!{python}
# A Slurm of one machine: notes the job; `work` below runs what was submitted, in order.
import pathlib, sys
jobs = pathlib.Path({jobs!r})
number = len(list(jobs.glob("*.sh"))) + 1
(jobs / f"{{number:03d}}.sh").write_text(pathlib.Path(sys.argv[-1]).read_text())
print(f"Submitted batch job {{number}}")
"""
SQUEUE = """\
#!/bin/sh
cat {jobs}/queue
"""


@pytest.mark.slow
def test_slurm_takes_the_jobs_and_the_next_start_reports(folder: Path, local: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    commands, jobs = tmp_path / "bin", tmp_path / "jobs"
    commands.mkdir()
    jobs.mkdir()
    run, nodes = '#!/bin/sh\nshift 3\nexec "$@"\n', "#!/bin/sh\necho here\n"
    for name, script in {"sbatch": SBATCH, "squeue": SQUEUE, "srun": run, "scontrol": nodes}.items():
        (commands / name).write_text(script.format(python=sys.executable, jobs=str(jobs)), encoding="utf-8")
        (commands / name).chmod(stat.S_IRWXU)
    (jobs / "queue").write_text("")
    options = ("--executor.kind", "slurm", "--executor.slurm.partition", "p")
    path = f"{commands}:{Path(sys.executable).parent}"
    done = _build(folder, "own.py", "slurm", *options, path=path)
    assert _figures(done)["submitted"]
    scripts = sorted(jobs.glob("*.sh"))
    assert len([s for s in scripts if "launch_pickled_pipeline" in s.read_text()]) == 12
    (jobs / "queue").write_text("7\n")
    early = _build(folder, "own.py", "slurm", path=path)  # even here: the jobs write into the directory
    assert _figures(early)["submitted"]
    assert "still has the jobs 7" in early.stderr
    (jobs / "queue").write_text("")
    assert len(list(jobs.glob("*.sh"))) == len(scripts)
    for script in scripts:
        if "launch_pickled_pipeline" in script.read_text():
            _run_array(script, path, tmp_path)
    done = _build(folder, "own.py", "slurm", *options, path=path)
    assert _figures(done)["sha256"] == local["sha256"]


def _run_array(script: Path, path: str, elsewhere: Path) -> None:
    """All tasks of a job array in one process after the other, started in another directory."""
    text = script.read_text()
    last = int(next(line for line in text.splitlines() if "--array=" in line).partition("=0-")[2].partition("%")[0])
    for rank in range(last + 1):
        environment = os.environ | {
            "PATH": f"{path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "SLURM_ARRAY_TASK_ID": str(rank),
            "SLURM_NODELIST": "here",
        }
        done = subprocess.run(["bash", str(script)], cwd=elsewhere, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_no_cluster_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jaxlm.run.config_files import run_config_file
    from jaxlm.run.corpus.config import CorpusBuildConfig
    from jaxlm.run.corpus.executors import ExecutorConfig, SlurmConfig

    monkeypatch.setenv("PATH", "/nowhere")
    config = run_config_file(folder / "small.py", CorpusBuildConfig)
    slurm = ExecutorConfig(kind="slurm", slurm=SlurmConfig(partition="p"))
    with pytest.raises(UserError, match="finds no sbatch"):
        build_corpus(dataclasses.replace(config, executor=slurm), folder / "no")
    with pytest.raises(ValueError, match="mem_per_cpu_gb=0"):
        SlurmConfig(mem_per_cpu_gb=0)
