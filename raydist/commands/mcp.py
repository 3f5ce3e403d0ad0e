"""Gives language models tools that search an index, by the Model Context Protocol (MCP).

    raydist mcp index=IDX about="the handbook of ACME"
    raydist mcp index=IDX,VEC reranker=PATH port=8932

A client such as an editor or a chat program starts the first command, and talks with it over
standard input and output until it closes that input. `port=` answers over HTTP instead, at
http://127.0.0.1:PORT/mcp, for this machine alone; with `keys_file=` or RAYDIST_API_KEYS, clients
need a key. The tools are `search`; `fetch`, which reads documents by their ids; and, with
`reranker=`, `rerank`. The last two need an index with texts.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING

from raydist import extras, log, storage
from raydist.artefact import planned
from raydist.build import MULTIVECTOR
from raydist.commands.serve import check_port
from raydist.config.base import Flags
from raydist.config.mcp import McpConfig
from raydist.errors import ConfigError
from raydist.manifest import read_manifest

if TYPE_CHECKING:
    from raydist.serving.mcp import Tools

Config = McpConfig


def run(config: McpConfig, flags: Flags) -> None:
    """Answers until the input ends, SIGTERM or Ctrl-C."""
    from raydist.serving.keys import read_keys

    _, documents = _check_indexes(config)
    keys = read_keys(config.keys_file)
    if config.port is None and config.keys_file is not None:
        raise ConfigError(f"keys_file = {config.keys_file}: keys are for HTTP; give port=")
    if config.port is not None:
        check_port("127.0.0.1", config.port)
    where = f"http://127.0.0.1:{config.port}/mcp" if config.port else "standard input and output"
    names = ", ".join(config.index)
    if flags.dry_run:
        open_tools(config)  # of a server that cannot start, clients show little
    if planned(flags.dry_run, f"give tools for {names} at {where}"):
        return
    from raydist.serving.mcp import run_http, run_stdio

    with contextlib.redirect_stdout(sys.stderr):  # the other one is the client's
        tools = open_tools(config)
        server = tools.server()
    log.say(f"tools for {names} ({log.count(documents, 'document')}) at {where}")
    threading.Thread(target=tools.warm_up, name="warm-up", daemon=True).start()
    if config.port is None:
        run_stdio(server)
    else:
        run_http(server, config.port, keys)


def open_tools(config: McpConfig) -> Tools:
    """Returns the tools of a configuration, its indexes and its model open.

    Raises:
        ConfigError: an index cannot be searched by texts, or the reranker has no texts to read.
    """
    from raydist.build import open_searcher
    from raydist.reranking.load import load_reranker
    from raydist.serving.mcp import Collection, Tools

    kinds, documents = _check_indexes(config)
    searcher = open_searcher(config)
    if config.reranker is not None and not searcher.stores:
        raise ConfigError(
            f"reranker: reads the documents' texts, and {', '.join(config.index)} has none; add an "
            "index that was built with store=true"
        )
    reranker = None if config.reranker is None else load_reranker(config.reranker)
    collection = Collection(
        config.about, documents, "bow-index" in kinds, bool(kinds - {"bow-index"})
    )
    return Tools(searcher, reranker, collection, config.limits)


def _check_indexes(config: McpConfig) -> tuple[set[str], int]:
    """Returns the kinds of the indexes, and the number of documents of the largest one."""
    kinds, documents = set(), 0
    for folder in config.index:
        manifest = read_manifest(storage.local(folder), ["bow-index", "vectors", MULTIVECTOR])
        if manifest["kind"] in ("vectors", MULTIVECTOR) or manifest.get("model"):
            extras.require(f"index = {folder}", "torch", "transformers")
        if manifest.get("unit") and not manifest.get("model"):
            raise ConfigError(
                f"index = {folder}: holds weighted terms, which a query's text does not have"
            )
        kinds.add(str(manifest["kind"]))
        documents = max(documents, int(manifest["documents"]))
    return kinds, documents
