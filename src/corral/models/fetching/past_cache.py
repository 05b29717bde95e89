"""Writing a file past the page cache: what arrives faster than a gigabit line gives it costs most there.

Taking a page of the cache and writing it back later needs several times the work of receiving and hashing it, and such
a download pushes out what running models have mapped. Linux only; elsewhere, and where a file system has no such
writes, everything goes through the cache.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

ALIGN = 4096
"""Position, length and memory of such a write are multiples of it. Some disks would take 512."""

_O_DIRECT: int = getattr(os, "O_DIRECT", 0)
_UNABLE = (errno.EINVAL, errno.EOPNOTSUPP)


def aligned_buffer(size: int) -> memoryview:
    """Memory that may be written from; it is given back with its last reference."""
    return memoryview(mmap.mmap(-1, size))


class PastCache:
    """A second descriptor of a file, for such writes. Safe between threads."""

    def __init__(self, path: Path) -> None:
        """The file must be there. Raises OSError."""
        self._fd: int | None = None
        self.works = False
        if _O_DIRECT:
            try:
                self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | _O_DIRECT)
            except OSError as error:
                if error.errno not in _UNABLE:
                    raise
            else:
                self.works = True

    def write(self, position: int, data: memoryview) -> int:
        """Writes as much of the front of `data` as goes this way; how much it was. Raises OSError."""
        if self._fd is None or not self.works or position % ALIGN:
            return 0
        done, whole = 0, len(data) - len(data) % ALIGN
        try:
            while done < whole and done % ALIGN == 0:
                done += os.pwrite(self._fd, data[done:whole], position + done)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise
            self.works = False
        return done

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
