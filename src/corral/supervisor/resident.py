"""Whether a page of a file is in the page cache, found out without having it read."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def seen_in_cache(fd: int) -> Iterator[Callable[[int], bool]]:
    """A function that tells whether the byte at an offset is in the cache; where the system does not tell, it is not.

    A read that may not wait (`RWF_NOWAIT`) is no way to find out: Linux begins to read for it, and with a fast disk the
    page is there before the answer.
    """
    size = os.fstat(fd).st_size
    if not size or not _told(fd):
        yield lambda at: False
        return
    import ctypes  # here: 10 ms that no start of the daemon should pay

    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_ubyte))
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    # Not the mmap module's: the address of its read-only mappings cannot be had.
    start = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    if start is None or start == ctypes.c_void_p(-1).value:
        yield lambda at: False
        return
    flag = ctypes.c_ubyte()

    def cached(at: int) -> bool:
        return libc.mincore(start + at - at % mmap.PAGESIZE, 1, ctypes.byref(flag)) == 0 and bool(flag.value & 1)

    try:
        yield cached
    finally:
        libc.munmap(start, size)


def _told(fd: int) -> bool:
    """Whether the answer is true: of files that one could not write to, Linux says that all of it is there."""
    found = os.fstat(fd)
    if os.geteuid() in (0, found.st_uid):
        return True
    try:
        return os.access(f"/proc/self/fd/{fd}", os.W_OK, effective_ids=os.access in os.supports_effective_ids)
    except OSError:
        return False
