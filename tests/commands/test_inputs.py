"""Outputs of every verb: told by the content of their inputs, in no correction's way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from raydist.cli import main
from raydist.data.sampled import sampled_fingerprint
from raydist.manifest import UNFINISHED, read_manifest, write_manifest

CORPUS = "".join(json.dumps({"_id": f"d{i}", "text": f"word{i} common"}) + "\n" for i in range(6))
QUERIES = "".join(json.dumps({"_id": f"q{i}", "text": f"word{i}"}) + "\n" for i in range(3))
QRELS = "".join(f"q{i} 0 d{i} 1\n" for i in range(3))
RUN = "".join(f"q{i} Q0 d{d} {d + 1} {9 - d} t\n" for i in range(3) for d in range(6))
SAMPLES = "".join(
    json.dumps({"query": f"word{i}", "pos": [f"word{i} common"], "neg": [f"word{i + 1}"]}) + "\n"
    for i in range(8)
)
LISTS = "".join(
    json.dumps({"query_id": f"q{i}", "candidates": [{"id": f"d{d}", "score": d} for d in (0, 4)]})
    + "\n"
    for i in range(3)
)
VECTORS = '{"id": "d1", "vector": {"a": 1.5}}\n{"id": "d2", "vector": {"b": 2.0}}\n'
FILES = {
    **{"corpus.jsonl": CORPUS, "queries.jsonl": QUERIES, "qrels.txt": QRELS, "run.txt": RUN},
    **{"samples.jsonl": SAMPLES, "lists.jsonl": LISTS, "vectors.jsonl": VECTORS},
}
TEXTS = "corpus=corpus.jsonl queries=queries.jsonl"
TRAINING = "steps=2 batch_size=4 tracking=none log_every=1 checkpoint.every=1"
LINES = {
    "index": "corpus=corpus.jsonl out=O split_bytes=64",
    "embed": "corpus=corpus.jsonl model=MODEL out=O split_bytes=64",
    "train": f"data=samples.jsonl model=MODEL out=O train_group_size=2 {TRAINING}",
    "distill": f"data=lists.jsonl {TEXTS} model=MODEL model.kind=biencoder out=O {TRAINING}",
    "score": f"run=run.txt {TEXTS} teacher=bm25 out=O split_pairs=6",
    "rerank": f"run=run.txt {TEXTS} reranker=bm25 out=O split_pairs=6",
    "mine": f"run=run.txt {TEXTS} qrels=qrels.txt out=O",
    "convert": "in=vectors.jsonl out=O",
    "export": "checkpoint=MODEL out=O doc=qrels.txt",
}
"""A line of each verb that keeps an output."""

INPUTS = {
    **{"index": "corpus.jsonl", "embed": "corpus.jsonl", "train": "samples.jsonl"},
    **{"distill": "lists.jsonl", "score": "corpus.jsonl", "rerank": "corpus.jsonl"},
    **{"mine": "qrels.txt", "convert": "vectors.jsonl", "export": "qrels.txt"},
}
"""A file that the line reads."""

BROKEN = {
    "index": "corpus.jsonl",
    "embed": "corpus.jsonl",
    "train": "samples.jsonl",
    "distill": "lists.jsonl",
    "score": "corpus.jsonl",
    "rerank": "corpus.jsonl",
    "mine": "corpus.jsonl",
    "convert": "vectors.jsonl",
}
"""A file whose last line is no JSON in a command that fails."""

KEYS = {
    **{"index": "block_size=64", "embed": "precision=float16", "train": "optim.lr=1e-3"},
    **{"distill": "optim.lr=1e-3", "score": "depth=3", "rerank": "depth=3", "mine": "negatives=1"},
    **{"convert": "unit=0.5", "export": "name=me/other"},
}
"""A key that changes the result."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bert: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    shutil.copytree(tiny_bert, tmp_path / "MODEL")
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(verb: str, line: str = "", *more: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([verb, *(line or LINES[verb]).split(), *more])
        return code, capsys.readouterr().err

    return run


def folder_of(out: str = "O") -> Path:
    beside = Path(f"{out}.raydist")
    return beside if beside.is_dir() else Path(out)


Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize("verb", LINES)
def test_an_output_is_built_once_however_its_inputs_are_spelled(
    verb: str, run: Run, here: Path
) -> None:
    assert run(verb)[0] == 0
    (here / "link").symlink_to(here)
    for prefix in ("./", f"{here}/", "link/"):
        line = LINES[verb]
        for name in (*FILES, "MODEL"):
            line = line.replace(f"={name}", f"={prefix}{name}")
        code, err = run(verb, line)
        assert code == 0 and "already built" in err, err
    path = here / INPUTS[verb]
    path.write_text(path.read_text().replace("1", "2", 1))
    code, err = run(verb)
    assert code == 2 and "content of " in err and "choose another out= or delete it" in err
    code, err = run(verb, "", KEYS[verb])
    assert code == 2 and KEYS[verb].partition("=")[0].rpartition(".")[2] in err


@pytest.mark.parametrize("verb", BROKEN)
@pytest.mark.parametrize("correction", ["input", "key"])
def test_a_failed_command_is_no_obstacle_to_the_corrected_one(
    verb: str, run: Run, here: Path, correction: str
) -> None:
    path = here / BROKEN[verb]
    path.write_text(FILES[path.name] + "no json\n")
    code, err = run(verb)
    assert code == 2 and "no json" in err
    path.write_text(FILES[path.name])
    code, err = run(verb, "", *([KEYS[verb]] if correction == "key" else []))
    assert (
        code == 0 and "another configuration" not in err.replace("discards", "", 0)
    ) or "discards" in err
    assert read_manifest(folder_of())


@pytest.mark.parametrize("verb", LINES)
def test_the_progress_of_an_interrupted_command_is_refused_to_another_configuration(
    verb: str, run: Run
) -> None:
    assert run(verb)[0] == 0
    folder = folder_of()
    manifest = read_manifest(folder)
    (folder / "manifest.json").unlink()
    if Path("O").is_file():
        Path("O").unlink()
    (folder / UNFINISHED).write_text(json.dumps(manifest))
    shards = {"index": ".work/splits/0.done", "score": "shards/0.done", "rerank": "shards/0.done"}
    if verb in shards:
        (folder / shards[verb]).parent.mkdir(parents=True)
        (folder / shards[verb]).touch()
    code, err = run(verb, "", KEYS[verb])
    if verb in ("mine", "convert", "export"):  # nothing of them could be continued
        assert code == 0, err
        return
    assert code == 2 and "run that one again to continue, or delete the folder to start over" in err
    assert KEYS[verb].partition("=")[0] in err


def test_an_output_of_version_0_1_0_is_still_complete(run: Run, here: Path) -> None:
    old_names = {"reranker": "model", "data": "data.path"}
    for verb in ("index", "embed", "rerank", "mine"):
        line = LINES[verb].replace("out=O", f"out={verb}")
        assert run(verb, line)[0] == 0
        folder = folder_of(verb)
        manifest = read_manifest(folder)
        for name, value in list(manifest["inputs"].items()):
            if value.startswith("full:"):
                file = {"run": "run.txt", "qrels": "qrels.txt"}.get(name, f"{name}.jsonl")
                value = sampled_fingerprint([file])
            del manifest["inputs"][name]
            manifest["inputs"][old_names.get(name, name)] = value
        write_manifest(folder, manifest)
        code, err = run(verb, line)
        assert code == 0 and "already built" in err, err
        path = here / INPUTS[verb]
        path.write_text(path.read_text().replace("1", "2", 1))
        code, err = run(verb, line)
        assert code == 2 and "content of " in err
        path.write_text(FILES[path.name])


def test_a_folder_holds_outputs_and_runs_that_are_no_input(run: Run, here: Path) -> None:
    (here / "docs").mkdir()
    shutil.copy("corpus.jsonl", "docs/part-1.jsonl")
    line = "corpus=docs out=docs/idx"
    assert run("index", line)[0] == 0
    assert run("search", "index=docs/idx queries=queries.jsonl out=docs/run.txt")[0] == 0
    mined = "run=run.txt corpus=docs queries=queries.jsonl qrels=qrels.txt"
    assert run("mine", f"{mined} out=docs/mined.jsonl")[0] == 0
    code, err = run("index", line)
    assert code == 0 and "already built" in err
    code, err = run("mine", f"{mined} out=docs/mined.jsonl")
    assert code == 0 and "already built" in err


def test_the_fast_form_goes_by_sizes_and_times(run: Run, here: Path) -> None:
    assert run("index", "", "fingerprint=fast")[0] == 0
    assert read_manifest("O")["inputs"]["corpus"].startswith("fast:")
    for more in ([], ["fingerprint=fast"]):
        code, err = run("index", "", *more)
        assert code == 0 and "already built" in err
    (here / "corpus.jsonl").touch()
    code, err = run("index", "", "fingerprint=fast")
    assert code == 2 and "content of corpus" in err
