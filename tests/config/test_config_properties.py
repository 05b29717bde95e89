"""Properties of the configuration as a whole: nothing crashes it, and what it writes it reads."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.config.assemble import assemble
from corral.config.document import parse_document
from corral.config.listening import parse_listen
from corral.config.names import name_fault
from corral.config.render import MASK, as_yaml
from corral.config.schema import GlobalKeys, ModelKeys
from corral.config.settings import Listen, Log, ModelSettings, Settings, Timeouts, Traces, Window
from support.configs import Place

BASE = Path("/nowhere")
MODEL_KEYS = list(ModelKeys.model_fields)
GLOBAL_KEYS = [*GlobalKeys.model_fields, "models"]

quick = settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ["auto", "never", "5m", "16GiB", "builtin:demo", "${X}", "~", "~nobody/x", "127.0.0.1:1", "\0", "/"]
    ),
)
words = st.one_of(st.sampled_from([*MODEL_KEYS, *GLOBAL_KEYS, "cpu", "start", "llama.cpp"]), st.text(max_size=6))
structures = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)
models = st.dictionaries(st.sampled_from(MODEL_KEYS), structures, max_size=6)
documents = st.one_of(
    structures,
    st.fixed_dictionaries(
        {"models": st.lists(models, max_size=3)},
        optional={key: structures for key in GLOBAL_KEYS if key != "models"},
    ),
)


def judge(text: str) -> None:
    """Settings of the right kind, or at least one error that stands somewhere and says something."""
    found = assemble(parse_document(text, "f.yaml"), (), base=BASE, cwd=BASE, env={}, insecure=True)
    errors = [problem for problem in found.problems if problem.level == "error"]
    assert all(problem.message and problem.hint and problem.place.file for problem in errors)
    assert isinstance(found.settings, Settings)
    for problem in found.problems:
        str(problem).encode()
    if not errors:
        for name, model in found.settings.models.items():
            assert name == model.name
            assert name_fault(name) is None
            assert model.source.is_absolute()


@quick
@given(documents)
def test_any_structure_is_settings_or_located_problems(data: Any) -> None:
    """Whatever YAML holds, the answer is settings or problems with a place, a message and a hint."""
    judge(yaml.safe_dump(data, allow_unicode=True))


@quick
@given(st.one_of(st.text(), st.text(alphabet="[]{}:-,&*!|>'\"%@`#\n\t a1\\ux0?")))
def test_any_text_is_settings_or_located_problems(text: str) -> None:
    """Whatever a file holds, nothing crashes."""
    judge(text)


@quick
@given(st.sampled_from(MODEL_KEYS), st.text(max_size=20))
def test_any_scalar_in_any_key_is_judged(key: str, text: str) -> None:
    """Any plain words after any key of a model are taken or explained."""
    judge(f"models:\n  - name: a\n    source: builtin:demo\n    {key}: {text}\n")


@quick
@given(st.dictionaries(st.sampled_from(["CORRAL_LISTEN", "CORRAL_MEMORY", "CORRAL_ROOTS", "CORRAL_X"]), st.text()))
def test_any_variable_is_taken_or_explained(variables: dict[str, Any]) -> None:
    """Whatever variables hold, each problem names the variable."""
    with tempfile.TemporaryDirectory() as root:
        for problem in Place(Path(root)).examine(insecure=True, **variables).errors:
            assert problem.place.file in variables


def _readable(text: str) -> bool:
    return text.isprintable() and all(not 0xD800 <= ord(c) <= 0xDFFF for c in text)


texts = st.text(max_size=12).filter(_readable)
filled = texts.filter(lambda text: bool(text.strip()))
paths = st.lists(st.text(min_size=1, max_size=8).filter(_readable), min_size=1, max_size=3).map(
    lambda parts: Path("/" + "/".join(part.replace("/", "_") for part in parts))
)
names = st.text(alphabet="abcXYZ019._-:/@", min_size=1, max_size=12).filter(lambda name: name_fault(name) is None)
seconds = st.one_of(st.integers(1, 10**6).map(float), st.floats(0.001, 1e6))
addresses = st.one_of(
    st.builds(Listen, st.sampled_from(["127.0.0.1", "::1", "localhost", "box.lan"]), st.integers(0, 65535)),
    st.builds(lambda path: Listen("", 0, path), paths),
)
windows = st.builds(
    lambda days, times, keep: Window(tuple(sorted(days)), times[0], times[1], keep),
    st.sets(st.integers(0, 6), min_size=1),
    st.tuples(st.integers(0, 1440), st.integers(0, 1440)).filter(lambda pair: pair[0] != pair[1]),
    st.sampled_from(["ready", "pin"]),
)
any_model = st.builds(
    ModelSettings,
    name=names,
    source=paths,
    executable=st.one_of(st.sampled_from(["auto", "embedded", "llama-server"]), paths.map(str)),
    context=st.one_of(st.none(), st.integers(1, 1 << 20)),
    gpu_layers=st.one_of(st.just("auto"), st.integers(0, 999)),
    gpu_backend=st.sampled_from(["auto", "vulkan", "not-vulkan", "cuda", "rocm", "metal", "sycl"]),
    devices=st.lists(st.sampled_from(["gpu0", "gpu1", "Vulkan0", "CUDA1"]), unique=True).map(tuple),
    split=st.sampled_from([None, "layer", "row", "none"]),
    tensor_split=st.lists(st.integers(1, 64).map(lambda n: n / 4), max_size=3).map(tuple),
    parallel=st.integers(1, 64),
    args=st.lists(texts, max_size=3).map(tuple),
    env=st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), texts, max_size=3).map(
        MappingProxyType
    ),
    idle_timeout_s=st.one_of(st.none(), st.just(0.0), seconds),
    preload=st.booleans(),
    pin=st.booleans(),
    priority=st.integers(-1000, 1000),
    exclusive=st.booleans(),
    on_out_of_memory=st.one_of(
        st.none(), st.lists(st.sampled_from(["batch", "context", "layers", "cpu"]), unique=True).map(tuple)
    ),
    cpu_fallback=st.booleans(),
    sandbox=st.sampled_from(["off", "auto", "bubblewrap"]),
    limits=st.booleans(),
    reasoning=st.sampled_from(["auto", "none", "harmony", "think"]),
    group=st.one_of(st.none(), st.from_regex(r"[a-z0-9][a-z._-]{0,5}", fullmatch=True)),
    replicas=st.integers(1, 64),
    schedule=st.lists(windows, max_size=2).map(tuple),
)
any_vllm = st.builds(
    ModelSettings,
    name=names,
    source=paths,
    engine=st.just("vllm"),
    executable=st.one_of(st.just("auto"), paths.map(str)),
    parallel=st.integers(1, 64),
    max_num_seqs=st.integers(1, 4096),
    tensor_parallel=st.integers(1, 8),
    pipeline_parallel=st.integers(1, 8),
    data_parallel=st.integers(1, 8),
    quantization=st.sampled_from([None, "fp8_per_tensor", "fp8_per_block", "fp8_per_channel"]),
    kv_cache_type=st.sampled_from(["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]),
    kv_cache_bytes=st.one_of(st.none(), st.integers(1, 1 << 40)),
    sleep=st.sampled_from([0, 1, 2]),
)
any_settings = st.builds(
    lambda models, **keys: Settings({m.name: m for m in models}, **keys),
    st.lists(st.one_of(any_model, any_vllm), max_size=3),
    log=st.builds(Log, st.sampled_from(["human", "json"]), st.booleans()),
    traces=st.one_of(
        st.none(),
        st.builds(
            Traces,
            st.sampled_from([None, "https://traces.example.org:4318/x"]),
            st.sampled_from([None, 0.0, 0.25, 1.0]),
        ),
    ),
    listen=st.lists(addresses, min_size=1, max_size=2).map(tuple),
    memory=st.dictionaries(st.sampled_from(["cpu", "gpu0", "gpu12"]), st.integers(1, 1 << 50)),
    headroom=st.one_of(
        st.integers(0, 1 << 50), st.dictionaries(st.sampled_from(["cpu", "gpu0"]), st.integers(1, 1 << 50))
    ),
    max_active=st.one_of(st.none(), st.integers(1, 99)),
    max_wait_s=seconds,
    min_residency_s=seconds,
    return_to_default_s=st.one_of(st.none(), seconds),
    max_queue=st.integers(0, 9999),
    max_body_bytes=st.integers(1, 1 << 40),
    resume=st.booleans(),
    comments_after_s=st.one_of(st.none(), seconds),
    responses_ttl_s=st.one_of(st.none(), seconds),
    conversations_bytes=st.one_of(st.none(), st.integers(1, 1 << 40)),
    default_model=st.one_of(st.none(), names),
    timeouts=st.builds(Timeouts, seconds, seconds, seconds, seconds, seconds),
)


@quick
@given(any_settings)
def test_what_is_rendered_reads_back(wanted: Settings) -> None:
    """`config show` is a models.yaml: read again it gives the same settings."""
    text = as_yaml(wanted, origin=lambda key: "somewhere")
    found = assemble(parse_document(text, "f.yaml"), (), base=BASE, cwd=BASE, env={}, insecure=True)
    known = found.settings
    assert dataclasses.replace(known, models={}) == dataclasses.replace(wanted, models={}), text
    assert dict(known.models) == dict(wanted.models), text


@quick
@given(addresses)
def test_an_address_reads_back(listen: Listen) -> None:
    """Printing an address and reading it gives the same."""
    assert parse_listen(str(listen)) == listen


@given(st.text(alphabet="abc019", min_size=6, max_size=12))
def test_secrets_are_not_shown(secret: str) -> None:
    """Values of variables and flags with telling names are masked when asked for."""
    secret = f"s3cr3t-{secret}"
    model = ModelSettings(
        "m",
        Path("/m"),
        env={"HF_TOKEN": secret, "db_password": secret, "PLAIN": "x"},
        args=("--api-key", secret, f"--hf-token={secret}", "--temp", "0.7"),
    )
    text = as_yaml(Settings({"m": model}), masked=True)
    assert secret not in text
    assert text.count(MASK) == 4
    assert "PLAIN: x" in text
    assert "'0.7'" in text
