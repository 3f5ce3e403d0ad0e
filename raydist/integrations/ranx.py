"""ranx: runs and judgements of raydist as ranx's, and the other way round.

import ranx
from raydist.integrations.ranx import from_ranx, ranx_qrels, ranx_run

ranx.evaluate(ranx_qrels(qrels), ranx_run(run), ["ndcg@10", "map"], make_comparable=True)
fused = from_ranx(ranx.fuse([ranx_run(a), ranx_run(b)], norm="min-max", method="wsum"))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from raydist.api.run import Run
from raydist.integrations import expect, needed
from raydist.records import Run as Records

with needed("ranx"):
    import ranx

if TYPE_CHECKING:
    from raydist.records import Qrels

_JUDGEMENTS = "judgements, {query: {document: grade}}"


def ranx_run(
    run: Records, name: str | None = None, *, ties: Literal["score", "rank"] = "score"
) -> ranx.Run:
    """Returns a run as ranx has it, in the order that raydist measures.

    ranx orders equal scores as its sorting leaves them. So equal scores are lowered here by the
    smallest steps that a float64 has, far below what tells two float32 apart: measures are then
    those of raydist, and `from_ranx` gives the run's own scores back.

    >>> run = Run.from_lists([("q1", ["d2", "d1"], [2.0, 2.0])])
    >>> list(ranx_run(run).to_dataframe()["doc_id"])
    ['d2', 'd1']

    Args:
        run: a run.
        name: what ranx shows; the run's tag if None.
        ties: order of equal scores: `score` is trec_eval's, by document id, descending; `rank`
            keeps the run's own.

    Raises:
        ConfigError: it is no run.
    """
    from raydist.evaluation.measures import ordered

    expect(run, Records, "a run of raydist")
    scores: dict[str, dict[str, float]] = {}
    for query, docs, values in run:
        names, _ = ordered(docs, values, ties)
        scores[query] = dict(zip(names, _falling(values).tolist()))
    return ranx.Run(scores or None, name=run.tag if name is None else name)


def _falling(scores: np.ndarray) -> np.ndarray:
    """Returns scores [n] that do not rise as float64 [n] that fall; as float32 they are equal."""
    values = scores.astype(np.float64)
    places = np.arange(len(values))
    starts = np.r_[True, values[1:] != values[:-1]]
    first = np.maximum.accumulate(np.where(starts, places, 0))
    return values - (places - first) * np.spacing(np.abs(values))


def ranx_qrels(qrels: Qrels, name: str | None = None) -> ranx.Qrels:
    """Returns judgements as ranx has them.

    >>> int(ranx_qrels({"q1": {"d1": 2}}).to_dict()["q1"]["d1"])
    2

    Args:
        qrels: `{query: {document: grade}}`.
        name: what ranx shows.

    Raises:
        ConfigError: they are no judgements.
    """
    expect(qrels, Mapping, _JUDGEMENTS)
    for judged in qrels.values():
        expect(judged, Mapping, _JUDGEMENTS)
    grades = {str(query): dict(judged) for query, judged in qrels.items() if judged}
    return ranx.Qrels(grades or None, name=name)


def from_ranx(value: ranx.Run | ranx.Qrels) -> Any:
    """Returns a `Run` for a run of ranx, `{query: {document: grade}}` for judgements.

    >>> import ranx
    >>> from_ranx(ranx.Run({"q1": {"d1": 0.5, "d2": 2.0}}))["q1"][0].id
    'd2'
    >>> from_ranx(ranx.Qrels({"q1": {"d1": 1}}))
    {'q1': {'d1': 1}}

    Args:
        value: a `ranx.Run` or `ranx.Qrels`.

    Raises:
        ConfigError: it is neither.
        DataError: a score is no finite number.
    """
    if isinstance(value, ranx.Qrels):
        return {str(q): {str(d): int(g) for d, g in _items(of)} for q, of in _items(value.qrels)}
    expect(value, ranx.Run, "a Run or Qrels of ranx")
    rankings = []
    for query, scores in _items(value.run):
        rows = sorted(_items(scores), key=lambda row: -row[1])
        rankings.append((str(query), [str(d) for d, _ in rows], [float(s) for _, s in rows]))
    return Run.from_lists(rankings, value.name or "ranx")


def _items(values: Mapping[Any, Any]) -> Any:
    """Returns the pairs of one of numba's mappings."""
    return values.items()
