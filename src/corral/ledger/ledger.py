"""`Ledger`: measured figures by key, found at once and written down in a thread of their own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corral.ledger.figures import Figures, Key

if TYPE_CHECKING:
    from corral.ledger.book import Book

FILE: Final = "ledger.db"
"""Its name in the state directory."""
_WAITING: Final = 1000  # changes not yet written, at most; beyond that the file misses some and memory has them
_OPENED_WITHIN_S: Final = 5.0  # a file that a stuck disk holds up longer is done without


class Ledger:
    """Thread-safe. What cannot be written is remembered as long as this lives; nobody who loads a model is held up.

    The file is opened by the writer's thread, so that making this costs nothing. `warn` hears, once and in that thread,
    why the file cannot be used; one that is damaged is set aside and begun anew.
    """

    def __init__(self, path: Path | None = None, warn: Callable[[str], None] = lambda text: None) -> None:
        self._path, self._warn = path, warn
        self._known: dict[Key, Figures] = {}
        self._lock = threading.Lock()
        self._warned = False
        self._changes: queue.Queue[Key | None] = queue.Queue(_WAITING)
        self._read = threading.Event()
        self._writer = threading.Thread(target=self._run, name="ledger", daemon=True)
        if path is None:
            self._read.set()
        else:
            self._writer.start()

    def find(self, key: Key) -> Figures | None:
        """What is known of loads with this key. Blocks until the file has been read, which takes milliseconds."""
        self._read.wait(_OPENED_WITHIN_S)
        with self._lock:
            return self._known.get(key)

    def remember(self, key: Key, figures: Figures) -> Figures:
        """Adds one load; returns what is known with it. Blocks as `find` does."""
        self._read.wait(_OPENED_WITHIN_S)
        with self._lock:
            self._known[key] = found = figures.after(self._known.get(key))
        if self._path is not None:
            try:
                self._changes.put_nowait(key)
            except queue.Full:
                self._say(f"measured figures come faster than {self._path} takes them; some are not kept")
        return found

    def close(self) -> None:
        """Writes what is left, and closes the file. Blocks for that."""
        if self._writer.is_alive():
            self._changes.put(None)
            self._writer.join()

    def _run(self) -> None:
        """The writer's thread."""
        assert self._path is not None
        book: Book | None = None
        try:
            book = self._opened(self._path)
        finally:
            self._read.set()
        while (key := self._changes.get()) is not None:
            if book is not None:
                book = self._written(book, key, self._path)
        if book is not None:
            book.close()

    def _opened(self, path: Path) -> Book | None:
        # SQLite is loaded here, beside the server's start and not in it.
        from corral.ledger.book import Book, BookError

        try:
            book = Book(path)
            known = book.read()
        except BookError as error:
            if error.damaged:
                return self._anew(path, error)
            self._say(f"measured figures are not kept: {error}")
            return None
        with self._lock:
            self._known = known | self._known
        return book

    def _anew(self, path: Path, why: Exception) -> Book | None:
        from corral.ledger.book import Book, BookError, set_aside

        try:
            kept = set_aside(path)
            self._say(f"{why}: it is kept as {kept.name}, and figures are measured again")
            return Book(path)
        except (BookError, OSError) as error:
            self._say(f"measured figures are not kept: {why}, and it cannot be replaced: {error}")
            return None

    def _written(self, book: Book, key: Key, path: Path) -> Book | None:
        from corral.ledger.book import BookError

        with self._lock:
            changed, known = {key: self._known[key]}, dict(self._known)
        try:
            book.write(changed)
        except BookError as error:
            if not error.damaged:  # a full disk, say: the next change may find room again
                self._say(f"measured figures cannot be written: {error}")
                return book
            book.close()
            anew = self._anew(path, error)
            try:
                if anew is not None:
                    anew.write(known)
            except BookError as again:
                self._say(f"measured figures cannot be written: {again}")
            return anew
        return book

    def _say(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._warn(text)


def read_ledger(state_dir: Path) -> dict[Key, Figures]:
    """What the ledger of this state directory knows, without changing anything; nothing where it cannot be read."""
    from corral.ledger.book import Book, BookError

    path = state_dir / FILE
    if not path.exists():
        return {}
    try:
        book = Book(path, read_only=True)
    except BookError:
        return {}
    try:
        return book.read()
    except BookError:
        return {}
    finally:
        book.close()
