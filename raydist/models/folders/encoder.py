"""The folder of any model that reads queries and documents apart, by its kind."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from raydist.errors import ConfigError
from raydist.models.architecture import width
from raydist.models.backbone import DTYPES
from raydist.models.folders.biencoder import EncoderFolder, check_contract, read_folder
from raydist.models.folders.kinds import is_multivector
from raydist.models.folders.multivector import read_late_folder
from raydist.models.projection import SENTENCE, TOKENS, Projection
from raydist.models.spec import BiEncoderSettings

_OF_TOKENS = ("expansion", "expansion_attends", "skip", "token_pooling")


def read_encoder_folder(
    folder: Path, spec: BiEncoderSettings, truncate: int = 0
) -> tuple[EncoderFolder, int]:
    """Returns what a model's folder says, without its weights, and the dimensions that are kept.

    Args:
        folder: of a model.
        spec: what is set beside the folder, or instead of it.
        truncate: dimensions to keep of a vector; 0 leaves it to the folder.

    Raises:
        ConfigError: a value contradicts the folder, or is out of bounds.
        ArtifactError: the folder is none that raydist can read.
    """
    if spec.kind == "multivector" or (spec.kind is None and is_multivector(folder)):
        if truncate:
            raise ConfigError(f"dimension={truncate}: vectors of tokens are kept whole")
        return read_late_folder(folder, spec), 0
    for name in _OF_TOKENS:
        if (value := getattr(spec, name)) is not None:
            raise ConfigError(
                f"model.{name}={value}: is for multi-vector models (model.kind=multivector)"
            )
    if is_multivector(folder):
        raise ConfigError(
            f"model.kind={spec.kind}: {folder} holds a multi-vector model; start from the "
            "transformer that it was trained from"
        )
    read = read_folder(folder, spec)
    truncate = truncate or read.truncate
    check_contract(read.contract, read.config, read.length, truncate)
    return read, truncate


def projections_of(read: EncoderFolder, spec: BiEncoderSettings, seed: int) -> list[Projection]:
    """Returns the projections of a folder; a new multi-vector model gets a random orthogonal one.

    So angles between tokens change least, and not at all where the projection is as wide as them.
    """
    dtype = DTYPES[spec.dtype]
    tokens = read.contract.kind == "multivector"
    if tokens and read.fresh:
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            linear = nn.Linear(width(read.config), read.fresh, bias=False)
            nn.init.orthogonal_(linear.weight)
        return [Projection(linear, "Identity").to(dtype)]
    return [Projection.load(place, dtype, TOKENS if tokens else SENTENCE) for place in read.dense]
