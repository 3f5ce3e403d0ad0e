"""Configuration of `raydist export`."""

from __future__ import annotations

from pydantic import Field

from raydist.config.base import Verb, execution
from raydist.config.tracking import Tracking


class ExportConfig(Verb):
    """Writes a Hugging Face folder with its model card."""

    checkpoint: str = Field(min_length=1)
    """A training run (its final checkpoint), one of its checkpoints, or a model folder."""
    out: str = Field(min_length=1)
    """The folder to write."""
    name: str = ""
    """The model's name, `owner/name` to push; the folder's name if not given."""
    doc: str = ""
    """What the card says of the model: Markdown, or a file of it."""
    bibtex: str = ""
    """How to cite the model: an entry, or a file of it."""
    push: bool = execution(False)
    """Upload the folder to the Hugging Face hub."""
    private: bool = execution(True)
    """Create the repository for its owner alone."""
    alias: str | None = execution(None, min_length=1)
    """Register the model with MLflow and move this alias to it if it beats the present holder."""
    tracking: Tracking = Tracking()
    """Where the registry is, for `alias`."""
