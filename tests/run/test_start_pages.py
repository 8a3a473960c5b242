"""The pages that say how to start: what stands in them is read, and means what jaxlm takes it for."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from jaxlm.core.errors import STOPPED_CODE
from jaxlm.run.config import PretrainConfig
from jaxlm.run.config_files import load_config
from jaxlm.run.processes import detect_processes
from jaxlm.run.supervise import COMMANDS

yaml = pytest.importorskip("yaml")
DOCS = Path(__file__).parents[2] / "docs"


def block(page, language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return found


def supervised(words):
    """The arguments after ``supervise`` and its options."""
    rest = words[words.index("supervise") + 1 :]
    start = next(i for i, word in enumerate(rest) if word in COMMANDS)
    return rest[start + 1 :]


def test_the_kubernetes_job_makes_processes_that_find_each_other():
    service, job = yaml.safe_load_all(block("start_kubernetes.md", "yaml"))
    template = job["spec"]["template"]["spec"]
    (container,) = template["containers"]
    environ = {one["name"]: one.get("value", "3") for one in container["env"]}
    launch = detect_processes(environ)
    assert launch is not None
    assert launch.num_processes == job["spec"]["completions"] == job["spec"]["parallelism"]
    host = f"{job['metadata']['name']}-0.{template['subdomain']}"
    assert launch.coordinator is not None
    assert launch.coordinator.startswith(f"{host}:")
    assert service["metadata"]["name"] == template["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    load_config(PretrainConfig, supervised(container["command"]))
    # What was refused, and what its own incidents stopped, would end so again.
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, STOPPED_CODE]


def test_the_slurm_script_is_bash_and_its_command_is_ours(tmp_path):
    script = tmp_path / "train.sbatch"
    script.write_text(block("start_slurm.md", "bash"))
    subprocess.run(["bash", "-n", script], check=True)
    (line,) = [line for line in script.read_text().splitlines() if line.startswith("srun")]
    words = [{"$1": "gpt2", "$2": "runs/x"}.get(word, word) for word in shlex.split(line)]
    load_config(PretrainConfig, supervised(words))


def test_the_tpu_command_is_ours():
    text = (DOCS / "start_tpu_vm.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"jaxlm supervise.*pretrain.*?(?= >)", text)
    load_config(PretrainConfig, supervised(shlex.split(line)))
