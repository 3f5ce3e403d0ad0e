"""The tutorials run as they stand, and their notebooks are their texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.notebooks import FOLDER, NAMES, executed, notebook, run

ON_RAY = ("distil-and-serve", "cluster")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_the_tutorial_with_outputs(name: str) -> None:
    kept, written = executed(name), notebook(name)
    assert [cell["source"] for cell in kept["cells"]] == [c["source"] for c in written["cells"]], (
        f"run python -m docs.notebooks {name}"
    )
    assert not any(o["output_type"] == "error" for c in kept["cells"] for o in c.get("outputs", []))


def test_every_tutorial_is_listed_and_ends_with_what_comes_next() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {*NAMES, "index"}
    for name in NAMES:
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        assert "\n## Next\n" in text and "\n**How long it takes.** " in text


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.ray, pytest.mark.slow] if name in ON_RAY else [])
        for name in NAMES
    ],
)
def test_a_tutorial_runs(name: str, tmp_path: Path) -> None:
    cells = run(name, tmp_path)
    assert all(cell["execution_count"] for cell in cells["cells"] if cell["cell_type"] == "code")
