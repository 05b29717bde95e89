"""The main screen as text, at several sizes: what stands under `screens/` is what a person sees.

`CORRAL_TEST_RECORD=1` writes those files anew; look at them before they are kept.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from corral.api_live import Live
from corral.tui.marks import in_ascii
from corral.tui.screen import screen
from corral.tui.spans import text_of, wide
from corral.tui.view import View, question
from support.pictures import NOW, at_work, device, live, unit

SCREENS = Path(__file__).parent / "screens"
RECORD = os.environ.get("CORRAL_TEST_RECORD") == "1"  # before the tests hide such variables

pytestmark = pytest.mark.usefixtures("utc")


def seeing(picture: Live, *, cursor: str | None = None) -> View:
    view = View("", cursor=cursor)
    view.seen(picture, NOW)
    return view


def drawn(view: View, width: int, height: int) -> str:
    lines = screen(view, width, height)
    assert len(lines) == height
    assert all(wide(line) <= width for line in lines), [text_of(line) for line in lines if wide(line) > width]
    return "".join(text_of(line).rstrip() + "\n" for line in lines)


def kept(name: str, text: str) -> None:
    """Compares with the file of that name."""
    file = SCREENS / f"{name}.txt"
    if RECORD:
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def test_a_server_at_work_fits_80_by_24() -> None:
    """Devices, models in every state, downloads and events, each with what matters most."""
    kept("at-work-80x24", drawn(seeing(at_work(), cursor="qwen3-coder:30b"), 80, 24))


def test_a_larger_terminal_shows_more() -> None:
    kept("at-work-150x40", drawn(seeing(at_work(), cursor="llama-70b"), 150, 40))


def test_a_small_window_keeps_models_and_keys() -> None:
    kept("at-work-50x12", drawn(seeing(at_work(), cursor="vision"), 50, 12))


def test_a_server_that_does_nothing() -> None:
    kept("idle-80x24", drawn(seeing(live()), 80, 24))


def test_a_server_that_went_away_stays_on_the_screen() -> None:
    """What was last seen, why there is no more, what to do, and for how long."""
    view = seeing(live())
    view.missed("no Corral server is running", "start one with: corral serve", NOW + 1)
    view.missed("no Corral server is running", "start one with: corral serve", NOW + 13)
    kept("lost-80x24", drawn(view, 80, 24))


def test_ascii_alone_says_the_same() -> None:
    """Every state has its word and a mark of its own, without colours and without Unicode."""
    text = in_ascii(drawn(seeing(at_work(), cursor="mistral-small"), 80, 24))
    assert text.isascii()
    kept("ascii-80x24", text)


def test_every_size_is_filled_exactly() -> None:
    """No size makes it fail, draw beyond the edge, or draw too many lines."""
    for view in (seeing(at_work(), cursor="vision"), seeing(live(units=[], devices=[])), View("")):
        for width in (8, 20, 40, 79, 80, 81, 119, 120, 200, 400):
            for height in (1, 2, 3, 5, 8, 13, 24, 25, 60):
                drawn(view, width, height)


def test_names_of_other_writings_keep_the_columns() -> None:
    """Wide and combining characters are counted as a terminal draws them; controls of a server never reach one."""
    units = [unit("模型模型模型模型模型模型模型模型"), unit("e\u0301te\u0301"), unit("evil\x1b[2J\nname")]
    text = drawn(seeing(live(units=units)), 80, 24)
    assert "\x1b" not in text and "evil" in text and "模型…" in text


def test_the_cursor_stays_in_sight_in_a_long_list() -> None:
    units = [unit(f"model-{number:03}") for number in range(200)]
    for cursor in ("model-000", "model-100", "model-199"):
        assert f"▶ {cursor}" in drawn(seeing(live(units=units), cursor=cursor), 80, 24)


def test_devices_that_have_no_room_are_counted() -> None:
    text = drawn(seeing(live(devices=[device(f"gpu{number}") for number in range(16)])), 80, 24)
    assert "more devices, for which there is no room" in text


def test_a_device_that_cannot_be_used_says_why() -> None:
    lost = device("gpu0", problem="the driver does not answer", total_bytes=None, free_bytes=None)
    assert "▲ the driver does not answer" in drawn(seeing(live(devices=[lost])), 80, 24)


def test_a_question_shows_its_answers_in_a_narrow_terminal_too() -> None:
    view = seeing(live(units=[unit("a-model-with-a-long-name-and-then-some", busy=3, queued=12)]))
    view.question = question("restart", view.units()[0], view.units())
    last = drawn(view, 80, 24).splitlines()[-1]
    assert last.endswith("y yes  n no") and "a-model-with-a-long-name" in last


def test_a_server_without_models_says_how_to_get_one() -> None:
    assert "corral pull" in drawn(seeing(live(units=[])), 80, 24)


def test_the_chosen_unit_is_told_in_words() -> None:
    """What is degraded or failed has its reason below the table."""
    text = drawn(seeing(at_work(), cursor="mistral-small"), 80, 24)
    assert "degraded: cpu (the Vulkan driver hangs)" in text
    text = drawn(seeing(at_work(), cursor="llama-70b"), 80, 24)
    assert "out of memory on gpu0 (wanted 38.2 GiB" in text


def test_times_are_the_servers_own() -> None:
    """A server whose clock is an hour behind shows the same ages."""
    view = View("")
    view.seen(replace(live(), wall_s=NOW), NOW + 3600)
    assert drawn(view, 80, 24) == drawn(seeing(live()), 80, 24)
