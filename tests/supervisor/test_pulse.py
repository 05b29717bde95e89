"""What units have streamed so far: running requests and those that are over, each counted once."""

from __future__ import annotations

from corral.supervisor.pulse import Pulses


def test_pieces_of_a_stream_count_while_it_runs_and_when_it_is_over() -> None:
    pulses = Pulses()
    one = pulses.begin("demo.1", 10, judged=True, stream=True)
    plain = pulses.begin("demo.1", 10, judged=True)
    one.chunks, plain.chunks = 5, 1
    assert pulses.streamed() == {"demo.1": 5}
    pulses.end(one)
    pulses.end(plain)
    pulses.end(one)  # again: it is over already
    assert pulses.streamed() == {"demo.1": 5}
    two = pulses.begin("demo.2", 10, judged=True, stream=True)
    two.chunks = 3
    assert pulses.streamed() == {"demo.1": 5, "demo.2": 3}
