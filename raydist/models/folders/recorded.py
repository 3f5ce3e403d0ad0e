"""The model that made an index, found again to encode its queries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raydist.errors import ArtifactError, DataError
from raydist.fingerprints import model_fingerprint
from raydist.models.backbone import resolve_folder
from raydist.models.spec import EncoderPlace


def recorded_model(
    folder: str | Path, facts: Mapping[str, Any], place: EncoderPlace | None = None
) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of the model that embedded a corpus, and the settings to load it with.

    Args:
        folder: of the vectors or the index, for messages.
        facts: what its manifest says of the model.
        place: where the model is now, and how to load it.

    Raises:
        ArtifactError: the model is another one.
        DataError: it is no longer where it was.
    """
    model = place or EncoderPlace()
    try:
        model_folder = resolve_folder(model.path or facts["path"])
    except DataError as error:
        raise DataError(
            f"{folder}: {error}; give the model that embedded it as model=PATH"
        ) from None
    fingerprint = model_fingerprint(model_folder)
    if fingerprint != facts["fingerprint"]:
        raise ArtifactError(
            f"{folder} was embedded by {facts['path']} (fingerprint {facts['fingerprint']}), "
            f"{model_folder} is another model ({fingerprint}); embed the corpus again, or give "
            "the model that did as model=PATH"
        )
    settings = dict(facts["asked"]) | {
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
    }
    if model.attention != "sdpa":
        settings["attention"] = model.attention
    return model_folder, settings
