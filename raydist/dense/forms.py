"""Stored forms of vectors: float32, float16, bfloat16, int8 and binary.

Shapes: n rows, D dimensions.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from raydist.data.columns import PREFIX
from raydist.errors import ConfigError

Precision = Literal["float32", "float16", "bfloat16", "int8", "binary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""From the finest form to the coarsest."""
_STORED = {
    "float32": pa.float32(),
    "float16": pa.float16(),
    "bfloat16": pa.uint16(),
    "int8": pa.int8(),
    "binary": pa.uint8(),
}


def vector_schema(
    dimension: int, precision: Precision, columns: pa.Schema | None = None
) -> pa.Schema:
    """Returns a shard's Arrow schema.

    `binary` packs eight dimensions into a byte, `bfloat16` has the first half of a float32.

    Args:
        dimension: D.
        precision: the stored form.
        columns: of the documents, beside their vectors.
    """
    width = -(-dimension // 8) if precision == "binary" else dimension
    fields = [pa.field("doc_id", pa.string())]
    fields += [pa.field(PREFIX + each.name, each.type) for each in columns or ()]
    fields.append(pa.field("vector", pa.list_(_STORED[precision], width)))
    if precision == "int8":
        fields.append(pa.field("scale", pa.float32()))
    return pa.schema(fields, metadata={"dimension": str(dimension), "precision": precision})


def encode(vectors_nD: np.ndarray, precision: Precision) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the stored form of float32 vectors, and the scale of each row for int8.

    bfloat16 is the nearest one, the even one of two; int8 keeps `round(127 v / max|v|)` with the
    row's `max|v| / 127`; binary keeps signs.

    Raises:
        ConfigError: a value is beyond float16.
    """
    match precision:
        case "float32":
            return np.ascontiguousarray(vectors_nD, np.float32), None
        case "float16":
            most = float(np.abs(vectors_nD).max(initial=0))
            if most > float(np.finfo(np.float16).max):
                raise ConfigError(
                    f"precision=float16: a vector has a value of {most:g}, float16 ends at 65504; "
                    "use float32, bfloat16 or int8"
                )
            return vectors_nD.astype(np.float16), None
        case "bfloat16":
            bits_nD = np.ascontiguousarray(vectors_nD, np.float32).view(np.uint32)
            return ((bits_nD + 0x7FFF + (bits_nD >> 16 & 1)) >> 16).astype(np.uint16), None
        case "int8":
            scale_n = np.abs(vectors_nD).max(axis=1, initial=0).astype(np.float32) / 127
            safe_n = np.where(scale_n > 0, scale_n, 1).astype(np.float32)
            return np.rint(vectors_nD / safe_n[:, None]).astype(np.int8), scale_n
        case "binary":
            return np.packbits(vectors_nD > 0, axis=1), None


def decode(
    stored_nD: np.ndarray, scale_n: np.ndarray | None, precision: Precision, dimension: int
) -> np.ndarray:
    """Returns the float32 vectors [n, D] that a stored form stands for; binary gives -1 and 1."""
    match precision:
        case "float32":
            return np.asarray(stored_nD, np.float32)
        case "float16":
            return stored_nD.astype(np.float32)
        case "bfloat16":
            return (stored_nD.astype(np.uint32) << 16).view(np.float32)
        case "int8":
            assert scale_n is not None
            return np.asarray(stored_nD * scale_n[:, None], np.float32)
        case "binary":
            bits_nD = np.unpackbits(stored_nD, axis=1, count=dimension)
            return np.asarray(bits_nD * np.float32(2) - np.float32(1), np.float32)
