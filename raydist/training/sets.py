"""From a data set's facts to how it is trained on: group size, answers, batch size, its sampler.

What the user left open follows from the facts, and is said; what cannot work is an error before
anything expensive starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydist.data.samples.sample_set import SampleFacts
from raydist.errors import ConfigError, DataError
from raydist.training.samplers import (
    DistillationListwiseSampler,
    DistillationNegativesSampler,
    GroupSampler,
    Stream,
)
from raydist.training.source import Sampler

DEFAULT_GROUP = 8

_SYMMETRIC = ("symmetric_sts", "symmetric_clustering")
"""Types whose documents are encoded as queries, as FlagEmbedding does."""


@dataclass(frozen=True, slots=True)
class SetPlan:
    """One data set of a run, decided; JSON-able but for the sampler.

    Attributes:
        name: of the data set.
        folder: its prepared folder.
        stream: what the global order needs to know.
        sampler: draws a sample's documents.
        prompt: instruction of queries that bring none.
        targets: whether batches carry teacher targets.
        answers: A, answers of a sample in a batch; 0 for none.
        answer_targets: whether batches carry teacher scores of answers.
        no_in_batch: only a sample's own documents are negatives.
        symmetric: documents are encoded as queries.
        notes: what the user should know.
    """

    name: str
    folder: Path
    stream: Stream
    sampler: Sampler
    prompt: str | None = None
    targets: bool = False
    answers: int = 0
    answer_targets: bool = False
    no_in_batch: bool = False
    symmetric: bool = False
    notes: tuple[str, ...] = ()


def plan_groups(
    facts: SampleFacts,
    folder: Path,
    *,
    batch_size: int,
    group: int | None,
    teacher: bool,
    answers: bool,
    set_batch_size: int | None = None,
    weight: float = 1.0,
    prompt: str | None = None,
    no_in_batch: bool | None = None,
) -> SetPlan:
    """Returns the plan of a contrastive data set.

    Args:
        facts: of the prepared data.
        folder: where it is.
        batch_size: of the run, over all ranks.
        group: G asked for; None follows the data (8, or 1 without any negatives).
        teacher: teacher scores are used where the data has them.
        answers: answers are used where the data has them.
        set_batch_size: this data set's own batch size.
        weight: passes of an epoch.
        prompt: instruction of its queries.
        no_in_batch: None follows the file's name (`…no_in_batch_neg.jsonl`).

    Raises:
        DataError: G needs negatives that the data has not.
    """
    notes: list[str] = []
    size = group or facts.overrides.get("train_group_size")
    fewest, most = facts.fewest_negatives, max(facts.negatives, default=0)
    if facts.kind == "only_1neg":
        size = 2
    elif facts.kind == "symmetric_class":
        size = min(size or DEFAULT_GROUP, fewest + 1)
    elif size is None:
        size = DEFAULT_GROUP if most else 1
        if not most:
            notes.append("no negatives: only the other samples' positives are negatives (G = 1)")
    if size > 1 and fewest < 1:
        raise DataError(
            f"{facts.without_negatives}: a sample without negatives, which train_group_size = "
            f"{size} needs; give it some, set train_group_size=1, or skip such samples with "
            "train_group_size given and on_bad=skip"
        )
    few = sum(count for n, count in facts.negatives.items() if n < size - 1)
    if few and size > 1:
        notes.append(
            f"{few} of {facts.rows} samples have fewer than {size - 1} negatives: repeated"
        )
    used = facts.answers and answers
    answer_group = 0
    if used:
        answer_group = 1 + min(facts.negative_answers, max(0, size - 1))
    name = Path(facts.files[0]).name if facts.files else ""
    alone = Path(name).stem.endswith("no_in_batch_neg") if no_in_batch is None else no_in_batch
    own = set_batch_size or facts.overrides.get("batch_size") or batch_size
    if facts.rows < own:
        notes.append(f"{facts.rows} samples fill a batch of {own} several times over")
    return SetPlan(
        facts.name,
        folder,
        Stream(facts.rows, own, weight),
        GroupSampler(size, answer_group),
        prompt,
        targets=facts.scores and teacher,
        answers=answer_group,
        answer_targets=used and facts.answer_scores and teacher,
        no_in_batch=alone,
        symmetric=facts.kind in _SYMMETRIC,
        notes=tuple(notes),
    )


def plan_lists(
    facts: SampleFacts,
    folder: Path,
    *,
    batch_size: int,
    sampler: Mapping[str, Any],
    set_batch_size: int | None = None,
    weight: float = 1.0,
    prompt: str | None = None,
) -> SetPlan:
    """Returns the plan of a data set of lists, for distillation.

    Args:
        facts: of the prepared data.
        folder: where it is.
        batch_size: lists in a step, over all ranks.
        sampler: `kind` (listwise, negatives) and its fields.
        set_batch_size: this data set's own batch size.
        weight: passes of an epoch.
        prompt: instruction of its queries.

    Raises:
        ConfigError: the sampler needs judgements that are not there.
    """
    draw: Sampler
    fields = {name: value for name, value in sampler.items() if name != "kind"}
    if sampler["kind"] == "negatives":
        if not facts.labels and facts.format in ("lists", "pairs"):
            raise ConfigError("sampler.kind = negatives: needs qrels=PATH to tell positives")
        draw = DistillationNegativesSampler(**fields)
    else:
        draw = DistillationListwiseSampler(**fields)
    own = set_batch_size or facts.overrides.get("batch_size") or batch_size
    stream = Stream(facts.rows, own, weight)
    return SetPlan(facts.name, folder, stream, draw, prompt, targets=facts.scores)
