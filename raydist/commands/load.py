"""Measures a running service under load: latency quantiles, pairs per second, status counts.

    raydist load url=http://127.0.0.1:8000 rate=50 seconds=10
    raydist load url=http://127.0.0.1:8000 clients=8 seconds=10

The figures go to standard output as one JSON object, a table to standard error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice
from typing import Any

from raydist import log
from raydist.artefact import planned
from raydist.config.base import Flags
from raydist.config.serve import LoadConfig
from raydist.errors import JobError

Config = LoadConfig
_DOCUMENTS = 10_000


def run(config: LoadConfig, flags: Flags) -> int:
    """Sends the load, prints the figures; 1 if nothing was answered."""
    from raydist.serving.load import run_load

    spec, bodies = config.load, _bodies(config)
    rate = f"{spec.rate:g} requests/s" if spec.rate else log.count(spec.clients or 4, "client")
    plan = f"send {rate} to {config.url}{config.route} for {spec.seconds:g} s"
    if planned(flags.dry_run, plan):
        return 0
    total = int(spec.rate * spec.seconds) if spec.rate else None
    with log.Progress(f"load ({rate})", total=total, unit="answer") as progress:
        result = run_load(
            config.url,
            bodies,
            spec,
            route=config.route,
            key=os.environ.get(config.key_env),
            on_answer=progress.advance,
        )
    figures = result.figures()
    if not result.answered:
        raise JobError(f"url = {config.url}: no request was answered: {dict(result.statuses)}")
    log.table(f"{config.url}{config.route}, {rate}", ["what", "value"], list(figures.items()))
    if result.late_s > 0.1:
        log.warn(f"this machine sent up to {result.late_s * 1e3:.0f} ms late: lower the rate")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    _track(config, figures)
    return 0


def _bodies(config: LoadConfig) -> Iterator[dict[str, Any]]:
    from raydist.serving.load import documents_of, rerank_bodies

    spec, queries = config.load, documents_of(5, 64, config.seed + 1)
    if spec.queries is not None:
        from raydist.data.readers import read_queries

        queries = [query.text for query in read_queries(spec.queries)]
    if config.route.endswith("/search"):
        return ({"query": query} for query in cycle(queries))
    texts = documents_of(spec.words, 1000, config.seed)
    if spec.corpus is not None:
        from raydist.data.readers import read_documents

        tables = read_documents(spec.corpus)
        rows = (text for table in tables for text in table["text"].to_pylist())
        texts = list(islice(rows, _DOCUMENTS))
    return rerank_bodies(queries, texts, spec.documents, config.seed, spec.long)


def _track(config: LoadConfig, figures: dict[str, float]) -> None:
    from raydist.evaluation.tracking import resolve_uri

    uri = resolve_uri(config.tracking.uri)
    if uri is None:
        return
    import tempfile

    from raydist.config.record import record_configuration
    from raydist.evaluation.mirror import Mirror
    from raydist.evaluation.tracking import Tracker

    with tempfile.TemporaryDirectory() as folder:
        tracking = replace(
            config.tracking, uri=uri, name=config.tracking.name or f"load {config.route}"
        )
        tracker = Tracker.start(folder, tracking)
        mirror = Mirror(tracker.folder)
        record_configuration(mirror, "load", config, {})
        mirror.metrics(0, figures)
        tracker.close()
