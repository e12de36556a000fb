"""Run the notebooks and keep their outputs, without the paths of the machine.

python notebooks/execute.py            # all
python notebooks/execute.py 3_*.ipynb  # some, by names in this folder
"""

import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def execute(path: Path) -> None:
    """Run one from a clean start, and write it with what came out."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": FOLDER}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":  # warnings of libraries, with their paths, are left out
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        cell["id"] = f"cell-{number}"
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    text = nbformat.writes(notebook)
    # The notebooks work in a temporary folder: its name is nobody's business.
    path.write_text(re.sub(r"/[\w./-]*/tmp[a-z0-9_]{8}(/|\b)", "", text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for path in sorted(match for pattern in sys.argv[1:] or ["*.ipynb"] for match in FOLDER.glob(pattern)):
        print(path.name, flush=True)
        execute(path)
