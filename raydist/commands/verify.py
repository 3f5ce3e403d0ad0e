"""Reads and checks a whole output: every byte, and whether its parts agree with each other.

    raydist verify IDX
    raydist verify IDX VEC run.txt s3://bucket/idx

Of an index: checksums, dictionaries, postings, lengths, ids, deletions, texts, and whether the
manifest agrees. Of vectors: checksums, shapes, ids and values. Of models and training runs: the
headers of their weights, and a model's fingerprint. Of runs: that they are rankings. Of CIFF files:
all that an import checks. Of all else: the manifest, the content and its JSON. A remote output is
copied first. Exit code 2 means damage; each damaged file is named, with what to do.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from raydist import log
from raydist.artefact import planned
from raydist.checks import Report
from raydist.config.base import Flags
from raydist.config.lifecycle import VerifyConfig
from raydist.disk import json_text
from raydist.errors import ArtifactError
from raydist.manifest import MANIFEST, content, read_manifest

Config = VerifyConfig


def run(config: VerifyConfig, flags: Flags) -> None:
    """Prints a table per output.

    Raises:
        ArtifactError: something is damaged; a line per fault.
    """
    if planned(flags.dry_run, f"verify {', '.join(config.path)}"):
        return
    faults = []
    for path in config.path:
        report = Report()
        _verify(path, report)
        rows = [
            (part.name, part.checked, part.faults, f"{part.seconds:.1f} s") for part in report.parts
        ]
        if rows:
            log.table(path, ["part", "checked", "faults", "time"], rows)
        for line in report.pending:
            log.say(f"{path}: {line}")
        if not report.faults:
            log.say(f"{path}: intact")
        faults += report.faults
    if faults:
        raise ArtifactError("\n".join(faults))


def _verify(path: str, report: Report) -> None:
    from raydist.storage import local

    with report.part("files") as part:
        place = local(path)
        beside = place.with_name(f"{place.name}.raydist")
    if report.faults:
        return
    report.parts.remove(part)  # nothing was checked yet
    if beside.is_dir():
        _verify_file(place, beside, report)
    elif place.is_dir():
        _verify_folder(place, report)
    elif place.is_file():
        _verify_lone_file(place, report)
    else:
        report.faults.append(f"{path}: no such file or folder")


def _verify_folder(folder: Path, report: Report) -> None:
    from raydist.data.samples.sample_set import FACTS, SampleSet
    from raydist.data.store import check

    if not (folder / MANIFEST).exists() and (folder / FACTS).is_file():
        with report.part("samples") as part:
            part.checked = log.count(SampleSet(folder).verify(), "sample")
        return
    if not (folder / MANIFEST).exists() and (folder / "store.json").is_file():
        with report.part("store") as part:
            part.checked = check.verify(folder, report)
        return
    with report.part(MANIFEST) as part:
        manifest = read_manifest(folder)
        _check_spelling(folder / MANIFEST)
        part.checked = f"a {manifest['kind']}, by raydist {_version(manifest)}"
    if report.faults:
        return
    match manifest["kind"]:
        case "bow-index":
            from raydist.bow.verify import verify_index

            verify_index(folder, manifest, report)
        case "bow-fields":
            from raydist.bow.verify import verify_fields

            verify_fields(folder, report)
        case "vectors":
            from raydist.dense.verify import verify_vectors

            verify_vectors(folder, manifest, report)
        case "multivector-index":
            from raydist.late.verify import verify_late

            verify_late(folder, manifest, report)
        case _:
            _verify_contents(folder, manifest, report)
    if "config_file" in manifest:
        path = folder / "config.json"
        with report.part(path.name) as part:
            if not path.is_file() or content(path) != manifest["config_file"]:
                raise ArtifactError(f"{path}: is not what was written; build {folder} again")
            part.checked = log.count(path.stat().st_size, "byte")


def _check_spelling(path: Path) -> None:
    """Raises ArtifactError for a manifest of the right content that is spelled in another way."""
    text = path.read_text(encoding="utf-8")
    if text != json_text(json.loads(text)):
        raise ArtifactError(
            f"{path}: has another length than was written, or another spelling; "
            f"build {path.parent} again"
        )


def _version(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("versions", {}).get("raydist", "of an unknown version"))


def _verify_file(path: Path, beside: Path, report: Report) -> None:
    """Checks a file that has its manifest in a folder beside it."""
    with report.part(f"{beside.name}/{MANIFEST}") as part:
        manifest = read_manifest(beside)
        _check_spelling(beside / MANIFEST)
        part.checked = f"of a {manifest['kind']}, by raydist {_version(manifest)}"
    if report.faults:
        return
    with report.part(path.name) as part:
        if not path.is_file():
            raise ArtifactError(f"{path}: is missing; delete {beside} and run the command again")
        stated = manifest.get("content")
        if stated is not None and content(path) != stated:
            raise ArtifactError(
                f"{path}: is not what was written ({path.stat().st_size:,} bytes, expected "
                f"{stated['bytes']:,}); delete {beside} and run the command again"
            )
        part.checked = log.count(path.stat().st_size, "byte")
    if manifest["kind"] == "reranked-run":
        _verify_run(path, report)
    elif path.suffix == ".jsonl":
        with report.part(f"lines of {path.name}") as part:
            part.checked = _check_file(path)


def _verify_lone_file(path: Path, report: Report) -> None:
    """Checks a file without a manifest: a CIFF file, lines of JSON, or a run."""
    if path.name.endswith((".ciff", ".ciff.gz")):
        from raydist.bow.exchange.ciff import import_ciff

        with report.part(path.name) as part, tempfile.TemporaryDirectory() as scratch:
            facts = import_ciff(path, Path(scratch))
            counts = [log.count(facts[f"{each}s"], each) for each in ("term", "posting")]
            part.checked = ", ".join([log.count(facts["documents"], "document"), *counts])
    elif path.suffix == ".jsonl":
        with report.part(path.name) as part:
            part.checked = _check_file(path)
    elif path.suffix == ".bmp":
        report.faults.append(
            f"{path}: a file for the program bmp has no checksums: verify the index that it was "
            "exported from, and export it again (raydist convert to=bmp)"
        )
    else:
        _verify_run(path, report)


def _verify_run(path: Path, report: Report) -> None:
    from raydist.data.readers import read_run

    with report.part(f"ranking in {path.name}") as part:
        run = read_run(str(path))
        part.checked = f"{log.count(len(run), 'row')} of {log.count(len(run.query_ids), 'query')}"


def _verify_contents(folder: Path, manifest: Mapping[str, Any], report: Report) -> None:
    """Checks the files of models, training runs, evaluations and the like by their form."""
    for path in _files(folder):
        with report.part(path.relative_to(folder).as_posix()) as part:
            part.checked = _check_file(path)
    if manifest["kind"] == "model" and not report.faults:
        from raydist.fingerprints import model_fingerprint

        with report.part("fingerprint") as part:
            part.checked = str(manifest["fingerprint"])
            if model_fingerprint(folder) != manifest["fingerprint"]:
                raise ArtifactError(f"{folder}: is not the model that was exported; export again")


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path != folder / MANIFEST:
            yield path


def _check_file(path: Path) -> str:
    """Returns what was checked of a file.

    Raises:
        ArtifactError: it is not what its name says.
    """
    match path.suffix:
        case ".json":
            _parse(path, path.read_bytes(), "")
            return "JSON"
        case ".jsonl":
            number = 0
            with open(path, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    _parse(path, line, f" in line {number:,}")
            return f"{log.count(number, 'line')} of JSON"
        case ".safetensors":
            return _check_weights(path)
        case ".parquet":
            return _check_parquet(path)
        case _:
            return f"{path.stat().st_size:,} bytes, unchecked"


def _parse(path: Path, data: bytes, where: str) -> None:
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not JSON{where}: {error}; run its command again") from None


def _check_weights(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as weights:
            return log.count(len(weights.keys()), "tensor")
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: is damaged: {error}; write the model again") from None


def _check_parquet(path: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            rows = sum(batch.num_rows for batch in file.iter_batches())
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{path}: is damaged: {error}; run its command again") from None
    return log.count(rows, "row")
