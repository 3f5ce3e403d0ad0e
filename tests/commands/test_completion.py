"""What a shell offers after the words typed so far."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import sys
import threading
import time
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
        (["search", "fusion="], ["fusion=rrf", "fusion=interpolate"]),
        (["rerank", "reranker=q"], ["reranker=qwen3"]),
        (["rerank", "reranker.dtype=f"], ["reranker.dtype=float32", "reranker.dtype=float16"]),
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


RC = {
    "bash": """
bind 'set enable-bracketed-paste off'
raydist() { if [ "$1" = completion ]; then $python -m raydist "$@"; else echo "$*" >> lines; fi; }
eval "$(raydist completion bash)"
echo ready >> lines
""",
    "fish": """
function raydist
  if test "$argv[1]" = completion; $python -m raydist $argv; else; echo $argv >> lines; end
end
raydist completion fish | source
echo ready >> lines
""",
}
RC["zsh"] = RC["bash"].replace("bash", "zsh").replace("bind 'set enable-bracketed-paste off'", "")
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}


def typed(shell: str, folder: Path, keys: list[str]) -> list[str]:
    """Returns the arguments of raydist in each line that is typed on a terminal."""
    (folder / "rc").write_text(RC[shell])
    (folder / "lines").touch()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(ROOT), "TERM": "xterm", "python": sys.executable}
        os.environ |= {"HOME": str(folder), "ZDOTDIR": str(folder)}
        os.execlp(START[shell][0], *START[shell])
    reader = threading.Thread(target=read_all, args=[terminal], daemon=True)
    reader.start()  # a shell waits for what it prints to be read
    lines: list[str] = []
    for number, line in enumerate([". ./rc", *keys], 1):
        os.write(terminal, f"{line}\r".encode())
        ends = time.monotonic() + 60
        while len(lines) < number and time.monotonic() < ends:
            time.sleep(0.02)
            lines = (folder / "lines").read_text().splitlines()
    os.write(terminal, b"exit\r")
    reader.join(10)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return lines[1:]


def read_all(terminal: int) -> None:
    with contextlib.suppress(OSError):  # the end of a terminal
        while os.read(terminal, 4096):
            pass


@pytest.mark.parametrize("shell", START)
def test_a_real_shell_completes_keys_values_paths_and_flags(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    (tmp_path / "corpus.jsonl").touch()
    (tmp_path / "a_b").mkdir()
    keys = [
        "raydist inde\tcorpus=co\t",
        "raydist index corpus=x,co\tout=o",
        "raydist search index=a\t",
        "raydist search index=~/a_\t",
        "raydist train loss.kind=infonce_\t",
        "raydist search fusion=in\t",
        "raydist index --app\t",
        "raydist verify a\t",
    ]
    if shell == "bash":  # its word breaks are the user's
        keys.append("[[ $COMP_WORDBREAKS == *=*:* ]] && raydist same")
    lines = typed(shell, tmp_path, keys)
    assert [line.replace(str(tmp_path), "~") for line in lines[:8]] == [
        "index corpus=corpus.jsonl",
        "index corpus=x,corpus.jsonl out=o",
        "search index=a_b/",
        "search index=~/a_b/",
        "train loss.kind=infonce_list",
        "search fusion=interpolate",
        "index --append",
        "verify a_b/",
    ]
    assert lines[8:] == (["same"] if shell == "bash" else [])
