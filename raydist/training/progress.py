"""A run's progress, read from the lines that rank 0 writes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raydist.evaluation.mirror import METRICS, read_lines
from raydist.log import Progress


def note(loss: float, lr: float, samples_per_s: float, padding_waste: float) -> str:
    """Returns the text behind a run's progress bar."""
    return (
        f"loss {loss:.4f}, lr {lr:.2e}, {samples_per_s:,.1f} samples/s, {padding_waste:.0%} padding"
    )


@contextmanager
def followed(folder: Path, steps: int, done: int = 0, every_s: float = 0.5) -> Iterator[None]:
    """Shows the progress of a run that writes `folder/metrics.jsonl` elsewhere, until left.

    Args:
        folder: the run's folder.
        steps: optimizer steps of the run.
        done: steps done before, by earlier runs.
        every_s: seconds between looks at the file.
    """
    over = threading.Event()

    def follow() -> None:
        reached, offset = done, 0
        path = folder / METRICS
        with Progress("train", steps, "step", done=done) as progress:
            while True:
                last = over.wait(every_s)
                if path.exists() and path.stat().st_size < offset:
                    offset = 0  # a restarted run cut its record
                for line, after in read_lines(path, offset):
                    offset = after
                    if line["step"] > reached:
                        names = ("loss", "lr", "samples_per_s", "padding_waste")
                        values = [float(line.get(name, 0.0)) for name in names]
                        progress.advance(line["step"] - reached, note=note(*values))
                        reached = line["step"]
                if last:
                    return

    thread = threading.Thread(target=follow, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
