"""`raydist verify`: intact outputs pass, every damaged file is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from raydist.artefact import Output
from raydist.cli import main
from raydist.dense.files import VectorWriter
from raydist.dense.segments import SHARDS
from raydist.manifest import read_manifest, write_manifest
from raydist.records import Run
from raydist.shard_files import shard_path
from tests.damage import Damage, damages

ROWS = [{"id": f"d{i}", "title": "", "text": f"cat w{i} dog w{i % 7}"} for i in range(60)]


def corpus(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    """An index of two segments, with deleted documents in the first."""
    place = tmp_path_factory.mktemp("verify")
    out = f"out={place / 'IDX'}"
    (place / "ids.txt").write_text("d3\nd11\n")
    assert main(["index", f"corpus={corpus(place / 'a.jsonl', ROWS[:40])}", out]) == 0
    assert main(["index", f"corpus={corpus(place / 'b.jsonl', ROWS[40:])}", out, "--append"]) == 0
    assert main(["index", f"delete={place / 'ids.txt'}", out]) == 0
    return place / "IDX"


def test_an_intact_index_is_checked_part_by_part_and_what_is_pending_is_said(index, capsys):
    assert main(["verify", str(index)]) == 0
    messages = capsys.readouterr().err
    assert "40 documents" in messages and "20 documents" in messages and "58 ids" in messages
    assert f"raydist merge out={index} removes 2 deleted documents" in messages
    assert f"{index}: intact" in messages
    assert main(["verify", f"path={index}", "--dry-run"]) == 0


@settings(max_examples=150, deadline=None)
@given(damages)
def test_whatever_happens_to_a_file_of_an_index_it_is_named(tmp_path_factory, index, damage):
    copy = tmp_path_factory.mktemp("damaged") / "IDX"
    name, changed = damage.copy(index, copy)
    assert is_named(copy, name) == changed, (name, damage)


def test_a_flipped_bit_in_any_file_of_an_index_is_found(index, tmp_path):
    names = [each.relative_to(index) for each in sorted(index.rglob("*")) if each.is_file()]
    assert len(names) > 30
    for number, name in enumerate(names):
        for where in (0.0, 0.37, 0.999_999):  # of a part: the schema, a batch, the end
            damage = Damage(number, "flip", where, bit=(number + int(10 * where)) % 8)
            _, changed = damage.copy(index, tmp_path / "copy")
            assert is_named(tmp_path / "copy", name) == changed, (name, damage)


def is_named(copy: Path, name: Path) -> bool:
    """Verifies an index; returns whether it has faults, after checking that the file is named."""
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("sys.stderr.write", lambda text: lines.append(text) or len(text))
        code = main(["verify", str(copy)])
    errors = [line for line in "".join(lines).splitlines() if line.startswith("error: ")]
    named = any(name.name in line or str((copy / name).parent) in line for line in errors)
    assert code == (2 if errors else 0) and named == bool(errors), (name, errors)
    return named


def test_every_damaged_file_is_listed(index, tmp_path, capsys):
    copy = tmp_path / "IDX"
    shutil.copytree(index, copy)
    first, second = (copy / name for name in read_manifest(copy)["segments"])
    (first / "postings").write_bytes(b"x")
    (first / "ids").unlink()
    (second / "terms").write_bytes(bytes(len((second / "terms").read_bytes())))
    (part,) = (copy / "store" / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-1] + b"\1")
    part.write_bytes(bytes(part.stat().st_size))
    assert main(["verify", str(copy)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    for path in (first / "postings", first / "ids", second / "terms"):
        assert any(str(path) in line for line in errors), path
    assert any(part.name in line for line in errors) and len(errors) == 4
    assert all("again" in line for line in errors)  # the remedy


@pytest.mark.parametrize("name", ["documents", "tokens", "postings", "empty", "deleted", "terms"])
def test_a_manifest_that_the_segments_contradict_is_damage(index, tmp_path, capsys, name):
    copy = tmp_path / "IDX"
    shutil.copytree(index, copy)
    manifest = read_manifest(copy)
    manifest[name] += 1
    write_manifest(copy, manifest)
    assert main(["verify", str(copy)]) == 2
    assert f"says {manifest[name]} {name}, the segments {manifest[name] - 1}" in (
        capsys.readouterr().err
    )


def test_texts_of_other_documents_are_damage(index, tmp_path, capsys):
    copy = tmp_path / "IDX"
    shutil.copytree(index, copy)
    rows = [{**row, "id": f"e{i}"} for i, row in enumerate(ROWS[:40])]
    assert (
        main(["index", f"corpus={corpus(tmp_path / 'o.jsonl', rows)}", f"out={tmp_path / 'O'}"])
        == 0
    )
    shutil.rmtree(copy / "store")
    shutil.copytree(tmp_path / "O" / "store", copy / "store")
    assert main(["verify", str(copy)]) == 2
    assert "its documents are not those of the index" in capsys.readouterr().err


@pytest.fixture
def vectors(tmp_path) -> Path:
    folder = tmp_path / "VEC"
    output = Output.open(folder, kind="vectors", config={}, inputs={})
    rng = np.random.default_rng(0)
    for number in range(2):
        with VectorWriter(shard_path(folder / SHARDS, number), 8) as writer:
            ids = [f"{number}-{i}" for i in range(30)]
            writer.append(ids, rng.standard_normal((30, 8)).astype(np.float32))
    output.finish(shards=2, dimension=8, precision="float32", documents=60)
    return folder


def test_vectors_are_checked(vectors, tmp_path, capsys):
    assert main(["verify", str(vectors)]) == 0
    assert "60 vectors of 8 dimensions" in capsys.readouterr().err
    for number in range(2):
        path = shard_path(vectors / SHARDS, number) / "vectors.arrow"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert main(["verify", str(vectors)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "00000" in errors[0] and "00001" in errors[1]


@pytest.mark.parametrize(
    ("row", "message"), [("nan", "not finite"), ("twice", "the id of an earlier one")]
)
def test_vectors_that_are_no_vectors_are_damage(tmp_path, capsys, row, message):
    folder = tmp_path / "VEC"
    output = Output.open(folder, kind="vectors", config={}, inputs={})
    with VectorWriter(shard_path(folder / SHARDS, 0), 8) as writer:
        values = np.ones((3, 8), np.float32)
        values[1, 2] = np.nan if row == "nan" else 1
        writer.append(["a", "b", "a" if row == "twice" else "c"], values)
    output.finish(shards=1, dimension=8, precision="float32", documents=3)
    assert main(["verify", str(folder)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\n"])
def test_a_manifest_that_lost_or_gained_blanks_is_damage(index, tmp_path, capsys, change):
    copy = tmp_path / "IDX"
    shutil.copytree(index, copy)
    manifest = copy / "manifest.json"
    manifest.write_bytes(change(manifest.read_bytes()))
    assert main(["verify", str(copy)]) == 2
    assert f"{manifest}: has another length than was written" in capsys.readouterr().err


def test_ciff_files_and_lines_of_json_are_read_as_what_they_are(index, tmp_path, capsys):
    for name in ("x.ciff", "x.ciff.gz"):
        file = tmp_path / name
        assert main(["convert", f"in={index}", "to=ciff", f"out={file}"]) == 0
        assert main(["verify", str(file)]) == 0
        assert "58 documents, " in capsys.readouterr().err
        file.write_bytes(file.read_bytes()[:-9])
        assert main(["verify", str(file)]) == 2
        assert str(file) in capsys.readouterr().err
    lines = corpus(tmp_path / "c.jsonl", ROWS)
    assert main(["verify", str(lines)]) == 0
    assert "60 lines of JSON" in capsys.readouterr().err


def test_a_file_for_another_program_is_said_to_have_no_checksums(index, tmp_path, capsys):
    file = tmp_path / "x.bmp"
    assert main(["convert", f"in={index}", "to=bmp", f"out={file}"]) == 0
    assert main(["verify", str(file)]) == 2
    assert f"error: {file}: a file for the program bmp has no checksums" in capsys.readouterr().err


def test_what_a_killed_writer_left_is_said_and_a_merge_removes_it(index, tmp_path, capsys):
    copy = tmp_path / "IDX"
    shutil.copytree(index, copy)
    assert main(["merge", f"out={copy}"]) == 0
    (copy / "segments" / "00009-killed").mkdir()
    (copy / ".append-killed").mkdir()
    assert main(["verify", str(copy)]) == 0
    assert "2 leftovers of other commands, the first: 00009-killed" in capsys.readouterr().err
    assert main(["merge", f"out={copy}", "--dry-run"]) == 0
    assert (copy / ".append-killed").exists()
    assert main(["merge", f"out={copy}"]) == 0
    assert "nothing to merge" in capsys.readouterr().err
    assert main(["verify", str(copy)]) == 0
    assert "leftover" not in capsys.readouterr().err


def test_an_output_that_does_not_exist_has_no_table(tmp_path, capsys):
    assert main(["verify", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'absent'}: no such file or folder\n"


def test_runs_are_checked_to_be_rankings(tmp_path, capsys):
    run = Run.from_lists([("q1", ["a", "b"], [2.0, 1.0]), ("q2", ["b"], [0.5])])
    run.write(tmp_path / "run.txt")
    run.write(tmp_path / "run.parquet")
    assert main(["verify", str(tmp_path / "run.txt"), str(tmp_path / "run.parquet")]) == 0
    assert "3 rows of 2 queries" in capsys.readouterr().err
    (tmp_path / "run.txt").write_text("q1 Q0 a 1 1 x\nq1 Q0 a 2 0.5 x\n")
    assert main(["verify", str(tmp_path / "run.txt")]) == 2
    assert main(["verify", str(tmp_path / "absent")]) == 2


def test_a_file_with_its_manifest_beside_it_is_compared_with_what_was_written(tmp_path, capsys):
    out = tmp_path / "run.txt"
    output = Output.open(f"{out}.raydist", kind="reranked-run", config={}, inputs={})
    Run.from_lists([("q1", ["a", "b"], [2.0, 1.0])]).write(out)
    Output(out, output.folder, "new", output.job).finish(queries=1)
    assert main(["verify", str(out)]) == 0
    out.write_text(out.read_text().replace(" 2 1.0", " 2 0.9").replace(" 2 1 ", " 2 0.5 "))
    assert main(["verify", str(out)]) == 2
    assert "is not what was written" in capsys.readouterr().err
    out.unlink()
    assert main(["verify", str(out)]) == 2
    assert "is missing" in capsys.readouterr().err


def test_weights_and_json_of_models_are_checked(tmp_path, capsys):
    from safetensors.numpy import save_file

    from raydist.fingerprints import model_fingerprint

    folder = tmp_path / "model"
    output = Output.open(folder, kind="model", config={}, inputs={})
    save_file({"w": np.ones((3, 4), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    output.finish(fingerprint=model_fingerprint(folder))
    assert main(["verify", str(folder)]) == 0
    assert "1 tensor" in capsys.readouterr().err
    save_file({"w": np.zeros((3, 4), np.float32)}, folder / "model.safetensors")
    assert main(["verify", str(folder)]) == 2
    assert "is not the model that was exported" in capsys.readouterr().err
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-5])
    (folder / "config.json").write_text("{")
    assert main(["verify", str(folder)]) == 2
    errors = capsys.readouterr().err
    assert "model.safetensors: is damaged" in errors and "config.json: not JSON" in errors


def test_what_is_not_complete_or_not_ours_is_no_traceback(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    Output.open(tmp_path / "begun", kind="bow-index", config={}, inputs={})
    for name, message in (("empty", "has no manifest.json"), ("begun", "is not complete")):
        assert main(["verify", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert main(["verify"]) == 2
    assert "path: required" in capsys.readouterr().err
