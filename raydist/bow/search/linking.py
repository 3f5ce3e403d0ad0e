"""The two kernels of a search, compiled apart: one calls the other by its address."""

from __future__ import annotations

from raydist.bow.ahead import RANKING, SCANNING
from raydist.bow.search.scan import scan
from raydist.bow.search.workspace import Workspace
from raydist.kernels.addresses import entry
from raydist.kernels.ahead import await_compiled

_ARGUMENTS = 7


def link(workspace: Workspace) -> None:
    """Waits for other processes that compile a search, and says where the scan is."""
    if not workspace.scan[0]:
        await_compiled(SCANNING)
        workspace.scan[0] = entry(scan, _ARGUMENTS)
        await_compiled(RANKING)
