"""One request's lines in its engine's log, as llama.cpp 11434 and vLLM write them."""

from __future__ import annotations

from corral.supervisor.request_lines import Noted, Timings, lines_of, note, noted_in, timings_of, without_notes

END = (
    b'"timings":{"cache_n":4,"prompt_n":6,"prompt_ms":3.189,"prompt_per_token_ms":0.5,"prompt_per_second":1880.2,'
    b'"predicted_n":7,"predicted_ms":12.166,"predicted_per_token_ms":2.0,"predicted_per_second":575.3}}\n\n'
)
LOG = """\
0.00.021.065 I srv    load_model: loading model '/m.gguf'
0.00.592.914 I slot launch_slot_: id  1 | task 10 | processing task, is_child = 0
0.00.593.914 I slot launch_slot_: id  0 | task 11 | processing task, is_child = 0
0.00.608.344 I slot print_timing: id  1 | task 10 | prompt eval time =       3.19 ms /     6 tokens (x)
0.00.608.392 I slot print_timing: id  1 | task 10 |        eval time =      12.17 ms /     7 tokens (x)
0.00.608.413 I slot print_timing: id  1 | task 10 |       total time =      15.36 ms /    13 tokens
0.00.608.476 I slot      release: id  1 | task 10 | stop processing: n_tokens = 16, truncated = 0
0.00.625.518 I slot launch_slot_: id  0 | task 18 | processing task, is_child = 0
0.01.028.000 W srv          stop: cancel task, id_task = 11
0.01.028.001 W srv          stop: cancel task, id_task = 18
0.01.028.869 I slot      release: id  0 | task 18 | stop processing: n_tokens = 100, truncated = 0
0.02.608.344 I slot print_timing: id  1 | task 30 | prompt eval time =       3.20 ms /     6 tokens (x)
0.02.608.392 I slot print_timing: id  1 | task 30 |        eval time =      12.17 ms /     7 tokens (x)
0.02.608.476 I slot      release: id  1 | task 30 | stop processing: n_tokens = 16, truncated = 0
"""
FIRST = Noted("first", 1.0, "200 in 22 ms", Timings("3.19", 6, "12.17", 7))
CUT = Noted("cut", 2.0, "its client left")
CUT_TOO = Noted("cut-too", 2.1, "its client left")
LAST = Noted("last", 3.0, "200 in 22 ms", Timings("3.20", 6, "12.17", 7))
ALL = [FIRST, CUT, CUT_TOO, LAST]


def test_timings() -> None:
    """An answer's last bytes give the figures as the log has them; others give none."""
    assert timings_of(END) == FIRST.timings
    assert timings_of(b'"usage":{"prompt_tokens":1}') is None
    assert timings_of(b'"timings":{"prompt_n":6}') is None
    assert timings_of(b'"timings":{"prompt_n":6,"prompt_ms":1e-05,"predicted_n":1,"predicted_ms":2}') == Timings(
        "0.00", 6, "2.00", 1
    )


def test_by_figures() -> None:
    """A task is known by the figures that its answer ended with, whatever else ran beside it."""
    lines = lines_of(LOG, FIRST, ALL, engine="llama.cpp")
    assert len(lines) == 5
    assert all("task 10 |" in line for line in lines)
    assert {line.split("task ")[1].split(" ")[0] for line in lines_of(LOG, LAST, ALL, engine="llama.cpp")} == {"30"}


def test_by_place() -> None:
    """Cut answers have none: between two that are known, as many requests as tasks are the same, in the same order."""
    cut = lines_of(LOG, CUT, ALL, engine="llama.cpp")
    assert [line.rsplit(" ", 1)[1] for line in cut if "cancel" in line] == ["11"]
    too = lines_of(LOG, CUT_TOO, ALL, engine="llama.cpp")
    assert [line.rsplit(" ", 1)[1] for line in too if "cancel" in line] == ["18"]
    assert any("release" in line for line in too)


def test_nothing_is_guessed() -> None:
    """Where requests and tasks do not add up, or figures stand there twice, nothing is said."""
    assert lines_of(LOG, CUT, [FIRST, CUT, LAST], engine="llama.cpp") == []
    twice = LOG + LOG.replace("task 10 ", "task 40 ")
    assert lines_of(twice, FIRST, ALL, engine="llama.cpp") == []
    assert lines_of("", FIRST, ALL, engine="llama.cpp") == lines_of("", CUT, ALL, engine="llama.cpp") == []


def test_vllm() -> None:
    """vLLM's lines have the request's own id, as a word or after its own beginning."""
    log = "INFO Received request chatcmpl-req_1: params\nINFO req_11 other\nERROR request cmpl-req_1-0 failed\n"
    found = lines_of(log, Noted("req_1", 1.0, ""), [], engine="vllm")
    assert [line.split()[0] for line in found] == ["INFO", "ERROR"]


def test_notes() -> None:
    """What Corral writes of requests is read back, is no line of the engine's, and says nothing of its end."""
    log = LOG + "".join(map(note, ALL)) + "[corral] request half"
    assert noted_in(log) == ALL
    assert without_notes(log) == LOG
    assert len(lines_of(log, FIRST, noted_in(log), engine="llama.cpp")) == 5
