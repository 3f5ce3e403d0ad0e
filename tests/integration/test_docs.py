"""Every command of the README and the docs: `sh` blocks are run, `console` blocks are checked.

The blocks of all pages run in one folder, page after page, as a reader would.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.commands import VERBS
from raydist.config.load import load, split_words

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["search", "dense", "train", "tune", "rerank", "evaluate", "benchmark", "mlflow", "serve"]
PAGES += ["mcp", "cluster"]
ON_RAY = re.compile(r" (workers|shards)=")
FILES = [ROOT / "README.md", *(ROOT / f"docs/how-to/{page}.md" for page in PAGES)]


def blocks(path: Path, language: str) -> Iterator[str]:
    """Yields the command lines of a page's blocks, continued lines joined."""
    for block in re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split("  #")[0].strip()
            if line and not line.startswith("#"):
                yield line


OTHERS = [ROOT / "docs/index.md", *sorted((ROOT / "docs").glob("[er]*/*.md"))]
RUN = [
    pytest.param(line, id=f"{path.stem}: {line[:60]}")
    for path in (*FILES[1:], ROOT / "docs/reference/index.md")
    for line in blocks(path, "sh")
]
CHECKED = [line for path in (*FILES, *OTHERS) for line in blocks(path, "console")]
CHECKED += [line for path in OTHERS for line in blocks(path, "sh")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader works: the recipes, and the outputs of earlier commands."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    return folder


OWN_PROCESS = {"benchmark", "doctor", "pipeline", "quickstart", "train"}
"""Verbs that start others, or that leave threads and Ray behind; the rest spare the start."""


@pytest.mark.ray
@pytest.mark.parametrize("line", RUN)
def test_a_documented_command_succeeds(
    line: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(line)
    assert words[0] in ("raydist", "python"), f"a documented command is one of ours: {line}"
    if words[0] == "raydist" and words[1] not in OWN_PROCESS and not ON_RAY.search(line):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        assert main(words[1:]) == 0, line
        return
    command = [sys.executable, *(["-m", "raydist"] if words[0] == "raydist" else []), *words[1:]]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(ROOT)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("line", CHECKED)
def test_a_documented_command_is_valid(line: str) -> None:
    words = shlex.split(line.rstrip("&").strip())
    if words[0] != "raydist":
        return
    if "--help" in words:
        return
    verb, rest = words[1], [w for w in words[2:] if not w.startswith("--")]
    assert verb in VERBS
    if verb in ("submit", "fields", "completion", "tracking"):
        return
    config = importlib.import_module(f"raydist.commands.{verb}").Config
    words, arguments = split_words(config, rest)
    load(
        config, [ROOT.joinpath(w).as_posix() if isinstance(w, str) else w for w in words], arguments
    )


def test_every_guide_is_tested() -> None:
    assert {path.stem for path in (ROOT / "docs/how-to").glob("*.md")} == {
        *PAGES,
        "index",
        "neighbours",
        "python",
    }


def test_the_readme_has_its_two_commands() -> None:
    text = FILES[0].read_text()
    job = re.search(r"<!-- job -->\n```sh\n(.*)\n```", text)
    tests = re.search(r"<!-- tests -->\n```sh\n(.*)\n```", text)
    assert job and job[1].startswith("python3 -m venv") and "raydist quickstart" in job[1]
    assert tests and tests[1].startswith("python3 -m venv") and "pytest" in tests[1]
