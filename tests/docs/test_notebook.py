"""The notebook: its cells run from top to bottom, in Jupyter's kernel where there is one."""

import contextlib
import io
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from blocks import DOCS

NOTEBOOK = DOCS / "tutorials/two_folders.ipynb"


def printed_by_jupyter(path: Path) -> str:
    """What the notebook prints in a kernel of its own."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=300).execute()
    return "".join(output["text"] for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output)


def printed_by_python(path: Path) -> str:
    """What its cells of code print, one after the other."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    scope: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), scope)
    return printed.getvalue()


@pytest.mark.slow
def test_the_notebook_runs_and_sees_the_blurred_maps_behind() -> None:
    run = printed_by_jupyter if find_spec("nbclient") and find_spec("ipykernel") else printed_by_python
    lines = run(NOTEBOOK).splitlines()
    (change,) = [line for line in lines if line.startswith("Sm ") and "p =" in line]
    assert change.split()[1].startswith("-"), "the second folder is blurred and shifted further"
    assert change.endswith("p = 0.000") or float(change.split()[-1]) < 0.05
    assert sum(line[:2].isdigit() for line in lines) == 5
