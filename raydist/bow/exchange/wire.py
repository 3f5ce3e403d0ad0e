"""Protobuf on the wire: the messages of the Common Index File Format, as kernels.

Legend: T terms, P postings, N documents. See ciff.py for the fields.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raydist.errors import DataError
from raydist.kernels.arrays import readonly, string_array, string_buffers
from raydist.kernels.jit import inlined, kernel
from raydist.kernels.varint import get_varint, put_varint, varint_length

Array = npt.NDArray[Any]
U = np.uint64


@inlined
def _field(out: Array, o: Any, tag: Any, value: Any) -> Any:
    """Writes a field unless it has its default, 0."""
    if value:
        out[o] = np.uint8(tag)
        o = put_varint(out, o + U(1), value)
    return o


@inlined
def _field_length(value: Any) -> Any:
    return U(1) + varint_length(value) if value else U(0)


@kernel
def _write_lists(
    offsets_T1: Array, names: Array, indptr_T1: Array, docs_P: Array, tfs_P: Array, out: Array
) -> Any:
    o = U(0)
    for t in range(indptr_T1.shape[0] - 1):
        first = U(indptr_T1[t])
        last = U(indptr_T1[t + 1])
        begin = U(offsets_T1[t])
        letters = U(offsets_T1[t + 1]) - begin
        total = U(0)
        body = U(0)
        prev = U(0)
        for i in range(first, last):
            doc = U(docs_P[i])
            tf = U(tfs_P[i])
            size = _field_length(doc - prev) + _field_length(tf)
            body += size + U(2)  # a posting takes less than 128 bytes
            total += tf
            prev = doc
        body += _field_length(last - first) + _field_length(total)
        if letters:
            body += U(1) + varint_length(letters) + letters
        o = put_varint(out, o, body)
        if letters:
            out[o] = np.uint8(0x0A)
            o = put_varint(out, o + U(1), letters)
            for i in range(letters):
                out[o + i] = names[begin + i]
            o += letters
        o = _field(out, o, 0x10, last - first)
        o = _field(out, o, 0x18, total)
        prev = U(0)
        for i in range(first, last):
            doc = U(docs_P[i])
            tf = U(tfs_P[i])
            out[o] = np.uint8(0x22)
            out[o + U(1)] = np.uint8(_field_length(doc - prev) + _field_length(tf))
            o = _field(out, o + U(2), 0x08, doc - prev)
            o = _field(out, o, 0x10, tf)
            prev = doc
    return np.int64(o)


def list_bytes(
    terms: pa.LargeBinaryArray, indptr_T1: Array, docs_P: Array, tfs_P: Array
) -> memoryview:
    """Returns the PostingsList messages of terms, each behind its length."""
    offsets_T1, names = string_buffers(terms)
    span = int(offsets_T1[-1] - offsets_T1[0])
    out = np.empty(16 * len(docs_P) + 64 * len(terms) + span, np.uint8)
    used = _write_lists(
        offsets_T1,
        names,
        readonly(indptr_T1, np.int64),
        readonly(docs_P, np.uint32),
        readonly(tfs_P, np.uint32),
        out,
    )
    return out[:used].data


@kernel
def _write_records(base: Any, offsets_N1: Array, names: Array, lengths_N: Array, out: Array) -> Any:
    o = U(0)
    for i in range(lengths_N.shape[0]):
        begin = U(offsets_N1[i])
        letters = U(offsets_N1[i + 1]) - begin
        number = U(base) + U(i)
        length = U(lengths_N[i])
        body = _field_length(number) + _field_length(length)
        if letters:
            body += U(1) + varint_length(letters) + letters
        o = put_varint(out, o, body)
        o = _field(out, o, 0x08, number)
        if letters:
            out[o] = np.uint8(0x12)
            o = put_varint(out, o + U(1), letters)
            for j in range(letters):
                out[o + j] = names[begin + j]
            o += letters
        o = _field(out, o, 0x18, length)
    return np.int64(o)


def write_records(base: int, ids: pa.Array, lengths_N: Array) -> memoryview:
    """Returns the DocRecord messages of documents numbered from `base`."""
    offsets_N1, names = string_buffers(ids.cast(pa.large_binary()))
    out = np.empty(int(offsets_N1[-1] - offsets_N1[0]) + 40 * len(ids), np.uint8)
    used = _write_records(base, offsets_N1, names, readonly(lengths_N, np.uint32), out)
    return out[:used].data


@kernel
def _scan(data: Array, starts: Array, ends: Array) -> Any:
    o = U(0)
    size = U(data.shape[0])
    for i in range(starts.shape[0]):
        length, o = get_varint(data, o)
        if o > size or length > size - o:
            return False
        starts[i] = o
        o += length
        ends[i] = o
    return o == size


def scan_messages(data: Array, count: int) -> tuple[Array, Array] | None:
    """Returns where each of `count` messages begins and ends, None if they do not fill `data`."""
    if count > len(data):
        return None
    starts, ends = np.empty(count, np.int64), np.empty(count, np.int64)
    return (starts, ends) if _scan(data, starts, ends) else None


@kernel
def _read_list(data: Array, o: Any, end: Any, docs: Array, tfs: Array, about: Array) -> Any:
    """Reads a PostingsList; returns whether it is one, and its number of postings.

    `about` receives the span of the term's bytes, df and cf; arrays without room read no more than
    the term.
    """
    o = U(o)
    end = U(end)
    count = U(0)
    room = U(docs.shape[0])
    doc = U(0)
    while o < end:
        tag, o = get_varint(data, o)
        if tag == U(0x22):
            size, o = get_varint(data, o)
            if o > end or size > end - o:
                return False, count
            stop = o + size
            tf = U(0)
            while o < stop:
                inner, o = get_varint(data, o)
                value, o = get_varint(data, o)
                if inner == U(0x08):
                    doc += value
                elif inner == U(0x10):
                    tf = value
                else:
                    return False, count
            if o != stop:
                return False, count
            if count < room:
                docs[count] = doc
                tfs[count] = tf
            count += U(1)
        elif tag == U(0x0A):
            size, o = get_varint(data, o)
            if o > end or size > end - o:
                return False, count
            about[0] = o
            about[1] = o + size
            if room == U(0):
                return True, U(0)
            o += size
        elif tag & U(7) == U(0):
            value, o = get_varint(data, o)
            if tag == U(0x10):
                about[2] = value
            elif tag == U(0x18):
                about[3] = value
        elif tag & U(7) == U(2):
            size, o = get_varint(data, o)
            if o > end or size > end - o:
                return False, count
            o += size
        else:
            return False, count
    return o == end, count


class PostingsList(NamedTuple):
    """A PostingsList as it is in the file; df and cf are 0 where it does not say."""

    term: bytes
    docs_P: Array
    tfs_P: Array
    df: int
    cf: int


def read_list(data: Array, start: int, stop: int, *, terms_only: bool = False) -> PostingsList:
    """Returns a PostingsList, documents and frequencies as int64.

    Raises DataError where it is not one.
    """
    room = 0 if terms_only else (stop - start) // 2
    docs, tfs = np.empty(room, np.int64), np.empty(room, np.int64)
    about = np.zeros(4, np.int64)
    valid, count = _read_list(data, start, stop, docs, tfs, about)
    if not valid:
        raise DataError(f"at byte {start}: not a list of postings")
    name = data[about[0] : about[1]].tobytes()
    return PostingsList(name, docs[:count], tfs[:count], int(about[2]), int(about[3]))


@kernel
def _read_records(data: Array, starts: Array, stops: Array, numbers: Array, out: Array) -> Any:
    """Reads DocRecords; `out` [N, 3] receives the span of the id and the length.

    Returns how many were read: fewer than there are if the next one is not a DocRecord.
    """
    for i in range(starts.shape[0]):
        o = U(starts[i])
        end = U(stops[i])
        numbers[i] = 0
        out[i, :] = 0
        while o < end:
            tag, o = get_varint(data, o)
            value, o = get_varint(data, o)
            if tag == U(0x08):
                numbers[i] = value
            elif tag == U(0x12):
                if o > end or value > end - o:
                    return i
                out[i, 0] = o
                out[i, 1] = o + value
                o += value
            elif tag == U(0x18):
                out[i, 2] = value
            else:
                return i
        if o != end:
            return i
    return starts.shape[0]


@kernel
def _gather(data: Array, spans: Array, offsets: Array, out: Array) -> None:
    """Copies the bytes of the spans one after another."""
    for i in range(spans.shape[0]):
        to = offsets[i]
        for o in range(spans[i, 0], spans[i, 1]):
            out[to] = data[o]
            to += 1


def read_records(
    data: Array, starts: Array, stops: Array
) -> tuple[Array, pa.LargeStringArray, Array]:
    """Returns the numbers (int64), external ids and lengths (uint32) of documents."""
    numbers = np.empty(len(starts), np.int64)
    out = np.empty((len(starts), 3), np.int64)
    read = _read_records(data, readonly(starts), readonly(stops), numbers, out)
    if read < len(starts):
        raise DataError(f"record {read + 1}, at byte {starts[read]}: not a document record")
    long = np.flatnonzero((out[:, 2] < 0) | (out[:, 2] >= 1 << 31))
    if len(long):
        length = out[long[0], 2]
        raise DataError(f"record {long[0] + 1}: length {length}, expected 0 to 2**31 - 1")
    offsets = np.concatenate(([0], np.cumsum(out[:, 1] - out[:, 0])))
    names = np.empty(int(offsets[-1]), np.uint8)
    _gather(data, readonly(out[:, :2]), readonly(offsets), names)
    ids = string_array(offsets, names)
    try:
        return numbers, ids.cast(pa.large_string()), out[:, 2].astype(np.uint32)
    except pa.ArrowInvalid:
        place = next(i for i, each in enumerate(ids.to_pylist()) if not is_utf8(each))
        raise DataError(f"record {place + 1}: the id {ids[place].as_py()!r} is not UTF-8") from None


def is_utf8(data: bytes) -> bool:
    """Returns whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
