from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydist.bow.index import BowIndex
from raydist.cli import main
from raydist.data import files, spool
from raydist.data.ids import IdList
from raydist.data.readers import read_documents, read_qrels, read_queries, read_run
from raydist.data.spec import CorpusSource
from raydist.data.splits import plan_splits
from raydist.errors import DataError

LINES = b'{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n'


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(spool, "_spooled", {})
    yield folder


def pipe(path: Path, data: bytes) -> str:
    """Returns a named pipe through which data comes once."""
    os.mkfifo(path)
    threading.Thread(target=lambda: path.write_bytes(data), daemon=True).start()
    return str(path)


def ids(path: str, **options: object) -> list[str]:
    source = CorpusSource(path=(path,), **options)  # type: ignore[arg-type]
    return [i for table in read_documents(source) for i in table["doc_id"].to_pylist()]


def test_a_named_pipe_is_read_as_often_as_needed(tmp_path: Path) -> None:
    path = pipe(tmp_path / "corpus.jsonl", LINES)
    assert ids(path) == ids(path) == ["1", "2"]
    (split,) = plan_splits(path)
    assert split["path"].endswith("/corpus.jsonl") and split["stop"] == len(LINES)


def test_every_kind_of_input_comes_through_a_pipe(tmp_path: Path) -> None:
    queries = pipe(tmp_path / "q", b"1\tquery\n")
    assert [q.text for q in read_queries(queries)] == ["query"]
    assert read_qrels(pipe(tmp_path / "r.qrels", b"1 0 a 1\n")) == {"1": {"a": 1}}
    assert read_run(pipe(tmp_path / "run", b"1 Q0 a 1 2.5 x\n")).table.num_rows == 1
    assert list(IdList.read(pipe(tmp_path / "ids", b"a\nb\n"))) == ["a", "b"]


def test_standard_input_and_process_substitution_are_read(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from raydist.data.readers import read_documents\n"
        "print([t['doc_id'].to_pylist() for p in sys.argv[1:] for t in read_documents(p)])\n"
    )
    (tmp_path / "c.jsonl").write_bytes(LINES)
    done = subprocess.run(
        ["bash", "-c", 'cat c.jsonl | "$0" -c "$1" - <(cat c.jsonl)', sys.executable, code],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[['1', '2'], ['1', '2']]\n", done.stderr
    assert not list(tmp_path.glob("raydist-spool-*/*"))  # removed at the end


def test_messages_name_the_stream_and_not_its_copy(tmp_path: Path) -> None:
    words = ["index", "corpus=-", "corpus.format=jsonl", f"out={tmp_path / 'idx'}"]
    done = subprocess.run(
        [sys.executable, "-m", "raydist", *words],
        input=LINES + b"{\n",
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
    )
    assert done.returncode == 2
    assert b"standard input, line 3: " in done.stderr and b"raydist-spool" not in done.stderr


def test_equal_content_is_one_file_until_its_last_user_ends(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removers = []
    monkeypatch.setattr(spool.atexit, "register", removers.append)
    first = spool.spooled(pipe(tmp_path / "a", LINES))
    monkeypatch.setattr(spool, "_spooled", {})
    (tmp_path / "a").unlink()
    second = spool.spooled(pipe(tmp_path / "a", LINES))
    other = spool.spooled(pipe(tmp_path / "b", LINES))
    assert first == second != other
    removers[0]()
    assert Path(first).read_bytes() == LINES
    removers[1]()
    assert not Path(first).exists() and Path(other).read_bytes() == LINES


def test_what_a_killed_process_left_is_removed(tmp_path: Path, temporary: Path) -> None:
    spool.spooled(pipe(tmp_path / "a", b"a"))
    (root,) = temporary.iterdir()
    (root / "left").mkdir()
    (root / "left" / "stdin").write_bytes(b"x")
    spool.spooled(pipe(tmp_path / "b", b"b"))
    assert not (root / "left").exists() and len(list(root.iterdir())) == 2


def test_a_worker_on_another_machine_says_that_it_does_not_see_the_copy(tmp_path: Path) -> None:
    elsewhere = spool.spooled(pipe(tmp_path / "a", LINES)).replace("/temporary/", "/elsewhere/")
    with pytest.raises(DataError, match=r"standard input or a pipe.*this worker does not see"):
        files.open_input(elsewhere)


def test_a_pipe_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="/dev/fd/987: no such file"):
        ids("/dev/fd/987")


def test_an_index_is_built_from_a_stream_and_known_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def index(out: str, *words: str) -> str:
        monkeypatch.setattr(spool, "_spooled", {})
        path = tmp_path / "pipe"
        path.unlink(missing_ok=True)
        corpus = f"corpus={pipe(path, LINES)}"
        assert main(["index", corpus, "corpus.format=jsonl", f"out={tmp_path / out}", *words]) == 0
        return capsys.readouterr().err

    index("a")
    assert "already built" in index("a")
    (tmp_path / "c.jsonl").write_bytes(LINES)
    assert main(["index", f"corpus={tmp_path / 'c.jsonl'}", f"out={tmp_path / 'b'}"]) == 0
    ids = [BowIndex.open(tmp_path / out).doc_ids.to_pylist() for out in ("a", "b")]
    assert ids[0] == ids[1] == ["1", "2"]
