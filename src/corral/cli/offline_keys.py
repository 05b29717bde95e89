"""Keys and usage: of the server that runs, or straight from their file where none does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from corral.cli.app import App
from corral.errors import CorralError, Unreachable

if TYPE_CHECKING:
    from corral.access.book import Book
    from corral.access.keys import Key
    from corral.api_access import KeyAsk, KeyInfo, KeyMade, UsageRow


class Keys(Protocol):
    """What the commands need."""

    def list_keys(self) -> list[KeyInfo]: ...

    def create_key(self, ask: KeyAsk) -> KeyMade: ...

    def revoke_key(self, key: str) -> KeyInfo: ...

    def rotate_key(self, key: str, overlap_s: float) -> KeyMade: ...

    def key_usage(self, key: str | None, since_s: float | None, by: tuple[str, ...]) -> list[UsageRow]: ...


def keys_of(app: App) -> Keys:
    """The server's, or the file's where no server runs here and none is named."""
    try:
        client = app.client()
    except Unreachable:
        if app.host or os.environ.get("CORRAL_HOST"):
            raise
        return OfflineKeys(app)
    if client.address.socket is not None and not client.connects():
        return OfflineKeys(app)
    return client


class OfflineKeys:
    """The file itself."""

    def __init__(self, app: App) -> None:
        self._app = app

    def list_keys(self) -> list[KeyInfo]:
        from corral.access_words import key_info

        with self._book() as book:
            return [] if book is None else [key_info(key) for key in book.keys().values()]

    def create_key(self, ask: KeyAsk) -> KeyMade:
        from corral import access_words as words
        from corral import clock
        from corral.access.desk import new_key
        from corral.api_access import KeyMade

        words.checked(ask)
        expires = None if ask.expires_in_s is None else clock.wall() + ask.expires_in_s
        with self._writing() as book:
            made = new_key(book.keys(), ask.name, words.scopes_of(ask), ask.models, words.limits_of(ask), expires)
            book.put(made.key)
        return KeyMade(words.key_info(made.key), made.secret)

    def revoke_key(self, key: str) -> KeyInfo:
        from dataclasses import replace

        from corral import clock
        from corral.access_words import key_info

        def revoked(found: Key) -> Key:
            return found if found.revoked_wall_s is not None else replace(found, revoked_wall_s=clock.wall())

        return key_info(self._change(key, revoked))

    def rotate_key(self, key: str, overlap_s: float) -> KeyMade:
        from corral.access.desk import find, rotated
        from corral.access_words import key_info
        from corral.api_access import KeyMade

        with self._writing() as book:
            made = rotated(find(book.keys(), key), overlap_s)
            book.put(made.key)
        return KeyMade(key_info(made.key), made.secret)

    def key_usage(self, key: str | None, since_s: float | None, by: tuple[str, ...]) -> list[UsageRow]:
        from corral import access_words as words
        from corral.access.desk import asked_of

        with self._book() as book:
            if book is None:
                return []
            known = book.keys()
            used = book.usage(words.since_day(since_s), asked_of(known, key))
            return words.usage_rows(used, by, lambda each: known[each].name if each in known else "")

    def _change(self, wanted: str, change: Callable[[Key], Key]) -> Key:
        from corral.access.desk import find

        with self._writing() as book:
            key = change(find(book.keys(), wanted))
            book.put(key)
        return key

    @contextmanager
    def _book(self) -> Iterator[Book | None]:
        from corral.access.book import Book

        if not self._app.paths.access_file.exists():
            yield None
            return
        book = Book(self._app.paths.access_file)
        try:
            yield book
        finally:
            book.close()

    @contextmanager
    def _writing(self) -> Iterator[Book]:
        from corral.access.book import Book

        self._app.paths.make()
        book = Book(self._app.paths.access_file)
        try:
            yield book
        finally:
            book.close()
        with suppress(CorralError):  # a server that came up meanwhile may have read the file before
            self._app.client().reload()
