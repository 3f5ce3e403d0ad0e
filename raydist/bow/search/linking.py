"""The two kernels of a search, compiled apart: one calls the other by its address."""

from __future__ import annotations

from raydist.bow.search.scan import scan
from raydist.bow.search.workspace import Workspace
from raydist.kernels.addresses import entry

_ARGUMENTS = 7


def link(workspace: Workspace) -> None:
    """Says where the scan is, compiled."""
    if not workspace.scan[0]:
        workspace.scan[0] = entry(scan, _ARGUMENTS)
