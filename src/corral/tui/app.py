"""The application: keys and news change the view, and the pane shows it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from textual import events
from textual.app import App, ComposeResult

from corral import clock
from corral.client import Client
from corral.connection import Cord
from corral.tui import feed
from corral.tui.driver import OutputDriver
from corral.tui.page import Page, Row, help_rows
from corral.tui.pane import Pane
from corral.tui.screen import screen
from corral.tui.spans import Line
from corral.tui.told import event_row, event_rows, story_rows
from corral.tui.view import View, meant, question

LOG_LINES = 500
_DONE = {"start": "starting", "stop": "stopping", "restart": "restarting"}
_VERBS = {"s": "start", "x": "stop", "r": "restart"}
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -10, "pagedown": 10, "home": -(10**6), "end": 10**6}


class Top(App[None]):
    """`corral top` on a terminal."""

    TITLE = "corral top"
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    CSS = "Screen { background: ansi_default; color: ansi_default; }"

    def __init__(
        self, find: Callable[[], Client], view: View, *, interval_s: float, colors: bool, ascii_only: bool
    ) -> None:
        # The terminal's own sixteen colours: they suit its background, light or dark, and cost few bytes.
        super().__init__(OutputDriver, ansi_color=True)
        self.view = view
        self.page: Page | None = None
        self._pages = 0
        self._still = False
        self._cord: Cord | None = None  # of what the page follows
        self._story_seq = 0
        self._mail: deque[feed.News] = deque()
        self._called = False
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self.pane = Pane(self._draw, colors=colors, ascii_only=ascii_only)
        self.feed = feed.Feed(find, self._post, interval_s)

    def compose(self) -> ComposeResult:
        yield self.pane

    def on_mount(self) -> None:
        self._event_loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():  # signals come to no other
            self._event_loop.add_signal_handler(signal.SIGTERM, self.exit)
        self.pane.focus()
        self.set_interval(1.0, self._tick)
        self.feed.start()

    def end(self) -> None:
        """After the application: no thread is left."""
        self.feed.end()

    # News, from the feed's threads

    def _post(self, news: feed.News) -> None:
        self._mail.append(news)
        if not self._called and self._event_loop is not None:
            self._called = True
            with suppress(RuntimeError):  # the loop has ended, and with it who would read this
                self._event_loop.call_soon_threadsafe(self._read)

    def _read(self) -> None:
        self._called = False
        while self._mail:
            self._take(self._mail.popleft())
        self.pane.redraw()

    def _take(self, news: feed.News) -> None:
        view, now = self.view, clock.wall()
        match news:
            case feed.Seen(live):
                if not self._still:
                    view.seen(live, now)
                    self._refresh_story()
            case feed.Missed(error):
                view.missed(error.message, error.hint, now)
            case feed.Happened(event):
                if not self._still:
                    view.happened([event])
                    if self.page is not None and self.page.title == "events":
                        self.page.add([event_row(event)])
            case feed.Said(text, bad):
                view.say(text, bad=bad)
            case _:
                self._take_for_page(news)

    def _take_for_page(self, news: feed.News) -> None:
        page = self.page
        if page is None or not isinstance(news, (feed.Wrote, feed.Told, feed.Broke)) or news.page != page.number:
            return
        match news:
            case feed.Wrote(_, text):
                page.add([Row(text)])
            case feed.Told(_, story):
                page.put(story_rows(story, clock.wall()))
            case feed.Broke(_, error):
                page.add([Row(""), Row(feed.in_words(error), "red")])

    def _tick(self) -> None:
        if not self._still:
            self.view.tick(clock.wall())
        self.pane.redraw()

    def _draw(self, width: int, height: int) -> list[Line]:
        return self.page.lines(width, height) if self.page is not None else screen(self.view, width, height)

    # Keys

    def on_key(self, event: events.Key) -> None:
        key = event.character if event.character and event.character.isprintable() else event.key
        event.prevent_default()
        event.stop()
        if key == "ctrl+c":
            self.exit()
            return
        if key == "ctrl+z":
            self.action_suspend_process()
            return
        if self.view.question is not None:
            self._answer(key)
        elif self.page is not None:
            self._page_key(key)
        else:
            self._key(key)
        self.pane.redraw()

    def _answer(self, key: str) -> None:
        asked, self.view.question = self.view.question, None
        if asked is not None and key in ("y", "Y"):
            self._do(asked.verb, asked.model)
        else:
            self.view.say("nothing was done")

    def _page_key(self, key: str) -> None:
        assert self.page is not None
        if key in ("escape", "q", "backspace"):
            self._close()
        else:
            self.page.scroll(key)

    def _key(self, key: str) -> None:
        view = self.view
        view.notice = None
        if key in _MOVES:
            view.move(_MOVES[key])
        elif key in _VERBS:
            self._act(_VERBS[key])
        elif key == "q":
            self.exit()
        elif key in ("o", "O"):
            view.next_order(1 if key == "o" else -1)
            view.say(f"sorted by {view.order}")
        elif key == "i":
            view.backwards = not view.backwards
            view.say(f"sorted by {view.order}{', the other way round' if view.backwards else ''}")
        elif key == "a":
            view.show_stopped(not view.stopped_too)
            view.say("what is stopped is shown too" if view.stopped_too else "what is stopped is not shown")
        elif key == " ":
            self._still = not self._still
            if self._still:
                view.say("this picture stands still; Space lets it go on")
        elif key in ("question_mark", "?", "h"):
            self._open("help").put(help_rows())
        elif key == "e":
            page = self._open("events", follows=True)
            page.put(event_rows(view.events))
        elif key == "l":
            self._open_log()
        elif key in ("y", "enter"):
            self._open_story()

    def _act(self, verb: str) -> None:
        unit = self.view.chosen()
        if unit is None:
            self.view.say("no model is chosen")
        elif self.view.lost is not None:
            self.view.say("no server answers", bad=True)
        elif verb != "start" and (asked := question(verb, unit, self.view.units())) is not None:
            self.view.question = asked
        else:
            self._do(verb, meant(verb, unit))

    def _do(self, verb: str, model: str) -> None:
        self.view.say(f"{_DONE[verb]} {model} …")
        self.feed.act(verb, model)

    # Pages

    def _open(self, title: str, *, model: str | None = None, follows: bool = False) -> Page:
        self._close()
        self._pages += 1
        self.page = Page(self._pages, title, model=model, follows=follows)
        return self.page

    def _close(self) -> None:
        self.page = None
        if self._cord is not None:
            self._cord.pull()
            self._cord = None

    def _open_log(self) -> None:
        if (model := self.view.cursor) is not None:
            page = self._open(f"log of {model}", model=model, follows=True)
            page.notice = f"{model} has written nothing yet."
            self._cord = self.feed.follow_log(page.number, model, LOG_LINES)

    def _open_story(self) -> None:
        if (model := self.view.cursor) is not None:
            page = self._open(f"story of {model}", model=model, follows=True)
            page.notice = "Asking the server …"
            self._story_seq = self._newest()
            self._cord = self.feed.tell_story(page.number, model)

    def _refresh_story(self) -> None:
        """The story goes on when something happened since it was told."""
        page = self.page
        if (
            page is None
            or page.model is None
            or not page.title.startswith("story")
            or self._newest() == self._story_seq
        ):
            return
        self._story_seq = self._newest()
        self._cord = self.feed.tell_story(page.number, page.model)

    def _newest(self) -> int:
        return self.view.events[-1].seq if self.view.events else 0
