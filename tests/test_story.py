"""The words of a story."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corral.api import EventInfo, Story
from corral.story import tell
from corral.supervisor.machine import TABLE, State

GIB = 1 << 30


class Events:
    """A log written by hand; `at` is when the next one happens."""

    def __init__(self) -> None:
        self.all: list[EventInfo] = []
        self.at = 1000.0

    def post(self, kind: str, text: str = "", *, after_s: float = 0.0, model: str | None = "qwen", **data: Any) -> None:
        self.at += after_s
        unit = data.pop("unit", f"{model}.1")
        self.all.append(EventInfo(len(self.all) + 1, self.at, kind, model, unit, text, data))

    def step(self, event: str, before: str, after: str, why: str = "", **data: Any) -> None:
        self.post("unit.state", f"{before} → {after}", event=event, before=before, after=after, why=why, **data)

    def up(self, generation: int = 1, after_s: float = 0.0, load_ms: float = 3400.0) -> None:
        unit = f"qwen.{generation}"
        self.step("start asked", "stopped", "starting", unit=unit, after_s=after_s)
        self.step("spawned", "starting", "loading", "pid 7", pid=7, unit=unit)
        self.step("became ready", "loading", "ready", "loaded", load_ms=load_ms, unit=unit, after_s=load_ms / 1000)

    def told(self, **options: Any) -> list[list[str]]:
        return words(tell(self.all, "qwen", **options))


def words(story: Story) -> list[list[str]]:
    return [[line.text for line in chapter.lines] for chapter in story.chapters]


def test_a_start_that_had_to_make_room() -> None:
    """Who asked, what was stopped for it and why, and how long the load took."""
    events = Events()
    events.post("request.waits", "a request for qwen waits as number 1, about 4 s")
    events.post(
        "scheduler.stop", "stop gemma", model="gemma", why="making room for qwen", idle_s=240.0,
        needs={"gpu0": 3 * GIB + GIB // 10, "cpu": GIB}, free={"gpu0": 6 * GIB // 5, "cpu": 9 * GIB},
    )  # fmt: skip
    events.post("scheduler.start", "start qwen", why="a request asked for it", after_s=0.5)
    events.up()
    assert events.told() == [
        [
            "asked for by a request, which waits",
            "gemma (idle for 4 min) was stopped to make room (3.1 GiB needed on gpu0, 1.2 GiB free)",
            "started",
            "ready, loaded in 3.4 s",
        ]
    ]


def test_a_crash_and_what_was_done_about_it() -> None:
    """A crash is told with its reason and how fast it was seen, and the next start is a chapter of its own."""
    events = Events()
    events.post("scheduler.start", "start qwen", why="a request asked for it")
    events.up()
    reason = "qwen ended: the kernel killed it for want of memory (SIGKILL)"
    events.step("failed", "ready", "backoff", reason, detected_ms=2.4, cause="memory", failures=2, retry_in_s=0.5)
    events.post("unit.fallback", "qwen.1: it is started again with a smaller batch")
    events.post("unit.wanted", "", why="pinned")
    events.up(2)
    assert events.told() == [
        [
            "started: a request asked for it",
            "ready, loaded in 3.4 s",
            "crashed: the kernel killed it for want of memory (SIGKILL) (seen after 2 ms); "
            "it may be tried again in 500 ms",
            "it is started again with a smaller batch",
        ],
        ["wanted again by itself: it is pinned", "started", "ready, loaded in 3.4 s"],
    ]


def test_a_hang() -> None:
    """What showed the hang is told once."""
    events = Events()
    events.up()
    events.post("unit.hung", "qwen.1 hangs", evidence="no answer to 6 questions after its health in 23 s", after_s=60.0)
    why = "qwen hung and was killed: no answer to 6 questions after its health in 23 s"
    events.step("failed", "ready", "backoff", why, cause="hang", detected_ms=3.0, failures=1, retry_in_s=0)
    assert events.told() == [
        [
            "started",
            "ready, loaded in 3.4 s",
            "hung: no answer to 6 questions after its health in 23 s; it was killed",
        ]
    ]


def test_giving_up() -> None:
    """What failed too often says so, with what to do."""
    events = Events()
    events.step("start asked", "stopped", "starting")
    why = "qwen ended with exit code 3: cannot do it"
    events.step("gave up", "loading", "failed", why, cause="exit", failures=6, hint="see `corral logs`")
    [[_, text]] = events.told()
    assert text == (
        "did not come up: ended with exit code 3: cannot do it; that was the sixth failure in a row; "
        "it is left alone until somebody asks for it (see `corral logs`)"
    )


def test_a_server_that_was_killed_and_one_that_ended() -> None:
    """An engine that outlived its server goes on in the same chapter; an end in order is told with its reason."""
    events = Events()
    events.post("server.ready", "listening", model=None)
    events.up()
    events.step("adopted", "stopped", "ready", "it was running already", after_s=9.0)
    events.post("server.ready", "listening", model=None)
    events.post("server.ending", "ending: SIGTERM", model=None, after_s=9.0)
    events.step("stop asked", "ready", "stopping", "Corral ends")
    events.step("exited", "stopping", "stopped", "exit code 0")
    events.post("server.ended", "ended", model=None)
    assert events.told() == [
        [
            "started",
            "ready, loaded in 3.4 s",
            "Corral ended without a word; its engine ran on and was taken over",
            "Corral is ending: SIGTERM",
            "stopped: Corral ends",
        ]
    ]


def test_a_server_that_took_over() -> None:
    """A handover is told as one, the second like the first, also where the earlier server's last word is lost; one that
    came to nothing is none, so that a server which is killed after it ended without a word."""
    events = Events()
    events.post("server.ready", "listening", model=None)
    events.up()
    for pid in (7, 8):
        events.post("server.ending", "ending: another server takes over, with the engines", model=None)
        events.post("server.handover", f"takes over from process {pid}", model=None, pid=pid)
        events.step("adopted", "stopped", "ready", "it was running already", after_s=1.0)
        events.post("server.handover", f"took over from process {pid} with qwen", model=None, pid=pid)
        events.post("server.ready", "listening", model=None)
    events.post("server.handover", "takes over from process 9", model=None, pid=9)
    events.step("adopted", "ready", "ready", "it was running already", after_s=1.0)
    events.post("server.ready", "listening", model=None)
    events.post("server.handover", "the server that was to take over went away: this one goes on", model=None)
    events.step("adopted", "ready", "ready", "it was running already", after_s=1.0)
    ending = "Corral is ending: another server takes over, with the engines"
    assert events.told() == [
        [
            "started",
            "ready, loaded in 3.4 s",
            ending,
            "taken over from process 7: it was running already",
            ending,
            "taken over from process 8: it was running already",
            "taken over from process 9: it was running already",
            "Corral ended without a word; its engine ran on and was taken over",
        ]
    ]


def test_a_stop_that_took_its_time() -> None:
    """An end is told of only where it did not come at once."""
    events = Events()
    events.up()
    events.step("stop asked", "ready", "stopping", "it was idle")
    events.step("exited", "stopping", "stopped", "ended by signal 9", after_s=10.0)
    assert events.told()[0][-2:] == ["stopped: it was idle", "gone after 10 s: ended by signal 9"]


def test_the_same_refusal_is_told_once() -> None:
    """Refusals that say the same become one line with their number."""
    events = Events()
    events.up()
    for _ in range(3):
        events.post("request.refused", "256 requests wait already", code="queue_full")
    until = datetime.fromtimestamp(events.at).strftime("%H:%M:%S")
    assert events.told()[0][-1] == f"a request was refused: 256 requests wait already (3 times until {until})"


def test_the_same_again_is_folded() -> None:
    """What says the same again and again is one line, with how often and until when; so it is where two take turns."""
    events = Events()
    for _ in range(5):
        events.post("request.waits", "a request for qwen waits as number 1, about 4 s", after_s=10.0)
    waited = events.at
    events.post("scheduler.start", "start qwen", why="a request asked for it")
    events.up()
    for _ in range(3):
        events.post("unit.warning", "qwen.1: the disk is slow", after_s=1.0)
        events.post("unit.dropped", "qwen.1: connection reset", after_s=1.0)
    times = [datetime.fromtimestamp(at).strftime("%H:%M:%S") for at in (waited, events.at - 1.0, events.at)]
    assert events.told() == [
        [
            f"asked for by a request, which waits (5 times until {times[0]})",
            "started",
            "ready, loaded in 3.4 s",
            f"warning: the disk is slow (3 times until {times[1]})",
            f"connection reset (3 times until {times[2]})",
        ]
    ]
    assert events.told(since_wall_s=events.at) == [[f"connection reset (3 times until {times[2]})"]]
    events.post("unit.warning", "qwen.1: the disk is slow", after_s=2 * 86400.0)
    date = datetime.fromtimestamp(events.at).strftime("%Y-%m-%d %H:%M:%S")
    assert f"warning: the disk is slow (4 times until {date})" in events.told()[0]


def test_a_start_that_lacks_memory() -> None:
    """What a start waits for is told with the start that it led to."""
    events = Events()
    events.post("unit.waits", "qwen waits for memory: it needs 5 GiB on gpu0, 3 GiB free, 4 GiB used by others")
    events.post("scheduler.start", "start qwen", why="a request asked for it")
    events.up()
    assert events.told()[0][:2] == [
        "waits for memory: it needs 5 GiB on gpu0, 3 GiB free, 4 GiB used by others",
        "started",
    ]


def test_others_are_left_out() -> None:
    """What concerns other models is no part of it, unless it made room for this one."""
    events = Events()
    events.post("unit.state", "", model="other", event="start asked", after="starting")
    events.post("scheduler.stop", "", model="other", why="it was idle")
    events.post("scheduler.stop", "", model="other", why="making room for third")
    assert events.told() == []


def test_only_the_last_lines_and_only_the_last_hour() -> None:
    """Older lines are left out and counted; a chapter's times stay as they were."""
    events = Events()
    events.up(1)
    events.step("stop asked", "ready", "stopping", "it was idle")
    events.step("exited", "stopping", "stopped")
    events.up(2, after_s=7200.0)
    story = tell(events.all, "qwen", lines=1)
    assert words(story) == [["ready, loaded in 3.4 s"]] and story.left_out == 4
    assert story.chapters[0].lines[0].after_s == 3.4
    recent = tell(events.all, "qwen", since_wall_s=events.at - 3600.0)
    assert [chapter.generation for chapter in recent.chapters] == [2]
    assert recent.left_out == 0 and tell(events.all, "qwen", lines=0).chapters == []


