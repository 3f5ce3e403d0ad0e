"""raydist and its peers on the same texts in turns, and which of them is the quickest.

Seconds are processor time of one thread, the least of the rounds: it is what others on the machine
disturb least. A float32 peer counts only if its vectors or scores are ours.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.environment import Unavailable
from benchmarks.peers.models import exported
from benchmarks.peers.peer import Peer, PeerSpec, running
from benchmarks.peers.protocol import Settings
from benchmarks.report import load_average, print_table
from raydist.log import say

PEERS = {
    "onnxruntime": PeerSpec("onnx", "onnxruntime", "float32"),
    "onnxruntime int8": PeerSpec("onnx", "onnxruntime", "int8"),
    "openvino": PeerSpec("openvino", "openvino", "float32"),
    "openvino bf16": PeerSpec("openvino", "openvino", "bfloat16"),
    "optimum-intel": PeerSpec("openvino", "openvino", "float32", "st"),
    "optimum-intel bf16": PeerSpec("openvino", "openvino", "bfloat16", "st"),
    "fastembed": PeerSpec("fastembed", "fastembed", "float32"),
    "fastembed int8": PeerSpec("fastembed", "fastembed", "int8"),
    "infinity torch": PeerSpec("infinity", "infinity", "float32", "torch"),
    "infinity torch bf16": PeerSpec("infinity", "infinity", "bfloat16", "torch"),
    "infinity onnx": PeerSpec("infinity", "infinity", "float32", "optimum"),
    "infinity onnx int8": PeerSpec("infinity", "infinity", "int8", "optimum"),
}
BEFORE = "raydist before"
COSINE = 0.9999
"""Of two float32 vectors of the same text, at least."""
DIFFERENCE = 1e-3
"""Of two float32 scores of the same pair, at most."""

Way = tuple[str, Callable[[], Any] | Peer]
"""A precision and what is timed: a function that returns vectors or scores, or a peer."""


@dataclass
class Comparison:
    """The results by way: `precision`, least `cpu` seconds, `agreement`, and `reasons` for none.

    The agreement with the reference is the least cosine of two vectors, or the largest difference
    of two scores.
    """

    precision: dict[str, str] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def ratio(self, own: str, precision: str) -> float | None:
        """Returns how many times as fast `own` is as the best peer, None without a peer."""
        seconds = [
            cpu
            for name, cpu in self.cpu.items()
            if self.precision[name] == precision and not name.startswith("raydist")
        ]
        return min(seconds) / self.cpu[own] if seconds and own in self.cpu else None

    def versus(self, one: str, other: str) -> float | None:
        """Returns how many times as fast one way is as another, None where either is missing."""
        return self.cpu[other] / self.cpu[one] if {one, other} <= self.cpu.keys() else None

    def notes(self) -> dict[str, Any]:
        """Returns what is recorded beside the figures."""
        return {
            "processor_seconds": {name: round(value, 3) for name, value in self.cpu.items()},
            "wall_seconds": {name: round(value, 3) for name, value in self.wall.items()},
            "agreement": {name: round(value, 7) for name, value in self.agreement.items()},
            "left_out": self.reasons,
            "load_average": load_average(),
        }


def compare(
    task: str,
    own: Mapping[str, Way],
    texts: Sequence[str],
    model: Path,
    *,
    query: str = "",
    max_length: int,
    rounds: int,
    cache: Path,
    before: str = "",
) -> Comparison:
    """Times what runs in this process (the first is the reference) and all peers in turns.

    Args:
        task: embed or rerank.
        own: what runs in this process.
        texts: the texts, or the documents of the query.
        model: the model's folder.
        query: where the task is rerank.
        max_length: tokens at which texts, or pairs, are cut.
        rounds: of which the best counts, after one that warms up.
        cache: of environments and exported models.
        before: a checkout of another version of raydist, compared in float32 as `BEFORE`.
    """
    result = Comparison()
    with contextlib.ExitStack() as stack:
        ways = dict(own) | _peers(stack, result, task, model, max_length, cache)
        if before:
            settings = Settings(task, str(model), "float32", "", max_length, 1)
            spec = PeerSpec("", "raydist", "float32", checkout=before)
            try:
                ways[BEFORE] = "float32", stack.enter_context(running(spec, settings, cache))
            except Unavailable as error:
                result.reasons[BEFORE] = str(error)
        values: dict[str, np.ndarray] = {}
        for number in range(rounds + 1):
            for name, (_, work) in list(ways.items()):
                try:
                    values[name], cpu, wall = _timed(work, texts, query)
                except Unavailable as error:
                    result.reasons[name] = str(error)
                    del ways[name]
                    continue
                if number:  # the first round warms up
                    result.cpu[name] = min(cpu, result.cpu.get(name, cpu))
                    result.wall[name] = min(wall, result.wall.get(name, wall))
    first = next(iter(own))
    for name, (precision, _) in ways.items():
        result.precision[name] = precision
        agreement = _agreement(values[name], values[first])
        result.agreement[name] = agreement
        alike = agreement >= COSINE if task == "embed" else agreement <= DIFFERENCE
        if precision == "float32" and not alike:
            result.reasons[name] = f"its {task} results are not ours: {agreement:.6f}"
            del result.cpu[name], result.wall[name]
    rows = [[n, result.precision[n], s, result.agreement[n]] for n, s in result.cpu.items()]
    rows.sort(key=lambda row: (row[1], row[2]))
    print_table(task, ["way", "precision", "processor s", "agreement"], rows)
    for name, reason in result.reasons.items():
        say(f"{name}: left out: {reason}")
    return result


def _peers(
    stack: contextlib.ExitStack,
    result: Comparison,
    task: str,
    model: Path,
    max_length: int,
    cache: Path,
) -> dict[str, Way]:
    """Returns the work of each peer that starts; the reasons of the others go to the result."""
    cache.mkdir(parents=True, exist_ok=True)
    ways: dict[str, Way] = {}
    for name, spec in PEERS.items():
        try:
            folder = exported(task, model, max_length, cache) / _form(spec)
            settings = Settings(task, str(folder), spec.precision, spec.engine, max_length, 1)
            ways[name] = spec.precision, stack.enter_context(running(spec, settings, cache))
        except Unavailable as error:
            result.reasons[name] = str(error)
    return ways


def _form(spec: PeerSpec) -> str:
    """Returns the form of the model that a peer reads: its quickest."""
    if spec.precision == "int8":
        return "int8"
    graph = spec.program in ("onnxruntime", "fastembed") or spec.engine == "optimum"
    return "fused" if graph else "plain"


def _timed(
    work: Callable[[], Any] | Peer, texts: Sequence[str], query: str
) -> tuple[np.ndarray, float, float]:
    """Returns vectors or scores, and the processor's and the clock's seconds."""
    if isinstance(work, Peer):
        answer = work.work(texts, query)
        return answer.values, answer.cpu, answer.wall
    wall, cpu = time.perf_counter(), time.process_time()
    values = work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return np.asarray(values, np.float32), cpu, wall


def _agreement(one: np.ndarray, two: np.ndarray) -> float:
    """Returns the least cosine of two arrays of vectors, the largest difference of two of scores.

    It is of no use where they have other shapes.
    """
    if one.shape != two.shape:
        return float("nan")
    if one.ndim == 1:
        return float(np.abs(one - two).max())
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return float(((one * two).sum(1) / norms).min())
