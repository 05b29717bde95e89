"""Judging whether an engine hangs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.supervisor.liveness import Liveness, Request, Verdict, look_every_s

HANG_S = 8.0
EVERY_S = look_every_s(HANG_S)


class Looking:
    """One engine, looked at again and again. `now` is when the last look was begun."""

    def __init__(self, hang_s: float = HANG_S, speaks_while_busy: bool = True) -> None:
        self.hang_s, self.every_s, self.now = hang_s, look_every_s(hang_s), 100.0
        self.liveness = Liveness(self.now, speaks_while_busy=speaks_while_busy)

    def look(
        self,
        *requests: Request,
        status: int | None = 200,
        answers: int = 0,
        counters: tuple[int, ...] | None = None,
        prompt_per_s: float | None = None,
        write_per_s: float | None = None,
        bytes_per_token: float | None = None,
    ) -> Verdict:
        """The next look: `status` is its answer, `counters` are what it tells when it is asked for them."""
        self.now += self.every_s
        if status is None:
            self.liveness.unanswered(self.now)
        else:
            self.liveness.answered(status)
        verdict = self.liveness.judge(
            requests,
            self.now,
            self.hang_s,
            answers=answers,
            prompt_per_s=prompt_per_s,
            write_per_s=write_per_s,
            bytes_per_token=bytes_per_token,
        )
        if verdict is Verdict.ASK:
            self.liveness.counted(counters)
        return verdict


def hung_after_s(looking: Looking, *requests: Request, most_s: float = 10_000.0, **facts: object) -> float | None:
    """How long until it counts as hung when every look is like this one; None when it never does."""
    began = looking.now
    while looking.now - began < most_s:
        if looking.look(*requests, **facts) is Verdict.HANGS:  # type: ignore[arg-type]
            return looking.now - began
    return None


def test_an_idle_engine_that_answers_lives() -> None:
    """Nothing to do is no hang, however long."""
    assert hung_after_s(Looking()) is None


def test_silence_is_a_hang_within_the_bound() -> None:
    """An engine whose HTTP side is silent counts as hung within the timeout, idle or not."""
    for requests in ((), (Request(1, 300_000, True, 0),)):
        looking = Looking()
        after_s = hung_after_s(looking, *requests, status=None)
        assert after_s is not None and after_s <= HANG_S
        assert "no answer" in looking.liveness.evidence


def test_one_silence_is_none() -> None:
    """A single look without an answer says nothing, even when much time passed meanwhile: Corral may have stood."""
    looking = Looking()
    looking.look()
    looking.now += 1000
    assert looking.look(status=None) is not Verdict.HANGS
    assert looking.look() is Verdict.LIVES
    assert hung_after_s(looking) is None


@pytest.mark.parametrize("busy", [False, True])
def test_time_in_which_nobody_looked_is_no_silence(busy: bool) -> None:
    """Where looks come far apart, because the machine has no processor left for them, few of them say little."""
    looking = Looking()
    requests = (Request(1, 300_000, True, 0),) if busy else ()
    looking.look(*requests)
    for _ in range(2):
        looking.now += 2 * HANG_S
        assert looking.look(*requests, status=None) is not Verdict.HANGS
    after_s = hung_after_s(looking, *requests, status=None)
    assert after_s is not None and after_s <= HANG_S, "what is silent at each look is found all the same"


def test_one_without_threads_to_spare_may_be_silent_at_work() -> None:
    """Where requests take every thread, silence counts only while nothing runs."""
    assert hung_after_s(Looking(speaks_while_busy=False), Request(1, 30, False, 0), status=None) is None
    assert hung_after_s(Looking(speaks_while_busy=False), status=None) is not None


def test_bytes_on_a_stream_are_an_answer() -> None:
    """With all its threads busy it may be silent to us: whatever comes on a stream shows that it lives."""
    looking = Looking()
    for chunks in range(1, 100):
        assert looking.look(Request(1, 10, True, chunks), status=None) is not Verdict.HANGS


def test_a_stream_that_stands_still_is_a_hang() -> None:
    """No token for longer than the bound, with an HTTP side that answers, is a hang."""
    looking = Looking()
    looking.look(Request(1, 30, True, 5))
    after_s = hung_after_s(looking, Request(1, 30, True, 5))
    assert after_s is not None and HANG_S <= after_s <= HANG_S + 2 * EVERY_S
    assert "1 request ran" in looking.liveness.evidence


def test_a_long_prompt_has_its_time() -> None:
    """The bound for the first byte grows with the prompt and with how slowly prompts were read so far."""
    prompt = Request(1, 30_000, True, 0)  # about 10 000 tokens
    after_s = hung_after_s(Looking(), prompt, prompt_per_s=100.0)
    assert after_s is not None and 300 <= after_s <= 300 + 2 * HANG_S
    fast_s = hung_after_s(Looking(), prompt, prompt_per_s=10_000.0)
    assert fast_s is not None and fast_s <= 3 + 2 * HANG_S
    dense_s = hung_after_s(Looking(), prompt, prompt_per_s=100.0, bytes_per_token=1.0)
    assert dense_s is not None and dense_s >= 900, "a script of few bytes a token"
    unknown_s = hung_after_s(Looking(), prompt, most_s=100_000)
    assert unknown_s is not None and unknown_s >= 15_000


def test_slow_writing_has_its_time() -> None:
    """Between tokens the bound grows with the time that tokens were seen to take."""
    looking = Looking()
    looking.look(Request(1, 30, True, 5))
    after_s = hung_after_s(looking, Request(1, 30, True, 5), write_per_s=0.1)
    assert after_s is not None and after_s >= HANG_S + 100


def test_its_own_counters_are_progress() -> None:
    """A prompt that is read piece by piece never hangs, whatever the bound; nor does a plain answer being written."""
    for stream in (True, False):
        looking = Looking()
        for count in range(200):
            verdict = looking.look(Request(1, 10, stream, 0), counters=(7, count), prompt_per_s=1e9)
            assert verdict is not Verdict.HANGS


def test_counters_that_stand_still_are_none() -> None:
    """A plain answer of which its own counters tell no progress is a hang after the bound."""
    looking = Looking()
    after_s = hung_after_s(looking, Request(1, 30, False, 0), counters=(7, 7), prompt_per_s=1000.0)
    assert after_s is not None and after_s <= HANG_S + 4 * EVERY_S


def test_a_plain_answer_without_counters_is_not_judged() -> None:
    """Nothing is seen of a plain answer until it is whole; where nobody tells, patience has no end."""
    assert hung_after_s(Looking(), Request(1, 30, False, 0), counters=None) is None


def test_a_slow_client_is_no_hang() -> None:
    """A stream whose client takes no more cannot go on, and that is not the engine's fault."""
    looking = Looking()
    looking.look(Request(1, 30, True, 5))
    assert hung_after_s(looking, Request(1, 30, True, 5, held=True)) is None


