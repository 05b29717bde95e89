"""Stories and events as rows of a page, as `corral story` and `corral events` print them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from corral.api import EventInfo, Story
from corral.cli import words
from corral.tui.page import Row
from corral.tui.screen import event_style
from corral.tui.spans import clean
from corral.units import show_duration


def story_rows(story: Story, now_wall_s: float) -> list[Row]:
    rows: list[Row] = []
    if not story.chapters:
        return [Row(f"Nothing happened to {clean(story.model)} yet.", "dim")]
    if story.left_out:
        rows.append(Row(f"{story.left_out} earlier lines are left out: corral story {story.model} --lines", "dim"))
    for chapter in story.chapters:
        if rows:
            rows.append(Row(""))
        ago = show_duration(max(0.0, now_wall_s - chapter.began_wall_s))
        title = f"Start {chapter.generation}" if chapter.generation is not None else "Before"
        rows.append(Row(f"{title}, {words.moment(chapter.began_wall_s)}, {ago} ago", "bold"))
        for told in chapter.lines:
            after = f"+{show_duration(told.after_s)}" if told.after_s >= 0.0005 else "+0"
            rows.append(Row(f"  {after:<14} {clean(told.text)}", "", 17))
    return rows


def event_rows(events: Sequence[EventInfo]) -> list[Row]:
    return [event_row(event) for event in events]


def event_row(event: EventInfo) -> Row:
    about = clean(event.model or "corral")
    return Row(f"{words.moment(event.wall_s)}  {about}  {event.kind}  {clean(event.text)}", event_style(event), 21)
