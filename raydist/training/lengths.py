"""Steps of about as many tokens each, however long the samples are.

Samples are sorted by length and cut into streams of about one length. Each stream has a batch size
of its own: as many of its longest samples as the budget holds, padding included. So the order of a
run stays what it is for any streams: a function of the seed alone, random within each length, the
lengths mixed, every sample once in a pass, the same on any number of ranks.

Shapes: n samples, k kinds of inputs.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import replace
from typing import Protocol

import numpy as np

from raydist.data.samples.sample_set import SampleSet
from raydist.disk import atomic
from raydist.errors import DataError
from raydist.fingerprints import value_fingerprint
from raydist.log import Progress
from raydist.models.backbone import resolve_folder
from raydist.models.folders.encoder import read_encoder_folder
from raydist.models.folders.reranker import check_trainable, read_reranker
from raydist.models.spec import BiEncoderSettings, CrossEncoderSettings
from raydist.models.texts.tokens import ROLES, Role, TextTokenizer
from raydist.records import Sample
from raydist.training.collate import tokens_of
from raydist.training.plan import SetPlan
from raydist.training.samplers import DataSampler, DistillationListwiseSampler, Stream, Visit

_GROWTH = 1.25
"""A stream's longest sample by its shortest, if there are enough samples."""
_BATCHES = 8
"""Batches of a stream in a pass, at least, so that samples meet others in the next pass."""
_BLOCK = 1024


class Counter(Protocol):
    """Counts the tokens of samples as a model would prepare them, without its weights.

    Attributes:
        key: of what the lengths depend on, the samples aside.
    """

    key: str

    def lengths(self, samples: Sequence[Sample], plan: SetPlan) -> np.ndarray:
        """Returns the tokens of each sample's longest input of every kind, int64 [n, k]."""
        ...

    def inputs(self, drawn_n: np.ndarray, plan: SetPlan) -> np.ndarray:
        """Returns how many inputs of every kind samples have, int64 [n, k].

        Args:
            drawn_n: documents that are drawn of each.
            plan: of their data set.
        """
        ...


def counter_of(model: BiEncoderSettings | CrossEncoderSettings) -> Counter:
    """Returns what counts the tokens of a model's inputs."""
    return TextCounter(model) if isinstance(model, BiEncoderSettings) else PairCounter(model)


class TextCounter:
    """Counts a bi-encoder's: the kinds are queries, documents and answers."""

    def __init__(self, model: BiEncoderSettings) -> None:
        """Reads the model's folder."""
        assert model.path is not None, model
        read, _ = read_encoder_folder(resolve_folder(model.path), model)
        roles: list[list[object]] = []
        self._of: dict[Role, TextTokenizer] = {}
        for role in ROLES:
            length, instruction = read.contract.max_length(role), read.contract.instruction(role)
            roles.append([length, instruction])
            self._of[role] = TextTokenizer(
                read.tokenizer, max_length=length, instruction=instruction
            )
        self.key = value_fingerprint([read.tokenizer.backend_tokenizer.to_str(), roles])

    def tokenize(
        self, texts: Sequence[str], role: Role, instruction: str | None = None
    ) -> list[list[int]]:
        """Returns each text's token ids, as the model would."""
        return self._of[role](texts, instruction)

    def lengths(self, samples: Sequence[Sample], plan: SetPlan) -> np.ndarray:
        """Returns the tokens of each query, longest document and longest answer, int64 [n, 3]."""
        prompts = [sample.prompt for sample in samples]
        queries = tokens_of(self, [sample.query for sample in samples], "query", prompts)
        texts = [text for sample in samples for text in sample.documents]
        if plan.symmetric:
            spread = [sample.prompt for sample in samples for _ in sample.documents]
            documents = tokens_of(self, texts, "query", spread)
        else:
            documents = self.tokenize(texts, "document")
        given = [(s.answer or "", *s.negative_answers) if plan.answers else () for s in samples]
        answers = self.tokenize([text for each in given for text in each], "answer")
        return np.stack(
            [
                np.array([len(ids) for ids in queries], np.int64),
                _longest(documents, [len(sample.documents) for sample in samples]),
                _longest(answers, [len(each) for each in given]),
            ],
            axis=1,
        )

    def inputs(self, drawn_n: np.ndarray, plan: SetPlan) -> np.ndarray:
        """Returns a query, the drawn documents and the answers, int64 [n, 3]."""
        return np.stack([np.ones_like(drawn_n), drawn_n, np.full_like(drawn_n, plan.answers)], 1)


