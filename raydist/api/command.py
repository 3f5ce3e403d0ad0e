"""A verb as a function: the same configuration, the same command, the same errors."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raydist.api.spool import Spool
from raydist.errors import JobError, RaydistError

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""YAML files."""


@contextlib.contextmanager
def spoken_errors(what: str = "raydist") -> Iterator[None]:
    """Makes errors speak of objects and URIs instead of the paths of their copies.

    A package that is missing is named with the extra that installs it.

    Args:
        what: is done in the block.
    """
    from raydist import extras, log

    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or extras.extra_of(error.name) is None:
            raise
        raise extras.missing(error.name, what) from None
    except RaydistError as error:
        error.args = (log.spoken(str(error)),)
        raise


def configure(
    verb: str, files: Sequence[str | Mapping[str, Any]], keys: Mapping[str, Any], spool: Spool
) -> Any:
    """Returns a verb's configuration from YAML files and keys, its objects written by `spool`.

    Raises:
        ConfigError: with one line per mistake.
    """
    from raydist.config.load import load

    module = importlib.import_module(f"raydist.commands.{verb}")
    return load(module.Config, [*files, spool.plain(keys)])


def run(
    verb: str,
    keys: Mapping[str, Any],
    config: Files = (),
    *,
    append: bool = False,
    resume: bool = False,
    **observers: Any,
) -> Any:
    """Runs a verb as the command line does, and returns its configuration.

    Args:
        verb: such as `index`.
        keys: its keys, nested as mappings; those that are None are left out.
        config: YAML files, over which the keys are laid.
        append: `--append`.
        resume: `--resume`.
        observers: further arguments of the command's `run`.

    Raises:
        RaydistError: as for the verb.
    """
    from functools import partial
    from types import SimpleNamespace

    from raydist.cli import execute
    from raydist.commands import check_packages
    from raydist.config.base import Flags
    from raydist.config.load import read_yaml

    with spoken_errors(f"raydist.{verb}"):
        module = importlib.import_module(f"raydist.commands.{verb}")
        layers: list[str | Mapping[str, Any]] = [read_yaml(file) for file in _names(config)]
        keys = {name: value for name, value in keys.items() if value is not None}
        with Spool(_place([*layers, keys])) as spool:
            checked = configure(verb, layers, keys, spool)
            check_packages(verb, checked)
            command = partial(module.run, **observers) if observers else module.run
            flags = Flags(append=append, resume=resume)
            later = getattr(module, "ON_DEMAND", ())
            code = execute(SimpleNamespace(run=command, ON_DEMAND=later), checked, flags)
    if code:
        raise JobError(f"{verb}: failed; the messages above say why")
    return checked


def place_of(config: Any) -> str:
    """Returns where the output of a configuration lies: its path or URI."""
    from raydist import storage

    return storage.resolve(config.out, config.storage)


def _names(files: Files) -> list[str]:
    return [os.fspath(f) for f in ([files] if isinstance(files, str | os.PathLike) else files)]


def _place(layers: Sequence[Any]) -> str | None:
    """Returns where the output will lie, None if there is none, or no legal one."""
    from raydist import storage

    values: dict[str, Any] = {}
    for layer in layers:
        values |= layer
    out = values.get("out")
    if not isinstance(out, str | os.PathLike) or not os.fspath(out):
        return None
    root = values.get("storage")
    return storage.resolve(out, root if isinstance(root, str) else None)
