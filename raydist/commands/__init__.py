"""The verbs of the command line: one module each, one story, read top to bottom."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from raydist import extras
from raydist.errors import ConfigError

VERBS = {
    "index": "build a bag-of-words index of a corpus",
    "merge": "rewrite an index or vectors without deleted documents, in as many segments as asked",
    "verify": "read and check a whole output",
    "status": "say what an output is: complete or not, from what, how large",
    "inspect": "show what an index knows of itself, of a term, or of a document",
    "ls": "list the outputs in a folder",
    "diff": "compare the configurations of two outputs",
    "analyze": "show the tokens of a text",
    "search": "search one index or several, fused",
    "evaluate": "measure runs against relevance judgements",
    "benchmark": "run systems on collections and compare them in one table",
    "reproduce": "measure published figures again",
    "embed": "turn a corpus into vectors, add documents to them, or take some out",
    "mine": "write hard negatives for training",
    "train": "train a bi-encoder",
    "tune": "train bi-encoders of drawn configurations and keep the best",
    "distill": "train a reranker or bi-encoder from a teacher's rankings",
    "score": "score a run's documents with a teacher",
    "rerank": "reorder a run",
    "export": "write a Hugging Face folder with its model card",
    "convert": "convert runs, samples and indexes",
    "serve": "serve reranking, embeddings and search over HTTP",
    "mcp": "give language models tools that search an index (MCP)",
    "load": "measure a running service under load",
    "pipeline": "run a file of verbs in order, skipping what is complete",
    "submit": "run a verb on a cluster as a Ray job",
    "doctor": "say what this machine or cluster can run",
    "tracking": "send the local record of a run to MLflow",
    "quickstart": "index, search and measure a small corpus that needs no download",
    "fields": "print every key of a verb",
    "completion": "print a shell's completion script",
}

_NEEDS = {
    **dict.fromkeys(("train", "distill", "embed", "score", "export"), ("torch", "transformers")),
    "tune": ("torch", "transformers", "ray"),
    "serve": ("fastapi", "ray"),
    "load": ("httpx",),
    "mcp": ("mcp",),
    "submit": ("ray", "httpx"),
    "tracking": ("mlflow",),
}
"""The packages beyond the core that a verb cannot do without."""


def check_packages(verb: str, config: Any = None) -> None:
    """Raises ConfigError if a package is missing that a verb needs, as it is configured."""
    extras.require(f"raydist {verb}", *_NEEDS.get(verb, ()))
    for key in ("workers", "shards"):
        if number := getattr(config, key, 0):
            extras.require(f"{key} = {number}", "ray")
    for key in ("reranker", "teacher"):
        kind = getattr(getattr(config, key, None), "kind", "bm25")
        if kind != "bm25":
            extras.require(f"{key}.kind = {kind}", "torch", "transformers")
    for name, each in getattr(config, "rerankers", {}).items():
        if each.kind != "bm25":
            extras.require(f"rerankers.{name}.kind = {each.kind}", "torch", "transformers")
    if getattr(config, "embedder", None) is not None:
        extras.require(f"embedder = {config.embedder.path}", "torch", "transformers")
    for key in ("figures", "out") if verb == "evaluate" else ():
        if value := getattr(config, key):
            extras.require(f"{key} = {value}", "matplotlib")
    if getattr(config, "full", False):
        extras.require("full = true", "torch", "transformers")
    uri = getattr(getattr(config, "tracking", None), "uri", "none")
    if uri not in ("auto", "none", ""):
        extras.require(f"tracking.uri = {uri}", "mlflow")


def check_verb(verb: str) -> None:
    """Raises ConfigError for an unknown verb, with the nearest known one."""
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, [*VERBS, "help"], 1)
        hint = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
        raise ConfigError(f"{verb}: unknown verb; {hint}")


def check_flags(module: ModuleType, flags: Iterable[str]) -> None:
    """Raises ConfigError for a flag that a verb would ignore.

    A verb's module names the flags that it acts on as `FLAGS`; most act on `--dry-run` alone.
    """
    verb = module.__name__.rpartition(".")[2]
    taken = getattr(module, "FLAGS", ("--dry-run",))
    for flag in flags:
        if flag not in taken:
            others = f"it takes {', '.join(taken)}" if taken else "it takes none"
            raise ConfigError(f"{flag}: {verb} has no such flag; {others}")
