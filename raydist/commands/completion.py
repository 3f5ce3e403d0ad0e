"""Prints a shell's completion script: for bash, zsh or fish.

    eval "$(raydist completion bash)"
    raydist completion fish | source

The script asks `raydist completion words WORD...` for the words that may come next: verbs, then
keys and flags of the verb (and folders, of one that takes a folder as a word), then the values of a
key that has a fixed set of them, or paths.
"""

from __future__ import annotations

import glob
import importlib
import os
from collections.abc import Iterator, Sequence

from raydist.commands import VERBS
from raydist.config.schema import Row, reference
from raydist.errors import ConfigError

_SCRIPTS = {
    # Readline cuts words at COMP_WORDBREAKS, which is the user's and has `=`. So the line is cut at
    # blanks here, and what readline keeps of a word is left out of its completions.
    "bash": r"""_raydist() {
  local line=${COMP_LINE:0:COMP_POINT} IFS=$' \t' words word breaks
  read -ra words <<< "$line"
  word=${line##*[[:blank:]]}
  [[ -n $word ]] && unset 'words[-1]'
  IFS=$'\n'
  COMPREPLY=($(raydist completion words "${words[@]:1}" "$word" 2>/dev/null))
  breaks=${COMP_WORDBREAKS//[^=:]}
  [[ -n $breaks ]] && word=${word%"${word##*[$breaks]}"} && COMPREPLY=("${COMPREPLY[@]#"$word"}")
  [[ ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace
}
complete -o default -F _raydist raydist""",
    "zsh": """#compdef raydist
_raydist() {
  local -a candidates begun
  candidates=(${(f)"$(raydist completion words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  begun=(${(M)candidates:#*[=/]}) candidates=(${candidates:#*[=/]})
  compadd -S '' -a begun
  compadd -a candidates
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
compdef _raydist raydist""",
    "fish": """function __raydist
  raydist completion words (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c raydist -f -a '(__raydist)'""",
}


_TEXTS = {"text", "list of text"}  # types of the keys that may take a path
FLAGS = ("--dry-run", "--print", "--resume", "--append")  # of the line that is completed


def run_words(words: Sequence[str], flags: Sequence[str]) -> int:
    """Prints the script of a shell, or the words that may come next."""
    if words and words[0] == "words":
        for word in candidates(list(words[1:])):
            print(word)
        return 0
    if len(words) != 1 or words[0] not in _SCRIPTS:
        raise ConfigError(f"completion: expected one of {', '.join(_SCRIPTS)}")
    print(_SCRIPTS[words[0]])
    return 0


def candidates(words: Sequence[str]) -> Iterator[str]:
    """Yields the completions of the last of `words`."""
    last = words[-1] if words else ""
    verbs = [*VERBS, "help"]
    if len(words) <= 1 or (words[0] == "help" and len(words) == 2):
        yield from (verb for verb in verbs if verb.startswith(last))
        return
    if words[0] not in VERBS:
        return
    module = importlib.import_module(f"raydist.commands.{words[0]}")
    if last.startswith("-"):
        taken = (*getattr(module, "FLAGS", ("--dry-run",)), "--print", "--help")
        yield from (flag for flag in dict.fromkeys(taken) if flag.startswith(last))
        return
    if not hasattr(module, "Config"):
        yield from _paths(last)
        return
    key, equals, value = last.partition("=")
    rows = list(reference(module.Config))
    if equals:
        yield from (f"{key}={each}" for each in _values(rows, key, value))
        return
    keys = (f"{row.key}=" for row in rows if row.key.startswith(last) and row.type != "block")
    yield from dict.fromkeys(keys)
    if module.Config.word is not None:
        yield from (path for path in _paths(last) if path.endswith("/"))
    elif last:
        yield from (path for path in _paths(last) if path.endswith(("/", ".yaml", ".yml")))


def _values(rows: Sequence[Row], key: str, start: str) -> Iterator[str]:
    """Yields the values of a key that begin like this: its choices, kinds of a block, or paths."""
    types = [row.type for row in rows if row.key == key]  # members of a union have a row each
    choices = dict.fromkeys(" | ".join(types).split(" | "))
    if len(choices) > 1:
        yield from (each for each in choices if each != "''" and each.startswith(start))
        return
    if "block" in choices:
        kinds = [row.type for row in rows if row.key == f"{key}.kind"]
        names = " | ".join(kinds).split(" | ") if len(kinds) > 1 else []
        yield from (name for name in names if name.startswith(start))
    if choices.keys() & _TEXTS or {f"{key}.path", f"{key}.model"} & {row.key for row in rows}:
        before, comma, part = start.rpartition(",")
        yield from (f"{before}{comma}{path}" for path in _paths(part))


def _paths(start: str) -> Iterator[str]:
    """Yields the files and folders whose paths begin like this, folders with a slash."""
    begin = os.path.expanduser(start)
    for name in sorted(glob.glob(f"{glob.escape(begin)}*")):
        path = start + name.removeprefix(begin)
        yield f"{path}/" if os.path.isdir(name) else path
