"""Every notebook of examples/ runs from top to bottom, in this interpreter, offline, without a person's own files."""

import re
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
KERNEL = "structmae-test"


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def printed(notebook):
    return "".join(output.text for output in outputs(notebook) if output.get("name") == "stdout")


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """The name of a kernel of this interpreter, which finds nothing of the person who runs the tests."""
    write_kernel_spec(tmp_path / "jupyter" / "kernels" / KERNEL)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR"):
        (tmp_path / name.lower()).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("STRUCTMAE_CACHE", str(tmp_path / "cache"))
    for name in ("STRUCTMAE_DATA", "MPLBACKEND"):  # the kernel's own backend puts figures into the notebook
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):  # a download fails at once
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return KERNEL


def test_there_are_notebooks():
    assert "graphs.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_valid_and_without_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(notebook))
    assert all(re.fullmatch("[a-z-]+", cell.id) for cell in notebook.cells), "ids that a tool made change the diffs"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, kernel, tmp_path):
    here = tmp_path / "cwd"
    here.mkdir()
    notebook = read(path)
    client = NotebookClient(notebook, kernel_name=kernel, timeout=300, resources={"metadata": {"path": str(here)}})
    # The first cell says which interpreter it runs in; it is taken out again.
    notebook.cells.insert(0, nbformat.v4.new_code_cell("import sys; print(sys.executable)"))
    client.execute()
    first = notebook.cells.pop(0)

    assert first.outputs[0].text.strip() == sys.executable
    assert list(here.iterdir()) == [], "a notebook writes to a temporary folder, not where it stands"
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    if path.name == "graphs.ipynb":
        scores = re.findall(r"^fine-tuned from (.+): test accuracy (\d\.\d+) ", printed(notebook), re.MULTILINE)
        assert [start for start, _ in scores] == ["the pre-trained encoder", "random initialisation"]
        assert all(float(score) > 0.6 for _, score in scores), "six classes: chance is a sixth"
