"""Prints a shell's completion script: `eval "$(raydist completion bash)"` (or zsh, fish).

The script asks `raydist completion words -- WORD...` for the words that may come next: verbs, then
keys of the verb (and folders, of one that takes a folder as a word), then the values of a key that
has a fixed set of them.
"""

from __future__ import annotations

import glob
import importlib
from collections.abc import Iterator, Sequence
from os.path import isdir

from raydist.commands import VERBS
from raydist.errors import ConfigError

_SCRIPTS = {
    "bash": """_raydist() {
  local IFS=$'\\n'
  COMPREPLY=($(raydist completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
  [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o default -F _raydist raydist""",
    "zsh": """#compdef raydist
_raydist() {
  local -a candidates
  candidates=(${(f)"$(raydist completion words ${words[2,CURRENT]} 2>/dev/null)"})
  compadd -S '' -a candidates || _files
}
compdef _raydist raydist""",
    "fish": """function __raydist
  raydist completion words (commandline -opc)[2..] (commandline -ct)
end
complete -c raydist -a '(__raydist)'""",
}


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
    if len(words) <= 1:
        yield from (verb for verb in VERBS if verb.startswith(last))
        return
    if words[0] not in VERBS:
        return
    module = importlib.import_module(f"raydist.commands.{words[0]}")
    if not hasattr(module, "Config"):
        return
    from raydist.config.schema import reference

    key, equals, value = last.partition("=")
    rows = reference(module.Config)
    if equals:  # members of a union have a row each
        types = [row.type for row in rows if row.key == key]
        choices = dict.fromkeys(" | ".join(types).split(" | "))
        if len(choices) > 1:
            yield from (f"{key}={choice}" for choice in choices if choice.startswith(value))
        return
    keys = (f"{row.key}=" for row in rows if row.key.startswith(last) and row.type != "block")
    yield from dict.fromkeys(keys)
    if module.Config.word is not None:
        yield from sorted(name for name in glob.glob(f"{glob.escape(last)}*") if isdir(name))
