"""The tutorials as notebooks: `python -m docs.notebooks [NAME...]` runs them and keeps the outputs.

A tutorial is written as Markdown, `docs/tutorials/NAME.md`: a block of `python` or `sh` is a cell.
`NAME.ipynb` beside it is the same with the outputs of its last run, which the site shows.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).parent / "tutorials"
NAMES = ("first-search", "dense-and-hybrid", "fine-tune", "distil-and-serve", "cluster")
"""The tutorials in their order."""

_CELL = re.compile(r"^```(python|sh)\n(.*?)^```$", re.M | re.S)
_SHELL = "%%bash -e\n"
_PROGRESS = re.compile(r"^\w+: [\d,]+ (of [\d,]+ .*/s.*|.* left)\n", re.M)
_NOISE = re.compile(
    r"^(\[\d{4}-\d\d-\d\d .*|\d{4}-\d\d-\d\d .*\tINFO .*|.*TqdmWarning.*\n.*tqdm)\n", re.M
)
"""What Ray and a kernel without widgets say of themselves."""
_ADDRESS = re.compile(r"\b(?!127\.)\d+\.\d+\.\d+\.\d+:\d+")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


def notebook(name: str) -> NotebookNode:
    """Returns a tutorial as a notebook without outputs."""
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    cells, end = [], 0
    for block in _CELL.finditer(text):
        cells.append(new_markdown_cell(text[end : block.start()].strip()))
        shell = _SHELL if block[1] == "sh" else ""
        cells.append(new_code_cell(shell + block[2].rstrip("\n")))
        end = block.end()
    cells.append(new_markdown_cell(text[end:].strip()))
    for number, cell in enumerate(cells):
        cell["id"] = f"{name}-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def run(name: str, folder: Path, timeout: int = 300) -> NotebookNode:
    """Returns a tutorial with the outputs of all cells, run in an empty folder by this Python.

    Raises:
        CellExecutionError: a cell failed.
    """
    from nbclient import NotebookClient

    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(FOLDER.parents[1]), os.environ.get("PYTHONPATH")])
        ),
        "COLUMNS": "100",
        "MLFLOW_TRACKING_URI": "",
    }
    environment.pop("RAY_ADDRESS", None)
    cells = notebook(name)
    client = NotebookClient(
        cells,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    )
    client.execute(env=environment)
    for cell in cells["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = _joined(cell["outputs"])
    return cells


def _joined(outputs: list[Any]) -> list[Any]:
    """Returns outputs with one stream of text, whose pieces came as they were written."""
    from nbformat.v4 import new_output

    pieces = [output["text"] for output in outputs if output["output_type"] == "stream"]
    text = _NOISE.sub("", _PROGRESS.sub("", _COLOR.sub("", "".join(pieces))))
    rest = [output for output in outputs if output["output_type"] != "stream"]
    return [*([new_output("stream", name="stdout", text=text)] if text else []), *rest]


def executed(name: str) -> NotebookNode:
    """Returns a tutorial with the outputs of its last run that was kept."""
    import nbformat

    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def page(cells: NotebookNode, name: str) -> str:
    """Returns an executed notebook as Markdown: cells, and below each what it printed."""
    parts = []
    for cell in cells["cells"]:
        source = str(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language = "sh" if source.startswith(_SHELL) else "python"
        parts.append(f"```{language}\n{source.removeprefix(_SHELL)}\n```")
        parts += [shown for output in cell["outputs"] if (shown := _shown(output))]
    download = f"[Download this page as a notebook]({name}.ipynb){{ download }}"
    title, _, rest = parts[0].partition("\n\n")
    return "\n\n".join([title, download, rest, *parts[1:]]) + "\n"


def _shown(output: Any) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    text = (output.get("text") or data.get("text/plain", "")).strip("\n")
    return f'<div class="output" markdown>\n\n```text\n{text}\n```\n\n</div>' if text else ""


def main(names: tuple[str, ...] = NAMES) -> None:
    """Runs tutorials and writes their notebooks."""
    import nbformat

    for name in names:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            cells = run(name, Path(folder))
        for cell in cells["cells"]:
            for output in cell.get("outputs", []):  # what a machine calls its places is noise
                if "text" in output:
                    text = output["text"].replace(folder, "/tmp/tutorial")
                    output["text"] = _ADDRESS.sub("10.0.0.1:6379", text)
        nbformat.write(cells, FOLDER / f"{name}.ipynb")
        print(f"{name}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or NAMES)
