"""What all benchmarks share: arguments, a description of the machine, the table, the record.

A benchmark ends with `write_results("bow", figures, goals)`, which prints every figure beside its
goal and writes `benchmarks/results/bow.json`.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
"""Where the records lie, one JSON file per benchmark."""

WORK = Path(__file__).parent / ".work"
"""Downloads, corpora and peers' environments; ignored by git."""

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
"""The test collections, beside the checkout."""

Measured = tuple[dict[str, float], dict[str, Any]]
"""Figures and remarks of a benchmark's part."""

_HOLDS = {
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "==": lambda a, b: a == b,
}


def memory_bytes(field: str, process: int | str = "self") -> int:
    """Returns a line of Linux's /proc/PID/status in bytes: VmRSS, VmHWM (its peak), RssAnon.

    The peak of `wait4` and `getrusage` is no substitute: a child inherits its parent's on exec.
    """
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def arguments(defaults: Mapping[str, Any], argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Returns `key=value` arguments over the defaults, each read as its default's type."""
    values = dict(defaults)
    for word in sys.argv[1:] if argv is None else argv:
        key, equals, value = word.partition("=")
        if not equals or key not in values:
            raise SystemExit(f"{word!r}: expected key=value with a key of {', '.join(values)}")
        kind = type(values[key])
        values[key] = value.lower() in ("1", "true", "yes") if kind is bool else kind(value)
    return values


def load_average() -> float:
    """Returns how many processes wanted to run in the last minute, to be noted beside figures."""
    return round(os.getloadavg()[0], 1)


def machine() -> dict[str, Any]:
    """Returns a description of this machine: processor, cores, memory, system, accelerators."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    about: dict[str, Any] = {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name(0)
    return about


def goal(op: str, value: float) -> dict[str, Any]:
    """Returns a goal as it is recorded, such as `{"op": "<=", "value": 0.6}`."""
    assert op in _HOLDS, op
    return {"op": op, "value": value}


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table with aligned columns; numbers to four digits, None as a dash."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    print(f"\n{title}")
    for row in [list(columns), ["-" * width for width in widths], *cells]:
        first, *rest = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        )
        print("  ".join([first, *rest]).rstrip())
    sys.stdout.flush()


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of Markdown."""
    head = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def recorded(name: str) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Returns the figures and notes of the last record, empty if there is none.

    A benchmark of several parts runs some of them and keeps the others' figures.
    """
    record = RESULTS / f"{name}.json"
    if not record.is_file():
        return {}, {}
    content = json.loads(record.read_text(encoding="utf-8"))
    return content["figures"], content.get("notes", {})


def _earlier(target: Path, figures: Mapping[str, float | None]) -> dict[str, dict[str, str]]:
    """Returns the processor and the date of the figures that are those of an earlier record."""
    if not target.is_file():
        return {}
    last = json.loads(target.read_text(encoding="utf-8"))
    origin = {"cpu": last["machine"]["cpu"], "date": last["date"]}
    return {
        key: last.get("earlier", {}).get(key, origin)
        for key, value in figures.items()
        if value is not None and last["figures"].get(key) == value
    }


def write_results(
    name: str,
    figures: Mapping[str, float | None],
    goals: Mapping[str, Mapping[str, Any]],
    *,
    notes: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Path:
    """Prints the figures beside their goals and writes `results/NAME.json`; returns its path.

    Args:
        name: the benchmark's name.
        figures: the measurements; a figure that could not be measured here is None.
        goals: `{key: goal("<=", 0.6)}`.
        notes: settings and remarks, recorded beside the figures.
        folder: where to write, `benchmarks/results` if None.
    """
    rows = []
    for key in dict.fromkeys([*figures, *goals]):
        aim, value = goals.get(key), figures.get(key)
        held = "" if aim is None else "not measured"
        if aim is not None and value is not None:
            held = "holds" if _HOLDS[aim["op"]](value, aim["value"]) else "MISSED"
        rows.append([key, value, "" if aim is None else f"{aim['op']} {aim['value']}", held])
    print_table(f"benchmark {name}", ["figure", "value", "goal", ""], rows)
    target = (folder or RESULTS) / f"{name}.json"
    record: dict[str, Any] = {
        "name": name,
        "figures": dict(figures),
        "goals": {key: dict(aim) for key, aim in goals.items()},
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if earlier := _earlier(target, figures):
        record["earlier"] = earlier
    if notes:
        record["notes"] = dict(notes)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, target)
    return target


def measure_parts(
    name: str,
    parts: Mapping[str, Callable[[dict[str, Any]], Measured]],
    options: dict[str, Any],
    goals: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Measures the parts that `options` name, and records each as it ends.

    Figures of other parts are kept. A part's remarks are the record's note of its name.

    Raises:
        SystemExit: there is no such part.
    """
    chosen = options["parts"].split(",")
    if unknown := [part for part in chosen if part not in parts]:
        raise SystemExit(f"parts = {unknown[0]!r}: expected some of {', '.join(parts)}")
    WORK.mkdir(exist_ok=True)
    for part in chosen:
        measured, remarks = parts[part](options)
        figures, notes = recorded(name)
        write_results(name, figures | measured, goals or {}, notes=notes | {part: remarks})


def amend(name: str, figures: Mapping[str, float]) -> None:
    """Adds figures to the record of another benchmark, and keeps its goals, where there is one."""
    record = RESULTS / f"{name}.json"
    if record.is_file():
        own, notes = recorded(name)
        goals = json.loads(record.read_text(encoding="utf-8"))["goals"]
        write_results(name, own | dict(figures), goals, notes=notes)
