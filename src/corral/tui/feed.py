"""The threads that ask the server and post what they hear; the screen never waits for any of them.

A post is called in those threads. `Feed.end` pulls every thread's cord and waits for all of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from corral.connection import Cord
from corral.errors import CorralError, Forbidden, NotFound, Unauthorized
from corral.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from corral.api import EventInfo, Story
    from corral.api_live import Live
    from corral.client import Client

LEAST_S = 0.2
"""However many events come, the live picture is asked for at most this often."""
AGAIN_S = 1.0
_ENDING_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    live: Live


@dataclass(frozen=True, slots=True)
class Missed:
    """The server could not be asked, or refused."""

    error: CorralError


@dataclass(frozen=True, slots=True)
class Happened:
    event: EventInfo


@dataclass(frozen=True, slots=True)
class Said:
    """What became of an action."""

    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Wrote:
    """A line of an engine's log, for the page numbered `page`."""

    page: int
    text: str


@dataclass(frozen=True, slots=True)
class Told:
    """A model's story, for the page numbered `page`."""

    page: int
    story: Story


@dataclass(frozen=True, slots=True)
class Broke:
    """What a page waits for does not come."""

    page: int
    error: CorralError


News = Seen | Missed | Happened | Said | Wrote | Told | Broke


class Feed:
    """Asks for the live picture every `interval_s`, follows the events, and does what keys ask for."""

    def __init__(self, find: Callable[[], Client], post: Callable[[News], None], interval_s: float) -> None:
        self._find = find
        self._post = post
        self._interval_s = interval_s
        self._over = threading.Event()
        self._wake = threading.Event()
        self._seen = threading.Event()
        self._last_seq = 0
        self._threads: dict[threading.Thread, Cord] = {}

    def start(self) -> None:
        self._run("live", self._watch)
        self._run("events", self._follow_events)

    def end(self) -> None:
        """All threads end; those that wait for an answer are cut off."""
        self._over.set()
        self._wake.set()
        self._seen.set()
        for cord in list(self._threads.values()):
            cord.pull()
        deadline = time.monotonic() + _ENDING_S
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))

    def act(self, verb: str, model: str) -> None:
        """start, stop or restart; nobody waits for its end, which is seen as it comes."""

        def work(cord: Cord) -> None:
            try:
                client = self._client(cord)
                result = getattr(client, verb)(model, wait=False)
                self._post(Said(result.text))
            except CorralError as error:
                if not cord.pulled:
                    self._post(Said(in_words(error), bad=True))
            self._wake.set()

        self._run(verb, work)

    def follow_log(self, page: int, model: str, lines: int) -> Cord:
        """Posts the end of the engine's log, and each new line, until the cord is pulled."""

        def work(cord: Cord) -> None:
            try:
                for text in self._client(cord).follow_logs(model, lines):
                    if cord.pulled:
                        return
                    self._post(Wrote(page, text))
            except CorralError as error:
                if not cord.pulled:
                    self._post(Broke(page, error))

        return self._run("log", work)

    def tell_story(self, page: int, model: str) -> Cord:
        def work(cord: Cord) -> None:
            try:
                self._post(Told(page, self._client(cord).story(model, lines=300)))
            except CorralError as error:
                if not cord.pulled:
                    self._post(Broke(page, error))

        return self._run("story", work)

    def _run(self, name: str, work: Callable[[Cord], None]) -> Cord:
        cord = Cord()
        for thread in [each for each in self._threads if not each.is_alive()]:
            del self._threads[thread]
        # A daemon thread, for one that hangs where no cord reaches, in a connect, must not hold the terminal.
        thread = threading.Thread(target=work, args=(cord,), name=f"corral top: {name}", daemon=True)
        self._threads[thread] = cord
        if not self._over.is_set():
            thread.start()
        return cord

    def _client(self, cord: Cord) -> Client:
        client = self._find()
        client.cord = cord
        return client

    def _watch(self, cord: Cord) -> None:
        while not self._over.is_set():
            asked = time.monotonic()
            try:
                live = self._client(cord).live()
            except CorralError as error:
                if not self._over.is_set():
                    self._post(Missed(error))
                self._wait(asked + max(AGAIN_S, self._interval_s))
                continue
            if live.events:
                self._last_seq = live.events[-1].seq
            self._post(Seen(live))
            self._seen.set()
            self._wait(asked + self._interval_s, least=asked + LEAST_S)

    def _wait(self, until: float, least: float | None = None) -> None:
        """Until then, or from `least` on until somebody wants the picture at once."""
        if least is not None:
            self._wake.wait(max(0.0, until - time.monotonic()))
            self._over.wait(max(0.0, least - time.monotonic()))
            self._wake.clear()
        else:
            self._over.wait(max(0.0, until - time.monotonic()))

    def _follow_events(self, cord: Cord) -> None:
        """Each event as it happens, and a look at all the rest when one does."""
        while not self._over.is_set():
            self._seen.clear()
            self._seen.wait()
            if self._over.is_set():
                return
            wait_s = AGAIN_S
            try:
                for event in self._client(cord).follow_events(self._last_seq):
                    self._post(Happened(event))
                    self._wake.set()
            except (Forbidden, Unauthorized, NotFound):
                wait_s = 60.0  # the live picture has them too, a second later
            except CorralError:
                pass
            self._over.wait(wait_s)


def in_words(error: CorralError) -> str:
    """An error and its hint as one sentence."""
    return f"{error.message}: {error.hint}" if error.hint else error.message