kinds = st.sampled_from(
    ["unit.state", "scheduler.start", "scheduler.stop", "request.waits", "unit.waits", "request.refused", "unit.hung",
     "unit.warning", "unit.wanted", "server.ready", "server.ending", "server.ended", "server.handover", "unit.ended",
     "something.new"]
)  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
steps = sorted({str(event) for _, event in TABLE})
facts = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from([*steps, "unheard of"]),
        "before": st.sampled_from([str(state) for state in State]),
        "after": st.sampled_from([str(state) for state in State]),
        "why": st.one_of(st.text(max_size=5), st.just("making room for qwen"), st.none()),
        **dict.fromkeys(
            ("load_ms", "detected_ms", "retry_in_s", "failures", "hint", "cause", "idle_s", "pid"), scalars
        ),
        "needs": st.one_of(scalars, st.dictionaries(st.text(max_size=3), scalars, max_size=2)),
        "free": st.one_of(scalars, st.dictionaries(st.text(max_size=3), scalars, max_size=2)),
    },
)
any_event = st.builds(
    EventInfo,
    st.integers(1, 10**6),
    st.floats(0, 1e10),
    kinds,
    st.sampled_from(["qwen", "qwen~2", "gemma", None]),
    st.sampled_from(["qwen.1", "qwen.2", None]),
    st.text(max_size=9),
    facts,
)


