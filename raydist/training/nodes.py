"""A run whose output goes to an object store: its nodes need not share a folder.

The driver offers the prepared data in the output's area (`raydist.stores.nodes`), from where each
worker copies it. Every rank puts its part of a checkpoint there itself
(`raydist.training.uploads`), rank 0 also the run's record and the best models so far. So a run
continues on other machines, whatever disks are lost, and the driver fetches what it publishes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from raydist.data.samples.sample_set import FACTS, SampleFacts
from raydist.disk import remove, write_json
from raydist.evaluation.mirror import EVENTS, METRICS
from raydist.stores.copies import partial_path
from raydist.stores.nodes import Area
from raydist.stores.objects import Objects
from raydist.training.checkpoint import CHECKPOINTS, FINAL, STATE, is_checkpoint_name
from raydist.training.plan import Job

_OFFERED = ("data", "scratch")
"""What the driver has prepared, below the run's folder."""
_RECORD = (METRICS, EVENTS, "listeners", "nonfinite")
"""What rank 0 writes while it trains."""
MARK = "done-"
"""What the mark of a rank's part begins with: `done-00000-of-2`."""


def area_of(folder: Path) -> Area | None:
    """Returns the area of a run that goes to an object store, None for others."""
    return Area.of(folder / CHECKPOINTS)


class RunFolder:
    """A run's folder in this process, and the same in the area.

    Args:
        area: of the run.
        folder: the driver's, or this process's.
    """

    def __init__(self, area: Area, folder: Path) -> None:
        self.area = area
        here, path = area.here, folder.absolute()
        self._name = path.relative_to(here if here in path.parents else area.root).as_posix()
        self.here = here / self._name
        self.is_drivers = here == area.root
        self._drivers = area.root / self._name
        self.objects = Objects(f"{area.uri}/{self._name}")
        self._known: dict[str, tuple[int, int]] = {}

    def offer(self) -> None:
        """Puts what the workers read, and what an earlier run of the same has kept."""
        names = self.objects.names()
        files = {self._relative(path): path for path in self._files(_OFFERED)}
        for folder, facts in self._data():
            for i, file in enumerate(facts.files):
                if self.here not in Path(file).parents:
                    files[f"{self._relative(folder)}/{_original(file, i)}"] = Path(file)
        self.objects.upload({name: path for name, path in files.items() if name not in names})
        self.put_record()
        for folder in sorted((self.here / CHECKPOINTS).glob("step-*")):
            state = folder / STATE
            if state.exists() and f"{CHECKPOINTS}/{folder.name}/{STATE}" not in names:
                self._put(path for path in files_of(folder) if path != state)
                self._put([state])

    def enter(self) -> None:
        """Copies what the driver offers, unless this process sees the driver's folder."""
        if self.is_drivers:
            return
        self.here.mkdir(parents=True, exist_ok=True)
        for name in _OFFERED:
            self.area.fetch(f"{self._name}/{name}")
        with FileLock(self.here / ".enter.lock"):
            for folder, facts in self._data():
                moved = replace(
                    facts,
                    files=tuple(self._moved(folder, each, i) for i, each in enumerate(facts.files)),
                    documents=self._moved(folder, facts.documents),
                    queries=self._moved(folder, facts.queries),
                )
                if moved != facts:
                    write_json(folder / FACTS, moved.to_dict())

    def _data(self) -> list[tuple[Path, SampleFacts]]:
        """Returns the folders of the prepared data sets, with their facts."""
        files = sorted((self.here / "data").glob(f"*/{FACTS}"))
        return [
            (path.parent, SampleFacts.from_dict(json.loads(path.read_text()))) for path in files
        ]

    def _moved(self, folder: Path, file: str, number: int = -1) -> str:
        """Returns the path here of what a driver's data set reads."""
        driver = self.area.root / folder.relative_to(self.area.here)
        if file and driver in Path(file).parents:
            return str(folder / Path(file).relative_to(driver))
        copy = folder / _original(file, number)
        return str(copy) if number >= 0 and copy.exists() else file

    def put_record(self, *more: str) -> None:
        """Puts what rank 0 writes, and more, as far as it changed."""
        self._put(self._changed((*_RECORD, *more)))

    def copy_record(self, folder: Path) -> dict[str, Path]:
        """Returns, by name, copies of what rank 0 writes, as far as it changed.

        Args:
            folder: for the copies; lines are added to some files, others are only ever replaced.
        """
        copies = {}
        for number, path in enumerate(self._changed(_RECORD)):
            copy = copies[self._relative(path)] = folder / f"{number:05}{path.suffix}"
            if self._relative(path) == EVENTS:
                self._name_paths(path, copy, self.here, self._drivers)
            elif path.suffix == ".jsonl":
                shutil.copyfile(path, copy)
            else:
                os.link(path, copy)
        return copies

    def _changed(self, names: Iterable[str]) -> list[Path]:
        files = []
        for path in self._files(names):
            status = path.stat()
            mark = (status.st_size, status.st_mtime_ns)
            if self._known.get(self._relative(path)) != mark:
                self._known[self._relative(path)] = mark
                files.append(path)
        return files

    def fetch(self, name: str) -> None:
        """Copies a file that another process may have written, unless it is here."""
        if not (self.here / name).exists():
            self._fetch(lambda each: each == name)

    def fetch_record(self) -> None:
        """Replaces what rank 0 writes by what the area has of it."""
        self._fetch(lambda name: name.split("/")[0] in _RECORD)

    def fetch_result(self, *more: str) -> None:
        """Copies what the run leaves: its checkpoints, and if rank 0 was elsewhere all it wrote.

        Args:
            more: files that rank 0 wrote last.
        """
        remove(self.here / CHECKPOINTS)
        elsewhere = any(not (self.here / name).exists() for name in more)
        names = {CHECKPOINTS, *((*_RECORD, FINAL, *more) if elsewhere else ())}
        self._fetch(lambda name: name.split("/")[0] in names)

    def _fetch(self, wanted: Callable[[str], bool]) -> None:
        names = self.objects.names()
        whole = complete(name for name in names if name.split("/")[0] == CHECKPOINTS)
        entries = {
            name: each
            for name, each in names.items()
            if wanted(name)
            if name.split("/")[0] != CHECKPOINTS or name.split("/")[1] in whole
        }
        partial = {name: partial_path(self.here / name) for name in entries}
        self.objects.download(entries, partial)
        for name, path in partial.items():
            if name == EVENTS:
                self._name_paths(path, path, self._drivers, self.here)
            os.replace(path, self.here / name)

    def _put(self, paths: Iterable[Path]) -> None:
        files = {self._relative(path): path for path in paths}
        copy = partial_path(self.here / EVENTS)
        if EVENTS in files:
            self._name_paths(files[EVENTS], copy, self.here, self._drivers)
            files[EVENTS] = copy
        self.objects.upload(files)
        remove(copy)

    @staticmethod
    def _name_paths(source: Path, target: Path, old: Path, new: Path) -> None:
        """Copies a record whose files are named by the path that they have elsewhere."""
        target.write_bytes(source.read_bytes().replace(f"{old}/".encode(), f"{new}/".encode()))

    def _files(self, names: Iterable[str]) -> list[Path]:
        return [path for name in names for path in files_of(self.here / name)]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.here).as_posix()


