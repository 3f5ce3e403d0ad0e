"""Objects in actors: each goes where its files are."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from raydist import storage
from raydist.actors import held, nearest
from raydist.bow.sharded.shard import Part, Shard
from raydist.bow.spec import BowSearchSpec
from raydist.cli import main
from raydist.manifest import read_manifest


def test_objects_go_where_the_least_is_copied() -> None:
    assert nearest([[0, 0], [0, 0]]) == [0, 1]
    assert nearest([[5, 9], [0, 8]]) == [0, 1], "13 bytes are held so, 9 the other way"
    assert nearest([[0, 7, 0], [0, 0, 0], [3, 0, 0]]) == [2, 0, 1]


def test_a_shard_counts_the_copies_of_its_own_segments(s3: str, tmp_path: Path) -> None:
    lines = (json.dumps({"id": f"d{i}", "text": f"heron {i % 7}"}) for i in range(60))
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    words = ["index", f"corpus={tmp_path}/c.jsonl", "merge=false", "split_bytes=1kB"]
    assert main([*words, f"out={s3}/idx"]) == 0
    manifest = read_manifest(storage.local(f"{s3}/idx", []))
    one, other = manifest["segments"][:2]

    def makes(segment: str, folder: str = f"{s3}/idx") -> partial[Shard]:
        return partial(Shard, Part(folder, manifest, (segment,)), 0, BowSearchSpec())

    assert held(makes(one)) == 0
    makes(one)()
    copied = storage.local(f"{s3}/idx", [f"{one}/*"]) / one
    assert held(makes(one)) == sum(file.stat().st_size for file in copied.iterdir()) > 0
    assert held(makes(other)) == 0
    assert held(makes(one, "idx")) is None, "a folder that all nodes see"
    assert held(list) is None
