"""Turns a run and its qrels into numbers, by ir-measures.

M measures, Q judged queries. A judged query without results counts 0, a query without judgements
does not count, and equal scores are ordered as the measure's tool orders them (trec_eval: by
document id, descending): this is ir-measures' own behaviour, so the numbers are those of its
command line. `ties="rank"` measures the run's row order instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raydist.errors import ConfigError, DataError
from raydist.records import Qrels, Run

Ties = Literal["score", "rank"]
_NOT_A_QUALITY = {"NumQ", "NumRel"}  # counts of the qrels, whatever the run
_ILLEGAL = re.compile(r"[^\w./: -]")  # in a metric's name, for MLflow
_SHORT = re.compile(r"(P|R|RR|AP|nDCG|Success|Judged|ERR|RBP|SDCG)_?(\d+)$")


def parse(names: Iterable[str]) -> dict[str, Any]:
    """Returns ir-measures' objects by the names in `names`.

    Takes ir-measures' names (`nDCG@10`, `AP(rel=2)@100`), trec_eval's (`map`, `ndcg_cut_10`,
    `P_30`; a name such as `P`, which has many cutoffs, becomes as many measures) and
    short forms (`P30`).

    Raises:
        ConfigError: a name is unknown, not supported by an installed tool, or occurs twice.
    """
    import ir_measures

    parsed: dict[str, Any] = {}
    for name in names:
        for key, measure in _parse_one(name.strip()):
            if key in parsed:
                raise ConfigError(f"measures: {key} occurs twice")
            if not ir_measures.DefaultPipeline.supports(measure):
                raise ConfigError(
                    f"measures: {key}: ir-measures knows it, but the tool that computes it is "
                    f"not installed"
                )
            parsed[key] = measure
    if not parsed:
        raise ConfigError("measures: expected at least one; for example nDCG@10,AP,R@1000")
    return parsed


def _parse_one(name: str) -> list[tuple[str, Any]]:
    import ir_measures

    try:
        measure = ir_measures.parse_measure(name)
        measure.validate_params()
        return [(name, measure)]
    except NameError:
        pass
    except AssertionError as error:
        if measure.AT_PARAM not in measure.params:
            raise ConfigError(
                f"measures: {name!r} needs a {measure.AT_PARAM}; for example {name}@10"
            ) from None
        raise ConfigError(f"measures: {name!r}: {error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"measures: {name!r}: {error}; for example nDCG@10, AP(rel=2)") from None
    short = _SHORT.match(name)
    if short and not name.startswith("P_"):
        return [(name, _parse_one(f"{short[1]}@{short[2]}")[0][1])]
    try:
        measures = ir_measures.parse_trec_measure(name)
    except ValueError as error:
        if "known trec name" in str(error):
            raise ConfigError(f"measures: {name!r}: trec_eval has it, ir-measures not") from None
        registry = ir_measures.measures.registry
        known = sorted(registry, key=lambda k: (k != registry[k].NAME, k))  # aliases last
        base = re.split(r"[@(]", name)[0].lower()
        near = next((k for k in known if k.lower() == base), None) or next(
            iter(difflib.get_close_matches(name, known, 1, 0.5)), None
        )
        hint = f"; did you mean {near}{name[len(base) :] if '@' in name else ''}?" if near else ""
        raise ConfigError(f"measures: {name!r} is not a measure of ir-measures{hint}") from None
    return [(name, measures[0])] if len(measures) == 1 else [(str(m), m) for m in measures]


def direction(name: str) -> int:
    """Returns 1 for a measure whose larger values are better, 0 for a mere count.

    No measure of ir-measures is better when it is smaller.
    """
    measure = next(iter(parse([name]).values()))
    bare = measure.NAME == "NumRet" and "rel" not in measure.params
    return 0 if bare or measure.NAME in _NOT_A_QUALITY else 1


def is_sum(name: str) -> bool:
    """Returns whether a measure is added up over the queries, such as NumRelRet."""
    import ir_measures

    measure = next(iter(parse([name]).values()))
    return isinstance(measure.aggregator(), ir_measures.measures.base.SumAgg)


def better(value: float, than: float, direction: int = 1, min_delta: float = 0.0) -> bool:
    """Returns whether a value is strictly better by more than `min_delta`; NaN never is."""
    return direction * (value - than) > min_delta


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """One run's values.

    Attributes:
        measures: the measures' names, as the caller wrote them.
        query_ids: the judged queries, in the qrels' order.
        values_MQ: float64 value of each measure for each query.
        means: the measures' aggregates: means, but sums for counts such as NumRelRet.
        run: the measured run, where the caller needs it again.
    """

    measures: tuple[str, ...]
    query_ids: tuple[str, ...]
    values_MQ: np.ndarray
    means: dict[str, float]
    run: Run | None = None

    def of(self, name: str) -> np.ndarray:
        """Returns the values [Q] of one measure."""
        return self.values_MQ[self.measures.index(name)]  # type: ignore[no-any-return]

    def table(self) -> Any:
        """Returns an Arrow table: `query_id` and a float64 column per measure."""
        import pyarrow as pa

        columns = {"query_id": pa.array(list(self.query_ids), pa.string())}
        columns |= {name: pa.array(row) for name, row in zip(self.measures, self.values_MQ)}
        return pa.table(columns)


def evaluate(
    run: Run,
    qrels: Qrels,
    measures: Sequence[str] | Mapping[str, Any],
    *,
    ties: Ties = "score",
) -> Evaluation:
    """Measures a run.

    Args:
        run: the run to measure.
        qrels: judgements; their queries are the ones that count.
        measures: names, or what `parse` returned.
        ties: `score`: the measuring tool orders equal scores; `rank`: the run's rows do.

    Raises:
        ConfigError: a measure is unknown.
        DataError: the qrels are empty.
    """
    import ir_measures

    parsed = dict(measures) if isinstance(measures, Mapping) else parse(measures)
    if not qrels:
        raise DataError("qrels: no judged query, so there is nothing to measure")
    query_ids = tuple(qrels)
    where = {query: i for i, query in enumerate(query_ids)}
    judged = {query: dict(docs) for query, docs in qrels.items()}
    ranked = _scores(run, where, ties)
    objects = list(dict.fromkeys(parsed.values()))
    rows = {measure: i for i, measure in enumerate(objects)}
    values = np.empty((len(objects), len(query_ids)))
    values[:] = np.array([[float(m.DEFAULT)] for m in objects])
    for metric in ir_measures.iter_calc(objects, judged, ranked):
        column = where.get(metric.query_id)
        if column is not None:
            values[rows[metric.measure], column] = metric.value
    means = {}
    for name, measure in parsed.items():
        aggregate = measure.aggregator()
        for value in values[rows[measure]].tolist():
            aggregate.add(value)
        means[name] = float(aggregate.result())
    order = [rows[measure] for measure in parsed.values()]
    return Evaluation(tuple(parsed), query_ids, values[order], means)


def _scores(run: Run, judged: Mapping[str, int], ties: Ties) -> dict[str, dict[str, float]]:
    if ties == "score":
        return {q: dict(zip(docs, scores.tolist())) for q, docs, scores in run if q in judged}
    return {q: dict(zip(docs, range(len(docs), 0, -1))) for q, docs, _ in run if q in judged}


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of a mean over queries; `method` names how it was estimated."""

    low: float
    high: float
    method: str


