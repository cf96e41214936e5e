"""`tune_cpu`: the C library keeps the memory that tensors give back."""

import ctypes
from functools import cache

# The numbers of mallopt's parameters, in malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@cache
def tune_cpu() -> bool:
    """Has malloc take large blocks from its heap, and never give that back. Returns whether the C library does so.

    As it comes, glibc maps memory for every large tensor and unmaps it when the tensor dies, and the system clears each
    page again when it is first touched: for large temporaries that costs more than the arithmetic. With mmap off
    (M_MMAP_MAX 0; a higher threshold alone is capped at 32 MiB before glibc 2.35) and trimming off (M_TRIM_THRESHOLD
    -1), a step finds the pages of the one before. It costs memory: the process keeps its peak until it ends, and the
    peak is higher where freed blocks do not fit what comes next. benchmarks/malloc.py measures both.

    It is of the whole process and cannot be undone, so importing never does it; the command line does. What is not the
    GNU C library is left as it is, and so are blocks that are there already.
    """
    try:
        library = ctypes.CDLL(None)
        _ = library.gnu_get_libc_version
        mallopt = library.mallopt
    except (AttributeError, OSError, TypeError):
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1)])
