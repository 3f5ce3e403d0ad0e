"""The Python interface: the verbs as functions, results that show themselves, stages with `>>`.

An edge, like the command line: it reads and checks the same configurations, runs the same commands,
and wraps the rooms' classes. Its names are those of `import raydist`.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings

if "ipykernel" in sys.modules:  # tqdm warns in a notebook without widgets, which no bar here needs
    with warnings.catch_warnings(), contextlib.suppress(ModuleNotFoundError):
        warnings.simplefilter("ignore")
        importlib.import_module("tqdm.auto")
