"""From configurations to objects: the only module that knows both."""

from __future__ import annotations

__all__: list[str] = []