class PairCounter:
    """Counts a cross-encoder's: pairs are the only kind."""

    def __init__(self, model: CrossEncoderSettings) -> None:
        """Reads the model's folder."""
        assert model.path is not None, model
        read = read_reranker(resolve_folder(model.path), model, fresh_head=True)
        check_trainable(read.chat, model.path)
        self._tokenize = read.pair_tokenizer()
        contract = read.contract
        reads = [contract.document_max_length, contract.query_max_length]
        backend = read.tokenizer.backend_tokenizer.to_str()
        self.key = value_fingerprint([backend, reads, contract.query_instruction])

    def lengths(self, samples: Sequence[Sample], plan: SetPlan) -> np.ndarray:
        """Returns the tokens of each sample's longest pair, int64 [n, 1]."""
        texts = [text for sample in samples for text in sample.documents]
        queries = [sample.query for sample in samples for _ in sample.documents]
        pairs = self._tokenize(queries, texts)
        return _longest(pairs, [len(sample.documents) for sample in samples])[:, None]

    def inputs(self, drawn_n: np.ndarray, plan: SetPlan) -> np.ndarray:
        """Returns the number of each sample's pairs, int64 [n, 1]."""
        return drawn_n[:, None]


def budgeted(plan: SetPlan, counter: Counter, budget: int, processes: int) -> SetPlan:
    """Returns a data set's plan with batches of at most so many tokens.

    Args:
        plan: of a data set, its streams of one batch size.
        counter: of the model's tokens.
        budget: tokens of a step over all ranks and parts, padding included.
        processes: ranks times accumulation parts: each needs a sample.

    Raises:
        DataError: samples are too long for the budget.
    """
    (whole,) = plan.streams
    samples = SampleSet(plan.folder, prompt=plan.prompt, lazy=True)
    lengths_nk = measured(plan, samples, counter)
    drawn_n = plan.sampler.drawn(samples.sizes_n2, samples.facts.labels)
    counts_nk = counter.inputs(drawn_n, plan)
    streams = cut(lengths_nk, counts_nk, budget, whole.weight, processes)
    fewest = min(streams, key=lambda stream: stream.batch_size)
    if fewest.batch_size < processes:
        longest = _most(lengths_nk[fewest.subset], counts_nk[fewest.subset])
        raise DataError(
            f"batch_tokens = {budget}: {plan.name} has samples of {longest:,} tokens, and each of "
            f"{processes} workers and accumulation parts needs one in every step: expected at "
            f"least {longest * processes}, or lower model.document_max_length"
        )
    return replace(plan, streams=tuple(streams))


