"""The Colab notebook runs from its first cell to its last, with fewer steps."""

from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.quick import FLAGS

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "quickstart.ipynb"


@pytest.mark.slow
def test_notebook_runs(tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    monkeypatch.setenv("JAXLM_NOTEBOOK_STEPS", "20")
    monkeypatch.setenv("JAXLM_NOTEBOOK_RUN_DIR", str(run_dir))
    monkeypatch.setenv("XLA_FLAGS", FLAGS)  # one device, as on a person's machine
    monkeypatch.delenv("MPLBACKEND")  # the kernel sets its own, which puts pictures into the notebook
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("name") == "stdout"
    )
    assert "nats" in printed
    assert "most likely next pieces" in printed
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 1
    assert (run_dir / "report.html").is_file()
