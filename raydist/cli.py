"""The command line: `raydist VERB FILE... [key=value...] [--print] [--dry-run]`.

Each verb is one module of `raydist.commands`, with its configuration `Config` and its `run`.
Nothing heavy is imported before the arguments have been checked.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from raydist import extras, log
from raydist.commands import VERBS, check_flags, check_packages, check_verb
from raydist.errors import ConfigError, JobError, RaydistError

WORD_VERBS = ("fields", "completion", "submit", "tracking", "pipeline")
_FLAGS = {
    "--print": "show the resolved configuration and stop",
    "--dry-run": "check configuration and inputs, show what would be written, start nothing",
    "--resume": "continue an interrupted run of the same configuration",
    "--append": "add to an existing output",
    "--help": "show this help, or the keys of a verb; also -h",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 1 for a failure, 2 for a mistake."""
    words = list(sys.argv[1:] if argv is None else argv)
    log.is_program = argv is None and words[:1] != ["serve"]  # a service's log is Ray's
    if argv is None:
        atexit.register(gc.freeze)  # at exit Python would look at a million objects: 0.3 s
    try:
        for word in words:
            if not word.isascii() and not _is_utf8(word):
                raise ConfigError(f"{word!a}: is not UTF-8; rename the file, or the folder")
        return _run(words)
    except ModuleNotFoundError as error:
        if error.name is None or extras.extra_of(error.name) is None:
            raise
        return _explain(extras.missing(error.name, f"raydist {' '.join(words[:1])}"))
    except RaydistError as error:
        return _explain(error)
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130


def _explain(error: RaydistError) -> int:
    log.error(error)
    if isinstance(error, JobError) and (file := log.diverted()) is not None:
        log.say(f"what Ray says: {file}")
    return error.exit_code


def _is_utf8(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:  # Python has kept the bytes of the command line
        return False
    return True


def _run(words: list[str]) -> int:
    if words[:2] == ["completion", "words"]:  # of another line, with flags of its own
        return _word_verb(words[0], words[1:], [])
    words = ["--help" if word == "-h" else word for word in words]
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    flags = [word for word in words if word.startswith("--")]
    rest = [word for word in words if not word.startswith("--")]
    for flag in flags:
        if flag == "--version":
            from raydist import __version__

            print(f"raydist {__version__}")
            return 0
        if flag not in _FLAGS:
            legal = ", ".join(_FLAGS)
            raise ConfigError(
                f"{flag}: unknown flag; the flags are {legal}; everything else is key=value"
            )
    if not rest:
        print(_overview())
        return 0 if "--help" in flags or not words else 2
    verb, rest = rest[0], rest[1:]
    check_verb(verb)
    if verb in WORD_VERBS:  # these take words as well as keys
        return _word_verb(verb, rest, flags)
    return _config_verb(verb, rest, flags)


def _config_verb(verb: str, rest: list[str], flags: list[str]) -> int:
    module = importlib.import_module(f"raydist.commands.{verb}")
    if "--help" in flags:
        from raydist.commands.fields import show

        print(f"raydist {verb}: {VERBS[verb]}\n\n{(module.__doc__ or '').strip()}\n")
        show(module.Config, once=True)
        return 0
    from raydist.config.base import Flags
    from raydist.config.load import load, split_words

    check_flags(module, [flag for flag in flags if flag != "--print"])
    config = load(module.Config, *split_words(module.Config, rest))
    if "--print" in flags:
        import yaml

        print(yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True), end="")
        return 0
    check_packages(verb, config)
    return execute(
        module,
        config,
        Flags(dry_run="--dry-run" in flags, resume="--resume" in flags, append="--append" in flags),
    )


def execute(module: Any, config: Any, flags: Any) -> int:
    """Runs a command, with its output below the storage root or on an object store."""
    from raydist.config.base import Verb
    from raydist.config.inputs import find_inputs
    from raydist.disk import disk_errors

    if not isinstance(config, Verb) or not getattr(config, "out", None):
        with disk_errors("a file"):
            return int(module.run(config, flags) or 0)
    from raydist import storage

    out = storage.resolve(config.out, config.storage)  # type: ignore[attr-defined]
    storage.spare_inputs(out, {each.name: each.paths for each in find_inputs(config)})
    if flags.dry_run:
        return int(module.run(config.model_copy(update={"out": out}), flags) or 0)
    later = getattr(module, "ON_DEMAND", ())
    with storage.writing(out, config.lock_wait, later) as place, disk_errors(place):
        return int(module.run(config.model_copy(update={"out": str(place)}), flags) or 0)


def _word_verb(verb: str, rest: list[str], flags: list[str]) -> int:
    module = importlib.import_module(f"raydist.commands.{verb}")
    if "--help" in flags:
        print(f"raydist {verb}: {VERBS[verb]}\n\n{(module.__doc__ or '').strip()}")
        return 0
    check_flags(module, flags)
    check_packages(verb)
    return int(module.run_words(rest, flags) or 0)


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {help}" for verb, help in VERBS.items())
    flags = "\n".join(f"  {flag:<{width}}  {help}" for flag, help in _FLAGS.items())
    return (
        "raydist: training and indexing for information retrieval, on a laptop or a Ray cluster\n\n"
        "usage: raydist VERB [FILE.yaml ...] [key=value ...] [flags]\n\n"
        f"verbs\n{verbs}\n\nflags\n{flags}\n\n"
        "raydist help VERB shows a verb's keys; raydist quickstart shows it at work."
    )
