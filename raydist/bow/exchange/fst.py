"""A finite-state map from sorted strings to their positions, as the Rust crate fst 0.4 reads it.

Nodes are written children first. An arc carries the least position below it, less the outputs of
the path so far, so that nodes never need an output of their own and equal tails are shared.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from raydist.errors import DataError

_VERSION, _EMPTY, _NONE = 3, 0, 1
_INDEXED = 32  # arcs from which on a node has a table by byte
# The crate's bytes by frequency, which fit into a node's first byte; the first 62 of them.
_COMMON = b"te/oasripcnw.hlm-du012g=:bf3y5&_4v9678k%?xCDASFIBEjPTzRN" + b"M+LOqH"

Arc = tuple[int, int, int]  # byte, output, address


def build_fst(strings: Sequence[bytes]) -> bytes:
    """Returns the map of `strings[i]` to i.

    Raises DataError where the strings do not ascend.
    """
    out = bytearray(struct.pack("<QQ", _VERSION, 0))
    known: dict[tuple[bool, tuple[Arc, ...]], int] = {}
    last = _NONE

    def finish(final: bool, arcs: list[Arc]) -> int:
        nonlocal last
        if final and not arcs:
            return _EMPTY
        key = (final, tuple(arcs))
        address = known.get(key)
        if address is None:
            out.extend(_node(final, arcs, len(out), last))
            last = address = known[key] = len(out) - 1
        return address

    # The path of the string before: per node whether a string ends there, its finished arcs, and
    # the byte and output of the open arc; `floors` are the sums of the outputs up to each node.
    finals, arcs, opened, floors = [False], [[]], [(0, 0)], [0]  # type: ignore[var-annotated]
    previous = b""

    def close(depth: int) -> None:
        while len(finals) > depth + 1:
            address = finish(finals.pop(), arcs.pop())
            opened.pop()
            floors.pop()
            byte, output = opened[-1]
            arcs[-1].append((byte, output, address))

    for number, string in enumerate(strings):
        if number and string <= previous:
            raise DataError(f"terms do not ascend: {previous!r}, {string!r}")
        shared = 0
        limit = min(len(string), len(previous))
        while shared < limit and string[shared] == previous[shared]:
            shared += 1
        close(shared)
        for byte in string[shared:]:
            opened[-1] = (byte, number - floors[-1])
            finals.append(False)
            arcs.append([])
            opened.append((0, 0))
            floors.append(number)
        finals[-1] = True
        previous = string
    close(0)
    root = finish(finals[0], arcs[0])
    out += struct.pack("<QQ", len(strings), root)
    return bytes(out) + struct.pack("<I", _masked_sum(out))


def _node(final: bool, arcs: list[Arc], start: int, last: int) -> bytes:
    """Returns a node's bytes; it begins at `start`, and `last` is the node written before it."""
    if len(arcs) == 1 and not final:
        byte, output, address = arcs[0]
        common = _COMMON.find(byte) + 1
        letter = b"" if common else bytes([byte])
        if address == last and not output:
            return letter + bytes([0b11_000000 | common])
        delta = _delta(start, address)
        sizes = _size(delta) << 4 | (_size(output) if output else 0)
        packed = _pack(output, sizes & 15) + _pack(delta, sizes >> 4)
        return packed + bytes([sizes]) + letter + bytes([0b10_000000 | common])
    outputs = [output for _, output, _ in reversed(arcs)]
    deltas = [_delta(start, address) for _, _, address in reversed(arcs)]
    wide = max(map(_size, outputs)) if any(outputs) else 0
    far = max(map(_size, deltas))
    body = bytearray()
    if wide:
        body += _pack(0, wide) if final else b""
        body += b"".join(_pack(output, wide) for output in outputs)
    body += b"".join(_pack(delta, far) for delta in deltas)
    body += bytes(byte for byte, _, _ in reversed(arcs))
    if len(arcs) > _INDEXED:
        table = bytearray(b"\xff" * 256)
        for i, (byte, _, _) in enumerate(arcs):
            table[byte] = i
        body += table
    body.append(far << 4 | wide)
    if len(arcs) > 63:
        body.append(1 if len(arcs) == 256 else len(arcs))
    body.append((0b01_000000 if final else 0) | (len(arcs) if len(arcs) <= 63 else 0))
    return bytes(body)


def _delta(start: int, address: int) -> int:
    return 0 if address == _EMPTY else start - address


def _size(value: int) -> int:
    return max(1, (value.bit_length() + 7) // 8)


def _pack(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _masked_sum(data: bytes | bytearray) -> int:
    """Returns the CRC-32C of the bytes, rotated and shifted as the crate does."""
    table, total = _crc_table(), 0xFFFFFFFF
    for byte in data:
        total = table[(total ^ byte) & 255] ^ total >> 8
    total ^= 0xFFFFFFFF
    return ((total >> 15 | total << 17) + 0xA282EAD8) & 0xFFFFFFFF
