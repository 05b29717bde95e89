"""What keys do and what news show, against a small real server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from textual.strip import Strip

from corral.api import ErrorInfo
from support.pictures import NOW, at_work, live, stopped, unit
from support.small_server import SmallServer, serving
from support.watching import watching


@pytest.fixture
def place(short_tmp: Path) -> Path:
    return short_tmp / "s.sock"


@pytest.fixture
def server(place: Path) -> Iterator[SmallServer]:
    with serving(place) as state:
        yield state


def acted(server: SmallServer) -> list[tuple[str, str]]:
    """What the server was told to do, and with which model."""
    verbs = ("/control/start", "/control/stop", "/control/restart")
    return [(path.rsplit("/", 1)[1], body["model"]) for path, body in server.asked if path in verbs]


async def test_the_picture_is_taken_anew_by_itself(server: SmallServer, place: Path) -> None:
    """What changes on the server shows without a key."""
    async with watching(place) as watch:
        await watch.shows("● ready")
        server.live = live(units=[unit(state="draining", busy=1)])
        await watch.shows("◑ draining")


async def test_start_acts_at_once(server: SmallServer, place: Path) -> None:
    """And says what the server answered."""
    server.live = live(units=[stopped("demo")])
    async with watching(place) as watch:
        await watch.shows("○ stopped")
        await watch.press("s")
        await watch.shows("start: demo done")
    assert acted(server) == [("start", "demo")]
    assert all(body["wait"] is False for path, body in server.asked if path == "/control/start")


async def test_an_idle_model_is_stopped_without_a_question(server: SmallServer, place: Path) -> None:
    async with watching(place) as watch:
        await watch.shows("● ready")
        await watch.press("x")
        await watch.shows("stop: demo done")
    assert acted(server) == [("stop", "demo")]


@pytest.mark.parametrize(("key", "verb"), [("x", "stop"), ("r", "restart")])
async def test_a_busy_model_is_stopped_only_after_a_yes(server: SmallServer, place: Path, key: str, verb: str) -> None:
    """Whatever else is pressed does nothing, and that is said."""
    server.live = live(units=[unit(busy=2, queued=1)])
    async with watching(place) as watch:
        await watch.shows("2/4")
        await watch.press(key)
        await watch.shows("demo answers 2 requests and has 1 waiting")
        await watch.press("n")
        await watch.shows("nothing was done")
        assert acted(server) == []
        await watch.press(key)
        await watch.shows("y yes  n no")
        await watch.press("y")
        await watch.shows(f"{verb}: demo done")
    assert acted(server) == [(verb, "demo")]


async def test_a_failed_action_says_why(server: SmallServer, place: Path) -> None:
    """In the server's words, with its hint."""
    server.live = live(units=[stopped("ill")])
    async with watching(place, size=(120, 24)) as watch:
        await watch.shows("○ stopped")
        await watch.press("s")
        await watch.shows("ill ended while loading: see: corral logs ill")


async def test_the_cursor_chooses_whom_keys_act_on(server: SmallServer, place: Path) -> None:
    server.live = live(units=[unit("demo"), stopped("endless"), stopped("thinker")])
    async with watching(place) as watch:
        await watch.shows("▶ demo")
        await watch.press("down", "j", "down")
        await watch.shows("▶ thinker")
        await watch.press("up")
        await watch.shows("▶ endless")
        await watch.press("s")
        await watch.shows("start: endless done")
    assert acted(server) == [("start", "endless")]


async def test_sorting_keeps_the_cursor_on_its_model(server: SmallServer, place: Path) -> None:
    """`o` goes from order to order, `i` turns it round."""

    def order(text: str) -> list[str]:
        names = ("embeddings", "llama-70b", "mistral-small", "phi4-mini", "qwen3", "vision")
        return [line[2:].split()[0] for line in text.splitlines() if line[2:].startswith(names) and "/4" in line]

    server.live = at_work()
    async with watching(place, size=(100, 30)) as watch:
        await watch.shows("▶ embeddings")
        await watch.press("o", "o")
        await watch.shows("sorted by memory")
        text = await watch.until(lambda text: order(text)[:1] == ["qwen3-coder:30b"])
        assert "▶ embeddings" in text
        await watch.press("i")
        await watch.until(lambda text: order(text)[-1:] == ["qwen3-coder:30b"])


async def test_stopped_models_can_be_left_out(server: SmallServer, place: Path) -> None:
    server.live = live(units=[unit("demo"), stopped("endless")])
    async with watching(place) as watch:
        await watch.shows("endless")
        await watch.press("a")
        await watch.no_longer("endless")
        await watch.press("a")
        await watch.shows("endless")


async def test_the_log_is_followed_until_it_is_left(server: SmallServer, place: Path) -> None:
    """Its end, then each new line; leaving it closes the stream."""
    async with watching(place) as watch:
        await watch.shows("● ready")
        await watch.press("l")
        text = await watch.shows("later line")
        assert "log of demo" in text and "line 5" in text
        server.left.clear()
        await watch.press("escape")
        await watch.shows("MODEL")
        await watch.until(lambda _: server.left.is_set())


