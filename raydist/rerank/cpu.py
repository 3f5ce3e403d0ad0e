"""What a process that scores on the CPU is told about memory."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST = 32 << 20  # bytes, the most that glibc takes for _MMAP_THRESHOLD


def tune_process() -> None:
    """Makes this process keep the memory of a batch for the next one, and few compiled kernels.

    A batch's activations are some megabytes each; glibc gives them back and gets them again, page
    by page and zeroed, which takes a fifth of the time. And hardly two batches without padding have
    the same number of tokens, while oneDNN keeps a kernel for each of the last 1,024 shapes: 100 MB
    and more that are never used again.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 8 * _LARGEST)