def interval(
    values_Q: np.ndarray,
    *,
    method: Literal["bootstrap", "t"] = "bootstrap",
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Returns the confidence interval of the mean over queries.

    Args:
        values_Q: one measure's values.
        method: `bootstrap`: percentiles of the means of queries sampled with replacement (Efron);
            `t`: mean ± t · s / √Q, Student's t with Q − 1 degrees of freedom.
        level: confidence, between 0 and 1.
        resamples: bootstrap samples.
        seed: of the bootstrap.

    A single query gives no interval: both ends are NaN.
    """
    values = np.asarray(values_Q, np.float64)
    count = len(values)
    if method == "t":
        label = f"t({count - 1}), {level:.0%}"
    else:
        label = f"bootstrap({resamples}), {level:.0%}"
    if count < 2:
        return Interval(float("nan"), float("nan"), label)
    if method == "t":
        from scipy.special import stdtrit

        half = stdtrit(count - 1, 0.5 + level / 2) * values.std(ddof=1) / np.sqrt(count)
        return Interval(float(values.mean() - half), float(values.mean() + half), label)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, 4_000_000 // count)  # bounds the sampled indices to 32 MB
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = values[rng.integers(0, count, (stop - start, count))].mean(1)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(float(low), float(high), label)


def metric_name(name: str) -> str:
    """Returns a name that MLflow accepts.

    `nDCG@10` becomes `nDCG_at_10` and `AP(rel=2)@100` becomes `AP_rel_2_at_100`; a name without a
    forbidden character stays what it is.
    """
    text = name.replace("@", "_at_").replace(")", "")
    return _ILLEGAL.sub("_", text)


def metric_names(names: Iterable[str]) -> dict[str, str]:
    """Returns {name: MLflow's name}.

    Raises:
        ConfigError: two names would become the same.
    """
    mapped: dict[str, str] = {}
    owner: dict[str, str] = {}
    for name in names:
        short = metric_name(name)
        if owner.setdefault(short, name) != name:
            raise ConfigError(
                f"metrics: {owner[short]!r} and {name!r} would both be logged as {short!r}; "
                f"leave one of them out"
            )
        mapped[name] = short
    return mapped