async def test_the_log_of_a_model_that_is_gone_says_so(server: SmallServer, place: Path) -> None:
    server.live = live(units=[unit("gone")])
    async with watching(place) as watch:
        await watch.shows("gone")
        await watch.press("l")
        await watch.shows("no model is called 'gone': did you mean demo?")


async def test_the_story_is_told(server: SmallServer, place: Path) -> None:
    async with watching(place) as watch:
        await watch.shows("● ready")
        await watch.press("y")
        text = await watch.shows("asked for by a request")
        assert "story of demo" in text and "Start 1" in text


async def test_events_show_as_they_happen(server: SmallServer, place: Path) -> None:
    """From the event log that is followed, and on a page of their own."""
    async with watching(place) as watch:
        await watch.shows("event 4")
        await watch.press("e")
        text = await watch.shows("unit.state  event 4")
        assert text.count("event 4") == 1


async def test_help_names_every_key(server: SmallServer, place: Path) -> None:
    async with watching(place, size=(100, 40)) as watch:
        await watch.press("question_mark")
        text = await watch.shows("this page")
        for key in ("s ", "x ", "r ", "l ", "y, Enter", "e ", "o, O", "i ", "a ", "Space", "Ctrl-C"):
            assert f"\n  {key}" in text, key
        await watch.press("q")
        await watch.shows("MODEL")


async def test_a_server_that_ends_is_waited_for(place: Path) -> None:
    """It says so and what to do, keeps what it saw, and goes on with the next server."""
    with serving(place):
        watch_context = watching(place)
        watch = await watch_context.__aenter__()
        await watch.shows("● ready")
    try:
        text = await watch.shows("no Corral server at")
        assert "corral serve" in text and "● ready" in text
        await watch.press("s")
        await watch.shows("no server answers")
        with serving(place) as second:
            second.live = replace(live(units=[unit("other")]), pid=4712, started_wall_s=NOW)
            text = await watch.shows("the server was started again: process 4712")
            assert "other" in text and "no Corral server" not in text
    finally:
        await watch_context.__aexit__(None, None, None)


async def test_a_key_that_may_not_is_told_so(server: SmallServer, place: Path) -> None:
    """The server's sentence about the scope stands where a lost server's would."""
    hint = "make one with: corral keys create --scope admin"
    server.refusal = ErrorInfo("forbidden", "the key ck_1 is not good for this: it needs the scope admin", hint, 403)
    async with watching(place) as watch:
        text = await watch.shows("it needs the scope admin")
        assert "corral keys create" in text


async def test_space_holds_the_picture(server: SmallServer, place: Path) -> None:
    async with watching(place) as watch:
        await watch.shows("● ready")
        await watch.press("space")
        await watch.shows("stands still")
        asked = len(server.asked)
        server.live = live(units=[unit(state="failed")])
        await watch.until(lambda _: len(server.asked) > asked + 3)
        assert "● ready" in watch.text
        await watch.press("space")
        await watch.shows("✗ failed")


async def test_a_new_size_is_filled(server: SmallServer, place: Path) -> None:
    async with watching(place) as watch:
        await watch.shows("● ready")
        await watch.resize(150, 40)
        await watch.until(lambda text: "DEVICE" in text and len(text.splitlines()) == 40)


async def test_only_what_changed_is_drawn_again(server: SmallServer, place: Path) -> None:
    """So a slow line carries little, and nothing flickers."""
    async with watching(place) as watch:
        await watch.shows("event 4")
        drawn: set[int] = set()
        head = asyncio.Event()
        render = watch.top.pane.render_line

        def seen(y: int) -> Strip:
            drawn.add(y)
            if y == 0:
                head.set()
            return render(y)

        watch.top.pane.render_line = seen  # type: ignore[method-assign]
        for busy in range(7, 12):  # the first pictures may still be drawn
            server.live = replace(server.live, in_flight=busy)
            drawn.clear()
            head.clear()
            await asyncio.wait_for(head.wait(), 20)
            if drawn <= {0, 1, 5}:  # the head, and what goes on with time
                break
        assert drawn <= {0, 1, 5}
        watch.top.pane.render_line = render  # type: ignore[method-assign]


async def test_without_colours_styles_stay(server: SmallServer, place: Path) -> None:
    """What a colour says, a word or a mark says too; bold and reversed stay."""
    server.live = at_work()
    async with watching(place, colors=False) as watch:
        await watch.shows("✗ failed")
        pane = watch.top.pane
        styles = [segment.style for y in range(24) for segment in pane.render_line(y) if segment.style]
        assert not [style for style in styles if style.color or style.bgcolor]
        assert any(style.reverse for style in styles)


async def test_a_hung_server_does_not_hold_the_way_out(server: SmallServer, place: Path) -> None:
    """Leaving cuts off what waits for an answer: no thread is left."""
    async with watching(place) as watch:
        await watch.shows("● ready")
        await watch.press("l")
        await watch.shows("later line")
    assert not [each for each in threading.enumerate() if each.name.startswith("corral top")]
