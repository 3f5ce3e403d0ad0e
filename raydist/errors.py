"""The exceptions that raydist raises for mistakes that a user can fix.

::

    RaydistError
    ├── ConfigError     a field of a configuration: unknown, out of bounds, contradictory
    ├── DataError       an input file or record: missing, malformed, inconsistent
    ├── ArtifactError   something raydist wrote: incomplete, damaged, newer, or of another config
    ├── JobError        work that could not be done: a split that keeps failing, missing resources
    └── NotFoundError   an id or name that a result does not have: a query, a document, a run

Every message names the field or file, the value, and what is allowed or how to continue. The
command line prints it without a traceback and exits with `exit_code`. Our own mistakes are
assertions.
"""

from __future__ import annotations


class RaydistError(Exception):
    """Base of all errors that a user can fix."""

    exit_code = 2


class ConfigError(RaydistError, ValueError):
    """A configuration field is unknown, out of bounds or contradicts another."""


class DataError(RaydistError, ValueError):
    """An input file or record is missing, malformed or inconsistent."""

    @classmethod
    def at(cls, path: object, line: int, excerpt: str, expected: str) -> DataError:
        """Returns the error for a bad line: file, line number from 1, excerpt, expectation."""
        excerpt = excerpt if len(excerpt) <= 80 else excerpt[:77] + "..."
        return cls(f"{path}, line {line}: {excerpt!r}: expected {expected}")


class ArtifactError(RaydistError):
    """An output is incomplete, damaged, of a newer version or of another configuration."""


class JobError(RaydistError):
    """Work could not be done: a split keeps failing, or resources are missing."""

    exit_code = 1


class NotFoundError(RaydistError, KeyError):
    """A result has nothing of this id or name."""

    __str__ = Exception.__str__  # a KeyError shows its message as a literal
