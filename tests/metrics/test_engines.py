"""Engines' own metrics, as engines write them: read, labelled, put together, and read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.metrics.engines import MOST_SAMPLES, Family, Reader, write
from support.exposition import read

LLAMA = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 14
# HELP llamacpp:n_tokens_max Largest observed sequence length
# TYPE llamacpp:n_tokens_max counter
llamacpp:n_tokens_max 30
# HELP llamacpp:predicted_tokens_seconds Average generation throughput in tokens/s
# TYPE llamacpp:predicted_tokens_seconds gauge
llamacpp:predicted_tokens_seconds nan
"""
VLLM = """\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",major="3"} 1.0
# HELP process_resident_memory_bytes Resident memory size in bytes.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.5e+09
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \\"b\\" {c}, d"} 2.0
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model="mine",unit="u"} 8.0
# HELP vllm:prompt_tokens_created Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
# HELP vllm:time_to_first_token_seconds Histogram of TTFT.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 3.0
vllm:time_to_first_token_seconds_count{engine="0"} 3.0
vllm:time_to_first_token_seconds_sum{engine="0"} 4.5
# HELP vllm:time_to_first_token_seconds_created Histogram of TTFT.
# TYPE vllm:time_to_first_token_seconds_created gauge
vllm:time_to_first_token_seconds_created{engine="0"} 1.7e+09
"""


def families(text: str) -> list[Family]:
    reader = Reader()
    reader.take(text.splitlines())
    return reader.families()


def together(openmetrics: bool, *engines: tuple[str, str, str]) -> str:
    parts = [(model, unit, families(text)) for model, unit, text in engines]
    return "".join(write(parts, openmetrics=openmetrics)) + ("# EOF\n" if openmetrics else "")


@pytest.mark.parametrize("openmetrics", [False, True])
def test_families_of_several_engines_become_one_with_labels_of_model_and_unit(openmetrics: bool) -> None:
    text = together(openmetrics, ("demo", "demo", LLAMA), ("demo", "demo~2", LLAMA), ("big", "big", VLLM))
    found = {family.name: family for family in read(text, openmetrics)}
    prompts = found["llamacpp:prompt_tokens"]
    assert [(each.labels, each.value) for each in prompts.samples] == [
        ({"model": "demo", "unit": "demo"}, 14), ({"model": "demo", "unit": "demo~2"}, 14),
    ]  # fmt: skip
    assert (prompts.type, prompts.documentation) == ("counter", "Number of prompt tokens processed")
    waiting = found["vllm:time_to_first_token_seconds"]
    assert waiting.type == "histogram" and {each.labels["unit"] for each in waiting.samples} == {"big"}
    running = found["vllm:num_requests_running"].samples[0].labels
    assert running == {"model": "big", "unit": "big", "engine": "0", "model_name": 'a "b" {c}, d'}
    assert text.count("# TYPE llamacpp:prompt_tokens") == 1
    assert not any("_created" in line for line in text.splitlines())


@pytest.mark.parametrize("openmetrics", [False, True])
def test_what_an_engine_calls_as_we_do_is_told_apart(openmetrics: bool) -> None:
    found = {family.name: family for family in read(together(openmetrics, ("big", "big", VLLM)), openmetrics)}
    assert "process_resident_memory_bytes" not in found and "python_info" not in found
    assert found["engine_process_resident_memory_bytes"].samples[0].value == 1.5e9
    labels = found["vllm:prompt_tokens"].samples[0].labels
    assert labels == {"model": "big", "unit": "big", "engine": "0", "exported_model": "mine", "exported_unit": "u"}


def test_a_counter_whose_name_does_not_say_so_is_no_counter_in_openmetrics() -> None:
    kinds = {each.name: each.type for each in read(together(True, ("demo", "demo", LLAMA)), True)}
    assert kinds["llamacpp:n_tokens_max"] == "unknown"


def test_a_name_that_means_something_else_elsewhere_is_the_first_ones() -> None:
    other = "# TYPE llamacpp:n_tokens_max histogram\nllamacpp:n_tokens_max_sum 3\nllamacpp:n_tokens_max_count 2\n"
    text = together(False, ("demo", "demo", LLAMA), ("odd", "odd", other))
    assert "llamacpp:n_tokens_max_sum" not in text and 'llamacpp:n_tokens_max{model="demo",unit="demo"} 30' in text


def test_times_and_exemplars_are_left_out() -> None:
    text = '# TYPE a counter\na_total{x="1"} 5 1700000000000\n# TYPE b gauge\nb 1 # {trace="x"} 0.5\n'
    written = together(False, ("demo", "demo", text))
    assert written.splitlines()[2::3] == ['a_total{model="demo",unit="demo",x="1"} 5', 'b{model="demo",unit="demo"} 1']


def test_one_engine_has_so_many_samples_at_most() -> None:
    (family,) = families("\n".join(f'a{{n="{number}"}} 1' for number in range(MOST_SAMPLES + 500)))
    assert len(family.samples) == MOST_SAMPLES


def test_a_counter_described_without_its_ending_is_one() -> None:
    """OpenMetrics describes `a` and counts `a_total`; a plain `a` beside it could not be read, and is left out."""
    for openmetrics in (False, True):
        text = together(openmetrics, ("demo", "demo", "# TYPE a counter\na_total 1\na{} 2"))
        (found,) = read(text, openmetrics)
        assert (found.type, [(each.name, each.value) for each in found.samples]) == ("counter", [("a_total", 1.0)])


pieces = st.sampled_from(
    (
        "# TYPE a counter",
        "# HELP a b",
        "a 1",
        "a_total 1",
        'a{x="',
        'a{x="1"} 2',
        "# TYPE",
        "}",
        "a{} 1",
        "9",
        "\x00",
        "b NaN",
    )
)


@given(st.lists(pieces | st.text(max_size=20), max_size=12))
def test_whatever_an_engine_writes_what_comes_of_it_can_be_read(lines: list[str]) -> None:
    for openmetrics in (False, True):
        text = together(openmetrics, ("demo", "demo", "\n".join(lines)), ("big", "big", VLLM))
        if all(len(line.splitlines()) <= 1 for line in text.split("\n")):
            assert {"vllm:num_requests_running"} <= {each.name for each in read(text, openmetrics)}
