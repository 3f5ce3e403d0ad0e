"""Turns a run and its qrels into numbers, by ir-measures.

M measures, Q judged queries. A judged query without results counts 0, a query without judgements
does not count. Equal scores are ordered once, for all measures: `ties="score"` by trec_eval's rule
(document id, descending), `ties="rank"` as the run's rows are. ir-measures gets that order alone:
its tools break ties each in its own way, and one of them takes only numbers as ids, so it gets
ranks for scores and numbers for ids.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from raydist.errors import ConfigError, DataError
from raydist.records import DiversityQrels, Qrels, Run

Ties = Literal["score", "rank"]
_GDEVAL_GRADE = 4  # the highest that gdeval.pl takes
_BATCH_ROWS = 1 << 17  # rows of a run that ir-measures gets at a time
_NOT_A_QUALITY = {"NumQ", "NumRel"}  # counts of the qrels, whatever the run
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
                raise ConfigError(f"measures: {key} occurs twice; name it once")
            if not ir_measures.DefaultPipeline.supports(measure):
                raise ConfigError(f"measures: {key}: {_remedy(measure)}")
            parsed[key] = measure
    if not parsed:
        raise ConfigError("measures: expected at least one; for example nDCG@10,AP,R@1000")
    return parsed


def _remedy(measure: Any) -> str:
    """Returns what to install for a measure that no installed tool computes."""
    import ir_measures

    tools = [each for each in ir_measures.DefaultPipeline.providers if each.supports(measure)]
    for tool in tools:
        if how := tool.install_instructions():
            return f"the tool that computes it, {tool.NAME}, is not installed: {how}"
    return "ir-measures knows it, but no tool of it computes it with these parameters"


def _tool(measure: Any) -> str:
    """Returns the name of the tool of ir-measures that computes a measure."""
    import ir_measures

    for each in ir_measures.DefaultPipeline.providers:
        if each.is_available() and each.supports(measure):
            return str(each.NAME)
    raise AssertionError(measure)


def by_subtopic(measure: Any) -> bool:
    """Returns whether a measure needs judgements by subtopic, such as alpha_nDCG."""
    import ir_measures

    return measure.NAME in {each.NAME for each in ir_measures.pyndeval.SUPPORTED_MEASURES}


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
        if absent := re.search(r"(\w+)=<object", str(error)):  # its mark of what was not set
            raise ConfigError(f"measures: {name!r} needs {absent[1]}=...") from None
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
            raise ConfigError(
                f"measures: {name!r}: trec_eval has it, ir-measures does not"
            ) from None
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
        tied: the share of the results that have the score of another one of their query.
    """

    measures: tuple[str, ...]
    query_ids: tuple[str, ...]
    values_MQ: np.ndarray
    means: dict[str, float]
    run: Run | None = None
    tied: float = 0.0

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
        ties: order of equal scores: `score`: by document id, descending, as in trec_eval; `rank`:
            the run's.

    Raises:
        ConfigError: a measure is unknown, or cannot be computed from these judgements.
        DataError: the qrels are empty.
    """
    import ir_measures

    parsed = dict(measures) if isinstance(measures, Mapping) else parse(measures)
    if not qrels:
        raise DataError("qrels: no judged query, so there is nothing to measure")
    for name, measure in parsed.items():
        _check_qrels(name, measure, qrels)
    query_ids = tuple(qrels)
    objects = list(dict.fromkeys(parsed.values()))
    plain = [measure for measure in objects if not by_subtopic(measure)]
    diverse = [measure for measure in objects if by_subtopic(measure)]
    rows = {measure: i for i, measure in enumerate(objects)}
    values = np.empty((len(objects), len(query_ids)))
    values[:] = np.array([[float(m.DEFAULT)] for m in objects])
    results = tied = 0
    for batch in _batches(run, qrels, ties):
        results += batch.results
        tied += batch.tied
        for chosen, judged in ((plain, batch.grades), (diverse, batch.subtopics)):
            for metric in ir_measures.iter_calc(chosen, judged, batch.ranked) if chosen else ():
                values[rows[metric.measure], int(metric.query_id)] = metric.value
    means = {}
    for name, measure in parsed.items():
        aggregate = measure.aggregator()
        for value in values[rows[measure]].tolist():
            aggregate.add(value)
        means[name] = float(aggregate.result())
    order = [rows[measure] for measure in parsed.values()]
    share = tied / results if results else 0.0
    return Evaluation(tuple(parsed), query_ids, values[order], means, tied=share)


def _check_qrels(name: str, measure: Any, qrels: Qrels) -> None:
    if by_subtopic(measure) and measure.params.get("judged_only"):
        raise ConfigError(f"measures: {name}: its tool does not compute judged_only; leave it out")
    if by_subtopic(measure) and not isinstance(qrels, DiversityQrels):
        raise ConfigError(
            f"measures: {name} needs judgements by subtopic (query subtopic document relevance), "
            "and the qrels have none: give others, or leave it out"
        )
    if _tool(measure) == "gdeval":
        highest = max((max(judged.values(), default=0) for judged in qrels.values()), default=0)
        if highest > _GDEVAL_GRADE:
            raise ConfigError(
                f"measures: {name} is for grades of 0 to {_GDEVAL_GRADE}, and the qrels have "
                f"{highest}; leave it out, or map the grades"
            )


class _Batch(NamedTuple):
    """Some queries as ir-measures takes them: queries by position, documents by number.

    Attributes:
        ranked: for each query its documents, with scores that fall from rank to rank.
        grades: for each query the grades of its documents.
        subtopics: the grades by subtopic, if the qrels have them.
        results: how many documents are ranked.
        tied: how many of them have the score of another.
    """

    ranked: dict[str, dict[str, float]]
    grades: dict[str, dict[str, int]]
    subtopics: list[Any]
    results: int
    tied: int


def _batches(run: Run, qrels: Qrels, ties: Ties) -> Iterator[_Batch]:
    """Yields the judged queries of a run, so many at a time that memory stays small."""
    import ir_measures

    where = {query: i for i, query in enumerate(qrels)}
    batch = _Batch({}, {}, [], 0, 0)
    for query, docs, scores in run:
        if query not in where:
            continue
        key, judged = str(where[query]), qrels[query]
        docs, tied = ordered(docs, scores, ties)
        numbers = {doc: str(i) for i, doc in enumerate(judged)}
        beyond = len(judged)
        batch.ranked[key] = {
            numbers.get(doc) or str(beyond + rank): float(len(docs) - rank)
            for rank, doc in enumerate(docs)
        }
        batch.grades[key] = {numbers[doc]: grade for doc, grade in judged.items()}
        if isinstance(qrels, DiversityQrels):
            batch.subtopics.extend(
                ir_measures.Qrel(key, numbers[doc], grade, subtopic)
                for (doc, subtopic), grade in qrels.subtopics[query].items()
            )
        batch = batch._replace(
            results=batch.results + len(docs), tied=batch.tied + int(np.count_nonzero(tied))
        )
        if batch.results >= _BATCH_ROWS:
            yield batch
            batch = _Batch({}, {}, [], 0, 0)
    if batch.ranked:
        yield batch


def ordered(docs: list[str], scores: np.ndarray, ties: Ties) -> tuple[list[str], np.ndarray]:
    """Returns a query's documents in the order that is measured, and which scores occur twice."""
    tied = _tied(scores)
    return (_by_id(docs, scores) if ties == "score" and tied.any() else docs), tied


def _tied(scores: np.ndarray) -> np.ndarray:
    """Returns which of the falling scores occur twice or more, bool."""
    equal = scores[1:] == scores[:-1]
    tied = np.zeros(len(scores), bool)
    tied[1:] |= equal
    tied[:-1] |= equal
    return tied


def _by_id(docs: list[str], scores: np.ndarray) -> list[str]:
    """Returns documents by score and then id, both descending: trec_eval's order."""
    values = scores.tolist()
    order = sorted(range(len(docs)), key=docs.__getitem__, reverse=True)
    return [docs[i] for i in sorted(order, key=values.__getitem__, reverse=True)]