def _original(file: str, number: int) -> str:
    """Returns the name of a copy of a file that a data set reads where it lies."""
    return f"originals/{number:05}{Path(file).suffix}"


def on_this_node(job: Job) -> Job:
    """Returns a job with the paths of this process; what they name is there."""
    if job.area is None:
        return job
    run = RunFolder(job.area, job.folder)
    run.enter()

    def moved(path: Path) -> Path:
        inside = job.folder.absolute() in path.absolute().parents
        return run.here / path.absolute().relative_to(job.folder.absolute()) if inside else path

    model = job.model
    if model.path is not None and moved(Path(model.path)) != Path(model.path):
        model = replace(model, path=str(moved(Path(model.path))))
    bad = job.plan.folder
    return replace(
        job,
        folder=run.here,
        model=model,
        sets=tuple(replace(each, folder=moved(each.folder)) for each in job.sets),
        plan=replace(job.plan, folder=None if bad is None else moved(bad)),
    )


def reached(area: Area, folder: Path) -> int:
    """Returns the step of the newest checkpoint in the area, 0 if there is none."""
    objects = RunFolder(area, folder).objects
    steps = complete(objects.names(CHECKPOINTS))
    if not steps:
        return 0
    state = objects.read(f"{CHECKPOINTS}/{steps[-1]}/{STATE}")
    return int(json.loads(state[0])["step"]) if state else 0


def complete(names: Iterable[str]) -> list[str]:
    """Returns the names of the checkpoints that have all their files, in order.

    Each rank marks its part when it has put it. Those of a driver have no marks: it puts the state
    last.
    """
    parts = [name.split("/")[1:] for name in names]
    stated = {part[0] for part in parts if part[1:] == [STATE] and is_checkpoint_name(part[0])}
    marks: dict[str, list[str]] = {}
    for part in parts:
        if len(part) == 2 and part[1].startswith(MARK):
            marks.setdefault(part[0], []).append(part[1])
    return sorted(
        name
        for name in stated
        if name not in marks or len(marks[name]) == int(marks[name][0].rpartition("-")[2])
    )


def files_of(path: Path) -> list[Path]:
    """Returns a file, or the finished files of a folder."""
    if path.is_file():
        return [path]
    return sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not any(p.endswith(".part") for p in each.relative_to(path).parts)
    )
