"""The model card: a model's kind, its use, its training and its measures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import yaml

from raydist.exporting.provenance import Provenance, Table
from raydist.models.folders.contract import Contract


def model_card(
    about: Provenance,
    contract: Contract,
    *,
    name: str,
    dimension: int = 0,
    doc: str = "",
    bibtex: str = "",
    base_model: str = "",
) -> str:
    """Returns the card as Markdown with YAML front matter; the same facts give the same bytes.

    Of the training configuration it leaves out where outputs went; absolute paths are shortened to
    their last part, and addresses lose their credentials.

    Args:
        about: where the model comes from.
        contract: how it prepares texts.
        name: the model's name, `owner/name` on a hub.
        dimension: length of its vectors, for a bi-encoder.
        doc: its author's description, Markdown.
        bibtex: how to cite it.
        base_model: hub name of the model that it was trained from.
    """
    bi = not contract.pairs
    sparse = contract.kind == "sparse"
    kind = ("sparse-encoder" if sparse else "bi-encoder") if bi else "cross-encoder"
    task = ("feature-extraction" if sparse else "sentence-similarity") if bi else "text-ranking"
    front: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": task,
        "tags": ["sentence-transformers", "raydist", kind],
    }
    if base_model:
        front["base_model"] = base_model
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {name}",
        doc.strip(),
        _what(contract, dimension) if bi else _what_pairs(contract),
        "## Usage",
        _usage(name, contract) if bi else _usage_pairs(name, contract),
        *_results(about),
        *_training(about),
    ]
    if bibtex.strip():
        parts += ["## Citation", f"```bibtex\n{bibtex.strip()}\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(contract: Contract, dimension: int) -> str:
    if contract.kind == "sparse":
        return _what_sparse(contract, dimension)
    towers = (
        "one encoder" if contract.towers == 1 else "separate encoders for queries and documents"
    )
    measure = "cosine" if contract.normalize else "inner product"
    if contract.kind == "multivector":
        return _what_tokens(contract, dimension)
    rows = [
        ("Architecture", f"bi-encoder, {towers}"),
        ("Vectors", f"{dimension} dimensions, compared by {measure}"),
        ("Pooling", contract.pooling + (", then normalised" if contract.normalize else "")),
        ("Query", _role(contract.query_max_length, contract.query_instruction)),
        ("Document", _role(contract.document_max_length, contract.document_instruction)),
    ]
    if contract.dimensions:
        rows.append(("Matryoshka dimensions", ", ".join(map(str, contract.dimensions))))
    return _rows(("", ""), rows)


def _what_tokens(contract: Contract, dimension: int) -> str:
    filled = f", filled up to {contract.expansion}" if contract.expansion else ""
    rows = [
        ("Architecture", "multi-vector (late interaction): a vector for each token"),
        ("Vectors", f"{dimension} dimensions, compared by MaxSim"),
        ("Query", _role(contract.query_max_length, contract.query_instruction) + filled),
        ("Document", _role(contract.document_max_length, contract.document_instruction)),
    ]
    if contract.token_pooling > 1:
        rows.append(("Token pooling", f"one vector of {contract.token_pooling:g}"))
    return _rows(("", ""), rows)


def _what_sparse(contract: Contract, dimension: int) -> str:
    queries = {
        "transformer": "the same" if contract.towers == 1 else "an encoder of their own",
        "table": "a table of learned weights, without a transformer",
        "fixed": "a table of fixed weights, without a transformer",
    }
    saturation = "log(1 + x)" if contract.saturation == "log1p" else "log(1 + log(1 + x))"
    rows = [
        ("Architecture", "sparse encoder (SPLADE)"),
        ("Weights", f"of {dimension} terms, compared by inner product"),
        ("Pooling", f"{contract.pooling} of {saturation} over the tokens"),
        ("Queries", queries[contract.query_encoder]),
        ("Query", _role(contract.query_max_length, contract.query_instruction)),
        ("Document", _role(contract.document_max_length, contract.document_instruction)),
    ]
    for role in ("query", "document"):
        if terms := contract.terms(role):
            rows.append((f"Terms of a {role}", f"the {terms} heaviest"))
    return _rows(("", ""), rows)


def _role(length: int, instruction: str) -> str:
    return f"{length} tokens" + (f", after `{instruction}`" if instruction else "")


def _what_pairs(contract: Contract) -> str:
    cut = f"query up to {contract.query_max_length}" if contract.query_max_length else ""
    length = f"{contract.document_max_length} tokens of query and document together"
    rows = [
        ("Architecture", "cross-encoder, one score for a query and a document"),
        ("Length", ", ".join(filter(None, [length, cut]))),
        ("Score", "logit" if contract.activation == "identity" else "sigmoid of the logit"),
    ]
    return _rows(("", ""), rows)


def _usage(name: str, contract: Contract) -> str:
    note = "The instructions are saved with the model; do not add them yourself."
    instructed = contract.query_instruction or contract.document_instruction
    models = {"sparse": "SparseEncoder", "multivector": "MultiVectorEncoder"}
    model = models.get(contract.kind, "SentenceTransformer")
    score = (
        "model.similarity(queries, documents)"
        if contract.kind in models
        else "queries @ documents.T"
    )
    return "\n".join(
        [
            "```python",
            f"from sentence_transformers import {model}",
            "",
            f"model = {model}({name!r})",
            'queries = model.encode_query(["what is a vector?"])',
            'documents = model.encode_document(["A vector has a length and a direction."])',
            f"scores = {score}",
            "```",
            "",
            "With raydist:",
            "",
            "```",
            f"raydist embed corpus=corpus.jsonl model={name} out=vectors",
            "raydist search index=vectors queries=queries.jsonl k=1000 out=run.txt",
            "```",
            *(["", note] if instructed else []),
        ]
    )


def _usage_pairs(name: str, contract: Contract) -> str:
    note = (
        f"raydist cuts queries to {contract.query_max_length} tokens, sentence-transformers does "
        "not: cut longer ones yourself for the same scores."
    )
    return "\n".join(
        [
            "```python",
            "from sentence_transformers import CrossEncoder",
            "",
            f"model = CrossEncoder({name!r})",
            'scores = model.predict([("what is a vector?", "A vector has a length.")])',
            "```",
            "",
            "With raydist:",
            "",
            "```",
            f"raydist rerank run=run.txt corpus=corpus.jsonl queries=queries.jsonl reranker={name} "
            "depth=100 out=reranked.txt",
            "```",
            *(["", note] if contract.query_max_length else []),
        ]
    )


def _results(about: Provenance) -> list[str]:
    if not about.tables:
        return []
    parts = ["## Results"]
    for table in about.tables:
        chosen = f", chosen by {table.chose}" if table.chose else ""
        parts.append(f"Validation `{table.listener}`, step {table.step:,}{chosen}:")
        parts.append(_values(table))
    return parts


def _values(table: Table) -> str:
    names = list(table.values)
    if not table.baseline:
        return _rows(("measure", "value"), [(n, f"{table.values[n]:.4f}") for n in names])
    rows = [
        (n, f"{table.baseline[n]:.4f}" if n in table.baseline else "", f"{table.values[n]:.4f}")
        for n in names
    ]
    return _rows(("measure", "before training", "this model"), rows)


def _training(about: Provenance) -> list[str]:
    parts = []
    if about.inputs:
        rows = [(f"`{name}`", f"`{digest}`") for name, digest in sorted(about.inputs.items())]
        parts += ["Fingerprints of the data:", _rows(("input", "content"), rows)]
    if about.config:
        config = yaml.safe_dump(_public(about.config), sort_keys=False, allow_unicode=True)
        parts += ["Configuration:", f"```yaml\n{config}```"]
    chosen = {k: v for k, v in about.settings.items() if k in ("listener", "key", "value", "step")}
    if chosen:
        settings = yaml.safe_dump(chosen, sort_keys=False)
        parts += ["Validation settings of this checkpoint:", f"```yaml\n{settings}```"]
    if about.versions:
        versions = ", ".join(f"{name} {version}" for name, version in about.versions.items())
        parts.append(f"Made with {versions}.")
    return ["## Training", *parts] if parts else []


_OWN = ("out", "storage", "tracking")
"""Fields that say where a run's outputs went: private."""


def _public(value: Any) -> Any:
    """Leaves out empty values, and paths and addresses, which reveal machine and owner."""
    if isinstance(value, Mapping):
        items = {n: _public(v) for n, v in value.items() if v is not None and n not in _OWN}
        return {name: item for name, item in items.items() if item not in ({}, [])}
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    if isinstance(value, str) and re.match(r"/|~|file:|sqlite:", value):
        return PurePath(value).name
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]*://", value):
        return re.sub(r"://[^/@]*@", "://", value.split("?")[0])  # no user, password or token
    return value


def _rows(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )
