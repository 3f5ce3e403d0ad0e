"""Machine instructions that numba has no name for, and the one decorator of all kernels.

Unaligned 64-bit loads and stores (little endian), a prefetch, trailing zeros, the bits of a float,
and a comparison of 32 lanes at once. Offsets count elements of the array; nothing is checked.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiles `function` on first use and caches the machine code on disk.

    Kernels release the interpreter's lock, check no bounds and divide as C does. The cache is found
    by what is in a kernel's file and in the files that it imports, not by where the package lies:
    every submitted job has its package in a folder of its own, and need not compile anew.
    """
    shared = numba.config.CACHE_DIR
    sources = _sources_hash(function.__module__)
    base = _cache_base(shared)
    numba.config.CACHE_DIR = str(base / sources)
    try:
        kept = _source_in(base / sources, Path(function.__code__.co_filename))
        function.__code__ = function.__code__.replace(co_filename=str(kept))
        compiled = numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(
            function
        )
    finally:
        numba.config.CACHE_DIR = shared
    return cast(F, compiled)


@lru_cache
def _cache_base(shared: str) -> Path:
    """Returns the folder of all caches: NUMBA_CACHE_DIR, the user's own, or beside the package.

    Machine code is loaded from there, so a folder that others may write is not taken unasked.
    """
    if shared:
        return Path(shared)
    beside = Path(__file__).with_name("__pycache__")
    own = Path(os.environ.get("RAYDIST_CACHE") or Path.home() / ".cache" / "raydist") / "kernels"
    for place in (own, beside):
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = place.stat()
            private = found.st_uid == os.getuid() and not found.st_mode & 0o022
            if (private or place == beside) and os.access(place, os.W_OK):
                return place
    return beside


@lru_cache
def _source_in(folder: Path, source: Path) -> Path:
    """Returns a copy of a source file in the cache: numba finds machine code by the file's path."""
    kept = folder / source.name
    try:
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{source.name}.{os.getpid()}"
            partial.write_bytes(source.read_bytes())
            os.replace(partial, kept)
    except OSError:  # nothing can be kept: numba looks for a place by itself
        return source
    return kept


@lru_cache
def _sources_hash(module: str) -> str:
    """Returns 16 digits of the sources of a module and of what it imports of this package."""
    digest = hashlib.blake2b(digest_size=8)
    seen, waiting = {module}, [module]
    while waiting:
        found = importlib.util.find_spec(waiting.pop())
        if found is None or found.origin is None:
            continue
        source = Path(found.origin).read_bytes()
        digest.update(source)
        names = re.findall(rb"^from (raydist\.[\w.]+) import", source, re.MULTILINE)
        fresh = sorted({name.decode() for name in names} - seen)
        seen.update(fresh)
        waiting += fresh
    return f"kernels-{digest.hexdigest()}"


def inlined(function: F) -> F:
    """Compiles `function` into the kernels that call it: for small steps and large tuples."""
    return cast(F, numba.njit(forceinline=True, boundscheck=False, error_model="numpy")(function))


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _load64(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
        value.align = 1
        return value

    return types.uint64(array, types.uint64), generate


def _store64(typing_context: Any, array: Any, offset: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        stored = builder.store(args[2], builder.bitcast(place, ir.IntType(64).as_pointer()))
        stored.align = 1
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), generate


def _prefetch(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _address(context, builder, signature.args[0], args[0], args[1])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, word, word, word]),
            "llvm.prefetch.p0",
        )
        read, keep, data = (ir.Constant(word, n) for n in (0, 3, 1))
        builder.call(function, [builder.bitcast(place, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _at_least_32(typing_context: Any, array: Any, offset: Any, limit: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = ir.IntType(32)
        lanes = ir.VectorType(word, 32)
        place = _address(context, builder, signature.args[0], args[0], args[1])
        values = builder.load(builder.bitcast(place, lanes.as_pointer()))
        values.align = 4
        undefined = ir.Constant(lanes, ir.Undefined)
        first = builder.insert_element(
            undefined, builder.trunc(args[2], word), ir.Constant(word, 0)
        )
        limits = builder.shuffle_vector(first, undefined, ir.Constant(lanes, [0] * 32))
        mask = builder.icmp_unsigned(">=", values, limits)
        return builder.zext(builder.bitcast(mask, word), ir.IntType(64))

    return types.uint64(array, types.uint64, types.uint64), generate


def _clear_32(typing_context: Any, array: Any, offset: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(32), 32)
        place = _address(context, builder, signature.args[0], args[0], args[1])
        zero = ir.Constant(lanes, None)
        stored = builder.store(zero, builder.bitcast(place, lanes.as_pointer()))
        stored.align = 4
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


def _trailing_zeros(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _ones(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), generate


def _bits_of_float(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), generate


def _float_of_bits(typing_context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), generate


# Inside a kernel: load64(bytes, offset), store64(bytes, offset, value), prefetch(array, offset),
# at_least_32(uint32s, offset, limit) -> bit i set where array[offset + i] >= limit,
# clear_32(uint32s, offset) sets 32 elements to 0,
# trailing_zeros(uint64) with 64 for 0, ones(uint64), bits_of_float(float32), float_of_bits(uint32).
load64: Callable[..., Any] = intrinsic(_load64)
store64: Callable[..., Any] = intrinsic(_store64)
prefetch: Callable[..., Any] = intrinsic(_prefetch)
at_least_32: Callable[..., Any] = intrinsic(_at_least_32)
clear_32: Callable[..., Any] = intrinsic(_clear_32)
trailing_zeros: Callable[..., Any] = intrinsic(_trailing_zeros)
ones: Callable[..., Any] = intrinsic(_ones)
bits_of_float: Callable[..., Any] = intrinsic(_bits_of_float)
float_of_bits: Callable[..., Any] = intrinsic(_float_of_bits)
