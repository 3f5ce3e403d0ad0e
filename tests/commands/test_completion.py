"""What a shell offers after the words typed so far."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import sys
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.commands.completion import candidates

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["trai"], ["train"]),
        (["search", "tie"], ["ties="]),
        (["search", "ties=a"], ["ties=anserini"]),
        (["train", "loss.ki"], ["loss.kind="]),
        (["train", "loss.kind=info"], ["loss.kind=infonce", "loss.kind=infonce_list"]),
        (["train", "loss.temperature="], []),
        (["index", "out=i"], []),
        (["nope", "x"], []),
    ],
)
def test_words_are_completed(words: list[str], completions: list[str]) -> None:
    assert list(candidates(words)) == completions


def test_paths_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "IDX").mkdir()
    (tmp_path / "IDX.txt").touch()
    (tmp_path / "job.yaml").touch()
    assert list(candidates(["verify", "I"])) == ["IDX/"]
    assert list(candidates(["verify", ""])) == ["path=", "IDX/"]
    assert list(candidates(["merge", "I"])) == ["IDX/"]
    assert list(candidates(["search", "I"])) == ["IDX/"]
    assert list(candidates(["search", "j"])) == ["job.yaml"]
    assert list(candidates(["pipeline", "j"])) == ["job.yaml"]
    assert list(candidates(["search", "index=I"])) == ["index=IDX/", "index=IDX.txt"]
    assert list(candidates(["evaluate", "run=a,I"])) == ["run=a,IDX/", "run=a,IDX.txt"]


def test_flags_are_completed(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(candidates(["index", "--a"])) == ["--append"]
    assert list(candidates(["verify", "--"])) == ["--dry-run", "--print", "--help"]
    assert main(["completion", "words", "train", "--res"]) == 0
    assert capsys.readouterr().out == "--resume\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_real_bash_completes_after_an_equals_sign(tmp_path: Path) -> None:
    """Keys are typed on a terminal; the shell's word breaks stay as they were."""
    (tmp_path / "corpus.jsonl").touch()
    (tmp_path / "a_b").mkdir()
    (tmp_path / "rc").write_text(
        f"""PS1=; bind 'set enable-bracketed-paste off'
python={sys.executable}
raydist() {{ if [ "$1" = completion ]; then $python -m raydist "$@"; else echo "[$*]"; fi; }}
eval "$(raydist completion bash)"
breaks() {{ [ "$before" = "$COMP_WORDBREAKS" ] && echo [same]; }}
"""
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ |= {"PYTHONPATH": str(ROOT), "TERM": "dumb"}
        os.execlp("bash", "bash", "--norc", "--noprofile", "-i")
    typed = [
        b"before=$COMP_WORDBREAKS; . ./rc\n",
        b"raydist index corpus=co\t\n",
        b"raydist index corpus=x,co\t out=o\n",
        b"raydist search index=a\t\n",
        b"raydist train loss.kind=infonce_\t\n",
        b"raydist index --app\t\n",
        b"breaks; exit\n",
    ]
    answer = b""
    for line in typed:
        os.write(terminal, line)
    with contextlib.suppress(OSError):  # the end of a terminal
        while chunk := os.read(terminal, 4096):
            answer += chunk
    os.waitpid(pid, 0)
    lines = re.findall(r"^\[.*\]", answer.decode().replace("\r", ""), re.M)
    assert lines == [
        "[index corpus=corpus.jsonl]",
        "[index corpus=x,corpus.jsonl out=o]",
        "[search index=a_b/]",
        "[train loss.kind=infonce_list]",
        "[index --append]",
        "[same]",
    ]