@given(st.lists(any_event, max_size=30), st.one_of(st.none(), st.integers(0, 40)))
def test_every_log_has_a_story(log: list[EventInfo], lines: int | None) -> None:
    """Whatever a journal has, of older or newer builds too, is told without an error, in its order."""
    story = tell(log, "qwen", lines=lines)
    shown = [line for chapter in story.chapters for line in chapter.lines]
    assert all(line.text for line in shown)
    assert lines is None or len(shown) <= lines


def test_a_line_always_says_something() -> None:
    waits = EventInfo(1, 1.0, "unit.waits", "qwen", None, "", {})
    assert [line.text for chapter in tell([waits], "qwen").chapters for line in chapter.lines] == ["unit.waits"]


def test_a_start_that_came_back_smaller() -> None:
    """What failed for want of memory is told once, and then what the next start does otherwise."""
    events = Events()
    events.step("start asked", "stopped", "starting")
    events.step("spawned", "starting", "loading", "pid 7", pid=7)
    why = "qwen ended: the GPU's memory was not enough (cudaMalloc failed: out of memory)"
    events.step("failed", "loading", "backoff", why, cause="memory")
    events.post("unit.fallback", "qwen.1 is started again with a smaller batch", next="with a smaller batch")
    events.up(2)
    assert events.told()[0][1:] == [
        "did not come up: ended: the GPU's memory was not enough (cudaMalloc failed: out of memory)",
        "is started again with a smaller batch",
    ]
