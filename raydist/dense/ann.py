"""Approximate search with FAISS: HNSW or IVF-PQ, built part by part, merged at search.

A part covers a fixed number of a segment's rows, whatever the shards' borders, so parts depend on
the data alone; each is built by one thread, since FAISS's parallel HNSW insertion is not
repeatable. Scores are always the exact inner products of the candidates that FAISS proposes.
Deleted vectors stay in the parts until their segment is merged, and are passed over inside FAISS's
search.

Shapes: Q queries, D dimensions, k results, c candidates.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from raydist.data.store.format import checksum
from raydist.dense.recall import recall, sample
from raydist.dense.segments import ANN, FIRST, FORM, SHARDS, lives_of, segments_of
from raydist.dense.spec import AnnSpec
from raydist.dense.vectors import VectorShards
from raydist.disk import write_json
from raydist.errors import ArtifactError, ConfigError
from raydist.fingerprints import value_fingerprint
from raydist.kernels.bits import Bits
from raydist.shard_files import Split, Stats, Work, shard_path
from raydist.shards import sharded_map

_ABOUT = "ann.json"
_BLOCK = 8192
_TRAIN_PER_LIST = 64
_TRAIN_SCALES = 1 << 16
_TOGETHER = 1 << 12  # candidates that are scored together


def build_ann(
    folder: Path,
    facts: Mapping[str, Any],
    spec: AnnSpec,
    *,
    workers: int = 0,
    cpus_per_worker: float = 1.0,
) -> dict[str, Any]:
    """Builds `folder/ann/` beside complete shards; returns its settings and its recall.

    The recall@10 against exact search is of a sample of the documents' own vectors as queries, each
    without itself among the results, so `recall_queries` says how many documents they are. Queries
    lie farther from the documents, and mostly find less.

    Args:
        folder: of a segment's vector shards.
        facts: of the segment, deleted vectors included.
        spec: what is built.
        workers: Ray actors; 0 = in this process.
        cpus_per_worker: CPUs of an actor.
    """
    dimension, rows = int(facts["dimension"]), int(facts["documents"])
    settings = asdict(spec) | {"subvectors": spec.subvectors or max(1, dimension // 8)}
    part = settings.pop("rows_per_part")
    if spec.precision == "float32":
        del settings["precision"]
    if spec.kind == "ivf_pq" and dimension % settings["subvectors"]:
        raise ConfigError(
            f"ann.subvectors={settings['subvectors']}: expected a divisor of the dimension "
            f"{dimension}"
        )
    splits = [
        {"start": start, "stop": min(start + part, rows), "settings": settings}
        for start in range(0, rows, part)
    ]
    names = (*FORM, "shards", "documents")
    keep = {name: facts[name] for name in names if name in facts}
    stats = sharded_map(
        splits,
        partial(_make_worker, folder / SHARDS, keep),
        folder / ANN,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        label=f"build {spec.kind}",
        unit="document",
    )
    starts = [split["start"] for split in splits]
    about: dict[str, Any] = {**settings, "starts": starts, "documents": rows}
    about["crc32"] = [each["crc32"] for each in stats]
    shards = VectorShards.map(folder, keep).finest
    rows_Q = sample(len(shards))
    index = AnnIndex((AnnSegment(folder / ANN, about),))
    about["recall@10"] = index.recall(shards, shards.take(rows_Q), own_Q=rows_Q)
    about["recall_queries"] = f"{len(rows_Q)} documents"
    write_json(folder / ANN / _ABOUT, {**about, "check": value_fingerprint(about)})
    return about


def _make_worker(shards_folder: Path, facts: Mapping[str, Any]) -> Work:
    import faiss

    shards = VectorShards.map(shards_folder.parent, facts).finest

    @_one_thread()
    def work(split: Split, target: Path) -> Stats:
        start, stop, settings = int(split["start"]), int(split["stop"]), split["settings"]
        index = _empty(shards, start, stop, settings)
        for row in range(start, stop, _BLOCK):
            index.add(np.ascontiguousarray(shards.read(row, min(row + _BLOCK, stop))))
        faiss.write_index(index, str(target))
        size = target.stat().st_size
        return {"documents": stop - start, "bytes": size, "crc32": checksum(target)}

    return work


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Lets FAISS build on one thread; the number is the whole process's, torch's included."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _empty(shards: VectorShards, start: int, stop: int, settings: Mapping[str, Any]) -> Any:
    """Returns a FAISS index without vectors, trained if its kind needs it."""
    import faiss

    d, rows = shards.dimension, stop - start
    rng = np.random.default_rng(start)
    if settings["kind"] == "hnsw":
        index: Any
        if settings.get("precision") == "int8":
            make: Any = faiss.IndexHNSWSQ
            form = faiss.ScalarQuantizer.QT_8bit
            index = make(d, form, settings["links"], faiss.METRIC_INNER_PRODUCT)
            index.train(shards.take(_sample(rng, start, rows, _TRAIN_SCALES)))
        else:
            index = faiss.IndexHNSWFlat(d, settings["links"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = settings["build_effort"]
        return index
    # k-means wants about 39 vectors per cell; the codes of a small part do with less.
    lists = min(settings["lists"] or int(4 * rows**0.5), max(1, rows // 39))
    bits = int(np.clip(np.log2(max(rows / 4, 2)), 1, 8))
    quantizer = faiss.IndexFlatIP(d)
    index = faiss.IndexIVFPQ(
        quantizer, d, lists, settings["subvectors"], bits, faiss.METRIC_INNER_PRODUCT
    )
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    index.train(shards.take(_sample(rng, start, rows, max(_TRAIN_PER_LIST * lists, 256 * 64))))
    return index


def _sample(rng: np.random.Generator, start: int, rows: int, count: int) -> np.ndarray:
    """Returns so many of the rows from a first one on, at most all, in order."""
    return np.sort(rng.choice(rows, min(rows, count), replace=False)) + start


@dataclass
class AnnSegment:
    """The FAISS parts of a segment of vectors, read on the first search.

    Attributes:
        folder: where the parts lie.
        about: settings, first row of each part, recall@10 at build and of which queries.
        base: the position of the segment's first vector.
        live: which of its vectors are live, None if all are.
    """

    folder: Path
    about: Mapping[str, Any]
    base: int = 0
    live: Bits | None = None

    def __post_init__(self) -> None:
        self._parts: list[tuple[Any, Bits | None]] = []

    @classmethod
    def open(cls, vectors: Path, base: int = 0, live: Bits | None = None) -> AnnSegment:
        """Returns the approximate index in the folder of a segment; ArtifactError without one."""
        folder = vectors / ANN
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ArtifactError(
                f"{vectors}: has no approximate index; embed with ann.kind=hnsw or ivf_pq"
            ) from None
        except (ValueError, RecursionError):
            about = {}
        if not isinstance(about, dict) or about.pop("check", None) != value_fingerprint(about):
            raise ArtifactError(f"{folder / _ABOUT} is corrupted; delete {folder} and build again")
        return cls(folder, about, base, live)

    def verify(self) -> int:
        """Reads and checks all parts; returns how many there are.

        Raises:
            ArtifactError: one is missing or damaged.
        """
        for number in range(len(self.about["starts"])):
            self._intact(number)
        return len(self.about["starts"])

    def _intact(self, number: int) -> Path:
        path = shard_path(self.folder, number)
        # FAISS trusts its files: a damaged one ends the process or finds other rows.
        if not path.is_file() or checksum(path) != self.about["crc32"][number]:
            raise ArtifactError(
                f"{path} is missing or corrupted; delete {self.folder} and build again"
            )
        return path

    def load(self) -> list[tuple[Any, Bits | None]]:
        """Returns the parts, each with which of its rows are live."""
        import faiss

        if not self._parts:
            live = Bits.full(self.about["documents"]) if self.live is None else self.live
            edges = pairwise([*self.about["starts"], self.about["documents"]])
            for number, (start, stop) in enumerate(edges):
                part: Any = faiss.read_index(str(self._intact(number)), faiss.IO_FLAG_MMAP)
                own = live.has(np.arange(start, stop))
                self._parts.append((part, None if own.all() else Bits.of(own)))
        return self._parts

    def count(self, k: int) -> int:
        """Returns how many candidates k results need: more of smaller forms."""
        if self.about["kind"] == "hnsw":
            return 2 * k if self.about.get("precision") == "int8" else k
        return 8 * k

    def candidates(
        self, queries_QD: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields scores by FAISS [Q, c] and positions [Q, c], -1 for none, of each part.

        Of some vectors alone, as much is looked at as finds as many of these.

        Args:
            queries_QD: float32.
            k: results per query.
            allowed: which positions may be found, None for all live ones.
        """
        faiss: Any = import_module("faiss")
        count = self.count(k)
        for start, (part, live) in zip(self.about["starts"], self.load()):
            if allowed is not None:
                first = start + self.base
                live = Bits.of(allowed[first : first + part.ntotal])
            size = part.ntotal if live is None else live.count
            if not size:
                continue
            rarity = 1 if allowed is None else part.ntotal / size
            how = {} if live is None else {"sel": faiss.IDSelectorBitmap(live.data)}
            if self.about["kind"] == "hnsw":
                effort = int(rarity * max(int(self.about["search_effort"]), count))
                params = faiss.SearchParametersHNSW(efSearch=effort, **how)
            else:  # as many cells as hold the candidates
                cells = max(int(rarity * int(self.about["probes"])), -(-count * part.nlist // size))
                params = faiss.SearchParametersIVF(nprobe=min(part.nlist, cells), **how)
            scores, rows = part.search(queries_QD, min(count, size), params=params)
            none = rows < 0
            yield np.where(none, -np.inf, scores), np.where(none, -1, rows + start + self.base)


@dataclass
class AnnIndex:
    """The approximate indexes of a folder of vectors.

    Attributes:
        segments: in order.
    """

    segments: Sequence[AnnSegment]

    @classmethod
    def open(cls, vectors: Path, manifest: Mapping[str, Any] | None = None) -> AnnIndex:
        """Returns the approximate indexes of a folder.

        Args:
            vectors: what `embed` wrote.
            manifest: names its segments; without one it has the first alone.

        Raises:
            ArtifactError: a segment has none, or a damaged one.
        """
        if manifest is None:
            return cls((AnnSegment.open(vectors / FIRST),))
        segments = segments_of(manifest)
        bases = accumulate((int(each["documents"]) for each in segments.values()), initial=0)
        places = zip(segments, bases, lives_of(vectors, manifest))
        return cls([AnnSegment.open(vectors / name, base, live) for name, base, live in places])

    def load(self) -> None:
        """Reads all parts, which a writer may remove later."""
        for segment in self.segments:
            segment.load()

    def search(
        self,
        shards: VectorShards,
        queries_QD: np.ndarray,
        k: int,
        allowed_N: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores [Q, k] and rows [Q, k]; row -1 (score -inf) where results run out.

        The best candidates by FAISS of all parts together are scored exactly; ties by row.

        Args:
            shards: the vectors.
            queries_QD: float32.
            k: results per query.
            allowed_N: rows that may be found, None = all.
        """
        queries_QD = np.ascontiguousarray(queries_QD, np.float32)
        allowed = None
        if allowed_N is not None:
            allowed = np.zeros(shards.end, bool)
            allowed[shards.at_numbers(np.flatnonzero(allowed_N))] = True
        none = np.empty((len(queries_QD), 0), np.float32), np.empty((len(queries_QD), 0), np.int64)
        parts = [each.candidates(queries_QD, k, allowed) for each in self.segments]
        scores, rows = zip(none, *(part for segment in parts for part in segment), strict=True)
        near_Qc, rows_Qc = np.concatenate(scores, axis=1), np.concatenate(rows, axis=1)
        count = max(each.count(k) for each in self.segments)
        if rows_Qc.shape[1] > count:
            best = np.argpartition(-near_Qc, count - 1, axis=1)[:, :count]
            rows_Qc = np.take_along_axis(rows_Qc, best, 1)
        rows_Qc = np.sort(rows_Qc, axis=1)
        scores_Qc = np.full(rows_Qc.shape, -np.inf, np.float32)
        real_Qc = rows_Qc >= 0
        rows_Qc[real_Qc] = shards.numbers(rows_Qc[real_Qc])
        step = max(1, _TOGETHER // max(rows_Qc.shape[1], 1))
        for q in range(0, len(rows_Qc), step):
            rows = np.maximum(rows_Qc[q : q + step], 0)
            near_qcD = shards.finest.take(rows.ravel()).reshape(*rows.shape, shards.dimension)
            exact_qc = np.matmul(near_qcD, queries_QD[q : q + step, :, None])[..., 0]
            np.copyto(scores_Qc[q : q + step], exact_qc, where=real_Qc[q : q + step])
        order = np.argsort(-scores_Qc, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores_Qc, order, 1), np.take_along_axis(rows_Qc, order, 1)

    def recall(
        self,
        shards: VectorShards,
        queries_QD: np.ndarray,
        k: int = 10,
        *,
        own_Q: np.ndarray | None = None,
    ) -> float:
        """Returns the share of the exact best k that this index finds, over the queries.

        Args:
            shards: the vectors.
            queries_QD: float32.
            k: results that count.
            own_Q: where queries are documents, their rows, which are no results of theirs.
        """
        return recall(partial(self.search, shards), shards, queries_QD, k, own_Q)
