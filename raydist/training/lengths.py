"""Steps of about as many tokens each, however long the samples are.

Samples are sorted by length and cut into streams of about one length. Each stream has a batch size
of its own: as many of its longest samples as the budget holds, padding included. So the order of a
run stays what it is for any streams: a function of the seed alone, random within each length, the
lengths mixed, every sample once in a pass, the same on any number of ranks.

Shapes: n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from raydist.data.samples.sample_set import SampleSet
from raydist.disk import atomic
from raydist.errors import DataError
from raydist.fingerprints import value_fingerprint
from raydist.log import Progress
from raydist.models.backbone import resolve_folder
from raydist.models.folder import read_folder
from raydist.models.spec import BiEncoderSettings
from raydist.models.tokens import ROLES, Role, TextTokenizer
from raydist.training.collate import tokens_of
from raydist.training.plan import SetPlan
from raydist.training.samplers import GroupSampler, Stream

_GROWTH = 1.25
"""A stream's longest sample by its shortest, if there are enough samples."""
_BATCHES = 8
"""Batches of a stream in a pass, at least, so that samples meet others in the next pass."""
_BLOCK = 1024


class Tokenizers:
    """A bi-encoder's text preparation without its weights."""

    def __init__(self, model: BiEncoderSettings) -> None:
        """Reads the model's folder."""
        assert model.path is not None, model
        read = read_folder(resolve_folder(model.path), model)
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


def budgeted(plan: SetPlan, tokenizers: Tokenizers, budget: int, processes: int) -> SetPlan:
    """Returns a data set's plan with batches of at most so many tokens.

    Args:
        plan: of a contrastive data set, its streams of one batch size.
        tokenizers: of the model.
        budget: tokens of a step over all ranks and parts, padding included.
        processes: ranks times accumulation parts: each needs a sample.

    Raises:
        DataError: samples are too long for the budget.
    """
    (whole,) = plan.streams
    assert isinstance(plan.sampler, GroupSampler), plan.sampler
    lengths_n3 = measured(plan, tokenizers)
    each = np.array([1, plan.sampler.size, plan.answers])
    streams = cut(lengths_n3 * each, budget, whole.weight, processes)
    fewest = min(streams, key=lambda stream: stream.batch_size)
    if fewest.batch_size < processes:
        longest = int((lengths_n3[fewest.subset] * each).max(0).sum())
        raise DataError(
            f"batch_tokens = {budget}: {plan.name} has samples of {longest:,} tokens, and each of "
            f"{processes} workers and accumulation parts needs one in every step: expected at "
            f"least {longest * processes}, or lower model.document_max_length"
        )
    return replace(plan, streams=tuple(streams))


def cut(tokens_nk: np.ndarray, budget: int, weight: float = 1.0, fewest: int = 1) -> list[Stream]:
    """Returns streams of samples of about one length, the longest first.

    Args:
        tokens_nk: tokens of each sample's k inputs (query, documents, answers), which are padded
            to the longest of their own kind.
        budget: tokens of a batch; a batch size of 0 stands for a longer sample.
        weight: passes in an epoch.
        fewest: samples of a batch where the data has not as many; otherwise none is repeated in it.
    """
    totals_n = tokens_nk.sum(1)
    order = np.argsort(-totals_n, kind="stable")
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
        longest = int(tokens_nk[subset].max(0).sum())
        size = min(budget // longest, max(len(subset), fewest))
        streams.append(Stream(len(subset), size, weight, subset=subset))
        start = stop
    return streams


def measured(plan: SetPlan, tokenizers: Tokenizers) -> np.ndarray:
    """Returns the tokens of each sample's query, longest document and longest answer, int64 [n, 3].

    They are kept beside the prepared samples.
    """
    samples = SampleSet(plan.folder, prompt=plan.prompt, lazy=True)
    reads = [samples.facts.key, plan.prompt, plan.symmetric, plan.answers > 0]
    key = value_fingerprint([tokenizers.key, *reads])
    file = plan.folder / f"lengths-{key}.npy"
    if file.exists():
        lengths_n3: np.ndarray = np.load(file)
        return lengths_n3
    blocks = []
    with Progress("count tokens", len(samples), "sample") as progress:
        for start in range(0, len(samples), _BLOCK):
            rows = range(start, min(start + _BLOCK, len(samples)))
            blocks.append(_block(plan, tokenizers, samples, rows))
            progress.advance(len(rows))
    lengths_n3 = np.concatenate(blocks)
    with atomic(file) as unfinished:
        _save(unfinished, lengths_n3)
    return lengths_n3


def _save(path: Path, lengths_n3: np.ndarray) -> None:
    with open(path, "wb") as out:
        np.save(out, lengths_n3)


def _block(
    plan: SetPlan, tokenizers: Tokenizers, samples: SampleSet, rows: Sequence[int]
) -> np.ndarray:
    block = samples.fill([samples[row] for row in rows])
    prompts = [sample.prompt for sample in block]
    queries = tokens_of(tokenizers, [sample.query for sample in block], "query", prompts)
    texts = [text for sample in block for text in sample.documents]
    if plan.symmetric:
        spread = [sample.prompt for sample in block for _ in sample.documents]
        documents = tokens_of(tokenizers, texts, "query", spread)
    else:
        documents = tokenizers.tokenize(texts, "document")
    given = [(s.answer or "", *s.negative_answers) if plan.answers else () for s in block]
    answers = tokenizers.tokenize([text for each in given for text in each], "answer")
    return np.stack(
        [
            np.array([len(ids) for ids in queries], np.int64),
            _longest(documents, [len(sample.documents) for sample in block]),
            _longest(answers, [len(each) for each in given]),
        ],
        axis=1,
    )


def _longest(ids: Sequence[Sequence[int]], sizes: Sequence[int]) -> np.ndarray:
    """Returns the length of the longest text of each sample, 0 where it has none."""
    lengths = iter(ids)
    return np.array(
        [max((len(next(lengths)) for _ in range(size)), default=0) for size in sizes], np.int64
    )