def cut(
    lengths_nk: np.ndarray,
    counts_nk: np.ndarray,
    budget: int,
    weight: float = 1.0,
    fewest: int = 1,
) -> list[Stream]:
    """Returns streams of samples of about one length, the longest first.

    Samples of about as many inputs are cut by themselves, if there are several batches of them: few
    long documents beside many short ones would be padding for the most part.

    Args:
        lengths_nk: tokens of each sample's longest input of k kinds (query, documents, answers);
            inputs are padded to the longest of their own kind.
        counts_nk: how many inputs of each kind it has.
        budget: tokens of a batch; a batch size of 0 stands for a longer sample.
        weight: passes in an epoch.
        fewest: samples of a batch where the data has not as many; otherwise none is repeated in it.
    """

    def few(rows: np.ndarray) -> bool:
        return len(rows) < _BATCHES * (budget // _most(lengths_nk[rows], counts_nk[rows]))

    sizes_n = np.floor(np.log(counts_nk.sum(1)) / np.log(_GROWTH))
    groups: list[np.ndarray] = []
    for size in np.unique(sizes_n)[::-1]:
        rows = np.flatnonzero(sizes_n == size)
        if groups and (few(groups[-1]) or few(rows)):
            both = np.concatenate([groups[-1], rows])
            if _most(lengths_nk[both], counts_nk[both]) * fewest <= budget:
                groups[-1] = both
                continue
        groups.append(rows)
    return [
        stream
        for rows in groups
        for stream in _cut(lengths_nk, counts_nk, np.sort(rows), budget, weight, fewest)
    ]


def _cut(
    lengths_nk: np.ndarray,
    counts_nk: np.ndarray,
    rows: np.ndarray,
    budget: int,
    weight: float,
    fewest: int,
) -> list[Stream]:
    totals_n = (lengths_nk * counts_nk).sum(1)
    order = rows[np.argsort(-totals_n[rows], kind="stable")]
    streams = []
    start = 0
    while start < len(order):
        limit = totals_n[order[start]] / _GROWTH
        stop = int(np.searchsorted(-totals_n[order], -limit, "right"))
        most = budget // int(totals_n[order[start]])
        stop = max(stop, start + _BATCHES * most)
        if len(order) - stop < _BATCHES * most:
            stop = len(order)
        subset = np.sort(order[start:stop])
        longest = _most(lengths_nk[subset], counts_nk[subset])
        size = min(budget // longest, max(len(subset), fewest))
        streams.append(Stream(len(subset), size, weight, subset=subset))
        start = stop
    return streams


def _most(lengths_nk: np.ndarray, counts_nk: np.ndarray) -> int:
    """Returns the most tokens of a sample in a batch of some."""
    return int((lengths_nk.max(0) * counts_nk.max(0)).sum())


def measured(plan: SetPlan, samples: SampleSet, counter: Counter) -> np.ndarray:
    """Returns the tokens of each sample's longest input of every kind, int64 [n, k].

    They are kept beside the prepared samples.
    """
    reads = [samples.facts.key, plan.prompt, plan.symmetric, plan.answers > 0]
    key = value_fingerprint([counter.key, *reads, getattr(plan.sampler, "top_k", 0)])
    file = plan.folder / f"lengths-{key}.npy"
    if file.exists():
        lengths_nk: np.ndarray = np.load(file)
        return lengths_nk
    blocks = []
    with Progress("count tokens", len(samples), "sample") as progress:
        for start in range(0, len(samples), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(samples)))
            block = [_reached(plan.sampler, samples[row]) for row in rows]
            blocks.append(counter.lengths(samples.fill(block), plan))
            progress.advance(len(rows))
    lengths_nk = np.concatenate(blocks)
    with atomic(file) as unfinished, open(unfinished, "wb") as out:
        np.save(out, lengths_nk)
    return lengths_nk


def _reached(sampler: DataSampler, sample: Sample) -> Sample:
    """Returns a sample with the documents that a sampler draws sooner or later."""
    if not isinstance(sampler, DistillationListwiseSampler):
        return sample
    whole = replace(sampler, size=0)(replace(sample, targets=None), Visit(0, 0))
    assert whole is not None, sample
    return replace(whole, others=())


def _longest(ids: Sequence[Sized], sizes: Sequence[int]) -> np.ndarray:
    """Returns the length of the longest text of each sample, 0 where it has none."""
    lengths = iter(ids)
    return np.array(
        [max((len(next(lengths)) for _ in range(size)), default=0) for size in sizes], np.int64
    )
