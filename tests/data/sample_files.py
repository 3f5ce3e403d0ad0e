"""Small training files, written and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from raydist.data.samples.prepare import prepare as prepare_source
from raydist.data.samples.sample_set import SampleFacts, SampleSet
from raydist.data.spec import SampleSource
from raydist.records import Sample

LINE = {"query": "q", "pos": ["p"], "neg": ["n1", "n2"]}


def jsonl(path: Path, records: Sequence[Mapping[str, Any] | str]) -> Path:
    lines = [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def prepare(path: Path | str, folder: Path, **options: Any) -> SampleFacts:
    return prepare_source(SampleSource(path=path, **options), folder)


def read(path: Path | str, folder: Path, **options: Any) -> list[Sample]:
    prepare(path, folder, **options)
    samples = SampleSet(folder)
    return [samples[i] for i in range(len(samples))]
