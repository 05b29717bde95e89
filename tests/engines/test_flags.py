"""Reading flags: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import pytest
import xllamacpp
from hypothesis import example, given
from hypothesis import strategies as st

from corral.engines import flags
from corral.engines.flag_table import ABSENT, FLAGS, REFUSED
from corral.errors import EngineFlagError

SPELLINGS = sorted(flags.BY_NAME)


def refused(argv: list[str]) -> EngineFlagError:
    with pytest.raises(EngineFlagError) as caught:
        flags.parse(argv)
    return caught.value


def test_reads_in_order() -> None:
    """Flags are read in the order they were written, a switch without a value and the others with one."""
    given_ = flags.parse(["--metrics", "-b", "64", "--no-warmup", "--batch-size", "128"])
    assert [(each.spelling, each.value) for each in given_] == [
        ("--metrics", True), ("-b", 64), ("--no-warmup", False), ("--batch-size", 128),
    ]  # fmt: skip


def test_underscores() -> None:
    """In long flags an underscore is as good as a hyphen."""
    assert flags.parse(["--ctx_size", "64"])[0].spelling == "--ctx-size"


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["--flash-atn", "on"], "does not know the flag --flash-atn", "nearest it knows is --flash-attn"),
        (["--nonsense"], "does not know the flag --nonsense", "see docs/engines.md for the flags there are"),
        (["--ctx-size=64"], "does not know the flag --ctx-size=64", "two items: [--ctx-size, 64]"),
        (["--top-k 5"], "does not know the flag --top-k 5", "items of their own: [--top-k, 5]"),
        (["--metrics", "on"], "does not know the flag on", "stands where a flag should"),
        (["--top-k"], "--top-k wants a value", "[--top-k, VALUE]"),
        (["--top-k", "many"], "--top-k wants a whole number, not 'many'", "correct the value"),
        (["--temp", "nan"], "--temp wants a number", "correct"),
        (["-fa", "perhaps"], "-fa wants one of on,", "correct"),
        (["-ctk", "q9_9"], "-ctk wants one of f32, f16", "correct"),
        (["--slot-save-path", "/no/such/folder"], "wants an existing directory", "correct"),
        (["--chat-template-file", "/no/such/file"], "cannot read /no/such/file: No such file", "correct"),
        (["--chat-template-kwargs", "[1]"], "wants a JSON object", "correct"),
        (["--chat-template-kwargs", "{"], "wants JSON", "correct"),
        (["--lora-scaled", "a.gguf"], "wants FILE:SCALE", "correct"),
        (["-C", "xyz"], "wants a hexadecimal mask", "correct"),
        (["-Cr", "9-2"], "wants a range such as 0-3", "correct"),
        (["--sleep-idle-seconds", "0"], "wants a number of seconds", "correct"),
        (["--samplers", "top_k;dice"], "knows no sampler 'dice'", "correct"),
        (["--override-kv", "a=int:1"], "has no parameter for --override-kv", "`executable`"),
    ],
)
def test_says_what_is_wrong(argv: list[str], message: str, hint: str) -> None:
    """A wrong flag is named with what is wrong about it, and the hint says what to write instead."""
    error = refused(argv)
    assert message in error.message
    assert hint in error.hint
    assert error.details["flag"]


@given(st.lists(st.one_of(st.sampled_from(SPELLINGS), st.text(max_size=12)), max_size=6))
@example([" "])
def test_never_ignores(argv: list[str]) -> None:
    """Whatever is written, each item is either read as a flag or its value, or refused as EngineFlagError."""
    try:
        found = flags.parse(argv)
    except EngineFlagError as error:
        assert error.hint
        return
    assert sum(1 + (each.flag.value is not None) for each in found) == len(argv)


@given(st.text(min_size=1, max_size=20))
def test_readers_raise_only_flag_errors(text: str) -> None:
    """Every reader of values either reads a text or refuses it as EngineFlagError."""
    for flag in FLAGS:
        if flag.value is not None:
            try:
                flags.parse([flag.names[0], text])
            except EngineFlagError:
                continue


@given(st.integers(0, (1 << 512) - 1))
def test_masks(bits: int) -> None:
    """A CPU mask names the CPUs whose bits are set."""
    (mask,) = flags.parse(["--cpu-mask", hex(bits)])
    assert sum(1 << cpu for cpu, chosen in enumerate(mask.value) if chosen) == bits


def test_owned() -> None:
    """A flag that Corral decides itself is refused in `args`, with the key of models.yaml that decides it."""
    for written, key in [("-c", "context"), ("--parallel", "parallel"), ("-ngl", "gpu_layers"), ("--model", "source"),
                         ("--alias", "name"), ("--port", "port"), ("--api_key", "require_keys")]:  # fmt: skip
        with pytest.raises(EngineFlagError) as caught:
            flags.check_allowed(["--metrics", written, "1"])
        assert f"`{key}`" in caught.value.hint
        assert written in caught.value.message


def test_no_value_of_a_secret_flag_in_an_error() -> None:
    """An error names the flag; its value, which may be a key, stays out of logs and events."""
    for written in ("--api-key=planted", "--hf-token=planted", "--api-key planted", "--my-token=planted"):
        error = refused([written])
        assert "planted" not in f"{error.message} {error.hint} {error.details}"
        assert written[:5] in error.message
    with pytest.raises(EngineFlagError) as caught:
        flags.check_allowed(["--api-key", "x"])
    assert "corral keys" in caught.value.hint and "require_keys" in caught.value.hint


def test_refused() -> None:
    """A flag that would print and end, fetch, listen elsewhere or open the machine is refused with the reason."""
    for written in REFUSED:
        with pytest.raises(EngineFlagError) as caught:
            flags.check_allowed([written])
        assert REFUSED[written] in caught.value.message
    flags.check_allowed(["--metrics", "--top-k", "5", "--anything-else"])


def test_known_to_another_build() -> None:
    """For a `llama-server` its own --help decides: unknown flags are named with the nearest, values are left to it."""
    known = {"--food": 1, "--bar": 0, "--pair": 2}
    flags.check_known(["--food", "--foo", "--bar", "--pair", "1", "2"], known, "this build")
    with pytest.raises(EngineFlagError, match="this build does not know the flag --foo") as caught:
        flags.check_known(["--bar", "--foo", "1"], known, "this build")
    assert caught.value.hint == "the nearest it knows is --food"
    with pytest.raises(EngineFlagError, match="--pair wants a value"):
        flags.check_known(["--pair", "1"], known, "this build")


def test_absent_is_for_the_embedded_engine_only() -> None:
    """A flag the embedded engine has no parameter for is fine with a `llama-server` that knows it."""
    assert "--override-kv" in ABSENT
    flags.check_known(["--override-kv", "a=int:1"], {"--override-kv": 1}, "this build")


def test_looking_into_args() -> None:
    """`has` and `last_value` see a flag under any of its spellings; the last one counts."""
    args = ["-ub", "64", "--no-warmup", "--ubatch-size", "128"]
    assert flags.last_value(args, "--ubatch-size") == "128"
    assert flags.last_value(args, "--batch-size") is None
    assert flags.last_value(["-ub"], "--ubatch-size") is None
    assert flags.has(args, "-ub")
    assert not flags.has(args, "--warmup")


def test_settling() -> None:
    """As in llama-server, threads of prompts and drafts follow the model's, and earlier thoughts stay."""
    params = xllamacpp.CommonParams()
    flags.apply(flags.parse(["-t", "3", "-tbd", "1"]), xllamacpp, params)
    flags.settle(params)
    draft = params.speculative.draft
    threads = (params.cpuparams_batch.n_threads, draft.cpuparams.n_threads, draft.cpuparams_batch.n_threads)
    assert threads == (3, 3, 1)
    assert params.default_template_kwargs == {"preserve_reasoning": "true"}
    flags.apply(flags.parse(["--no-reasoning-preserve"]), xllamacpp, params)
    flags.settle(params)
    assert params.default_template_kwargs == {"preserve_reasoning": "false"}


def test_repeated() -> None:
    """Flags that add up do, whether given at once or one by one."""
    params = xllamacpp.CommonParams()
    argv = ["--lora", "/a", "--lora-scaled", "/b:0.5", "-ot", "x=CPU", "-cmoe", "--chat-template-kwargs", '{"a":1}']
    flags.apply(flags.parse([*argv, "--reasoning-effort", "low"]), xllamacpp, params)
    assert [adapter.path for adapter in params.lora_adapters] == ["/a", "/b"]
    assert params.tensor_buft_overrides.startswith("x=CPU,")
    assert params.default_template_kwargs == {"a": "1", "reasoning_effort": '"low"'}