def test_clients_that_give_up_do_not_hide_a_hang() -> None:
    """Requests that leave unanswered, one after the other, do not start the time anew."""
    looking = Looking()
    for number in range(100):
        if looking.look(Request(number, 30, True, 0), prompt_per_s=1e6) is Verdict.HANGS:
            return
        looking.look()
    pytest.fail("it never counted as hung")


def test_answers_between_two_looks_are_progress() -> None:
    """Requests that begin and end between two looks show that it works."""
    looking = Looking()
    for number in range(200):
        assert looking.look(Request(number, 30, True, 0), answers=number, prompt_per_s=1e6) is not Verdict.HANGS


def test_odd_health_is_a_doubt() -> None:
    """Answers other than 200 from an idle engine are worth one token; from a busy one, and once, they are not."""
    looking = Looking()
    assert looking.look(status=500) is Verdict.LIVES
    assert looking.look(status=500) is Verdict.DOUBT
    assert "500" in looking.liveness.evidence
    looking.liveness.proved()
    assert looking.look(status=500) is Verdict.LIVES
    looking = Looking()
    for chunks in range(1, 9):
        assert looking.look(Request(1, 10, True, chunks), status=500) is Verdict.LIVES


@given(
    st.floats(0.5, 600.0),
    st.integers(0, 10**7),
    st.one_of(st.none(), st.floats(0.1, 1e5)),
    st.booleans(),
)
def test_silence_keeps_its_bound_whatever_runs(
    hang_s: float, prompt_bytes: int, prompt_per_s: float | None, stream: bool
) -> None:
    """The bound on silence does not depend on prompts, rates or the kind of answer."""
    looking = Looking(hang_s)
    after_s = hung_after_s(looking, Request(1, prompt_bytes, stream, 0), status=None, prompt_per_s=prompt_per_s)
    assert after_s is not None and after_s <= hang_s + 1e-6


@given(st.lists(st.tuples(st.sampled_from([200, None]), st.booleans()), max_size=200))
def test_progress_is_never_a_hang(looks: list[tuple[int | None, bool]]) -> None:
    """As long as a chunk comes at least with every second look, nothing counts as hung."""
    looking = Looking()
    chunks = 1
    for number, (status, more) in enumerate(looks):
        chunks += more or number % 2
        assert looking.look(Request(1, 10, True, chunks), status=status, prompt_per_s=1e9) is not Verdict.HANGS
