"""Each key of models.yaml: what it takes, and what is said about everything else."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from corral.config.settings import Listen, Log, ModelSettings, Settings, Timeouts, Traces, Window
from support.configs import Place

MODEL = "models:\n  - name: m\n    source: m.gguf\n"


def model(place: Place, line: str) -> ModelSettings:
    place.user(MODEL + f"    {line}\n")
    return place.load().settings.models["m"]


def whole(place: Place, text: str) -> Settings:
    place.user(MODEL + text)
    return place.load().settings


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("aliases: [a, b/c:7]", "aliases", ("a", "b/c:7")),
        ("aliases: a", "aliases", ("a",)),
        ("engine: llama.cpp", "engine", "llama.cpp"),
        ("runner: process", "runner", "process"),
        ("runner: podman", "runner", "podman"),
        ("image: localhost/llama:1", "image", "localhost/llama:1"),
        ("executable: embedded", "executable", "embedded"),
        ("executable: llama-server", "executable", "llama-server"),
        ("executable: /opt/llama-server", "executable", "/opt/llama-server"),
        ("context: 4096", "context", 4096),
        ("context:", "context", None),
        ("context: auto", "context", None),
        ("on_out_of_memory: [layers, cpu]", "on_out_of_memory", ("layers", "cpu")),
        ("on_out_of_memory: never", "on_out_of_memory", ()),
        ("cpu_fallback: false", "cpu_fallback", False),
        ("sandbox: off", "sandbox", "off"),
        ("sandbox: bubblewrap", "sandbox", "bubblewrap"),
        ("limits: true", "limits", True),
        ("reasoning: harmony", "reasoning", "harmony"),
        ("engine: vllm", "parallel", 256),
        ("engine: vllm\n    max_num_seqs: 16", "parallel", 16),
        ("engine: vllm\n    max_num_seqs: 16\n    parallel: 4", "parallel", 4),
        ("engine: vllm\n    tensor_parallel: 2", "tensor_parallel", 2),
        ("engine: vllm\n    quantization: fp8_per_block", "quantization", "fp8_per_block"),
        ("engine: vllm\n    kv_cache_type: fp8", "kv_cache_type", "fp8"),
        ("engine: vllm\n    kv_cache: 8GiB", "kv_cache_bytes", 8 << 30),
        ("engine: vllm\n    sleep: off", "sleep", 0),
        ("engine: vllm\n    sleep: 2", "sleep", 2),
        ("gpu_layers: auto", "gpu_layers", "auto"),
        ("gpu_layers: 0", "gpu_layers", 0),
        ("gpu_backend: rocm", "gpu_backend", "rocm"),
        ("devices: auto", "devices", ()),
        ("devices: gpu1", "devices", ("gpu1",)),
        ("devices: [Vulkan0, gpu2]", "devices", ("Vulkan0", "gpu2")),
        ("split: row", "split", "row"),
        ("tensor_split: [3, 0.5]", "tensor_split", (3.0, 0.5)),
        ("parallel: 4", "parallel", 4),
        ("args: [--temp, 0.70, -ngl, 99]", "args", ("--temp", "0.70", "-ngl", "99")),
        ("args: --temp 0.7 --grammar 'root ::= x'", "args", ("--temp", "0.7", "--grammar", "root ::= x")),
        ("env: {A: 1, B: yes, C: 1.50, D: true}", "env", {"A": "1", "B": "yes", "C": "1.50", "D": "true"}),
        ("port: 8001", "port", 8001),
        ("idle_timeout: 1h30m", "idle_timeout_s", 5400.0),
        ("idle_timeout: 0", "idle_timeout_s", 0.0),
        ("idle_timeout: never", "idle_timeout_s", None),
        ("preload: true", "preload", True),
        ("pin: false", "pin", False),
        ("priority: -5", "priority", -5),
        ("exclusive: true", "exclusive", True),
        ("group: gpu", "group", "gpu"),
        ("replicas: 2", "replicas", 2),
        ("schedule: [{days: mon-fri, from: 08:00, to: 18:30}]", "schedule", (Window((0, 1, 2, 3, 4), 480, 1110),)),
        (
            "schedule: {days: 'fri-mon', from: '22:00', to: 6:00, keep: pin}",
            "schedule",
            (Window((0, 4, 5, 6), 1320, 360, "pin"),),
        ),
        ("schedule: [{days: [sat, sun]}]", "schedule", (Window((5, 6), 0, 1440),)),
    ],
)
def test_a_model_key_takes(tmp_path: Path, line: str, field: str, value: Any) -> None:
    """A model's key is taken as the documentation says."""
    assert getattr(model(Place(tmp_path), line), field) == value


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("listen: 127.0.0.1:9000", "listen", (Listen(port=9000),)),
        ("listen: 9000", "listen", (Listen(port=9000),)),
        ("listen: localhost", "listen", (Listen("localhost"),)),
        ("listen: ['[::1]:0', '127.0.0.1:0']", "listen", (Listen("::1", 0), Listen(port=0))),
        ("listen: unix:/run/c.sock", "listen", (Listen("", 0, Path("/run/c.sock")),)),
        ("listen: [{unix: /run/d.sock, dialect: docker}]", "listen", (Listen("", 0, Path("/run/d.sock")),)),
        ("require_keys: true", "require_keys", True),
        ("allowed_hosts: box.lan", "allowed_hosts", ("box.lan",)),
        ("allowed_origins: ['http://localhost:*']", "allowed_origins", ("http://localhost:*",)),
        (
            "allowed_origins: ['app://a.b', 'vscode-webview://*']",
            "allowed_origins",
            ("app://a.b", "vscode-webview://*"),
        ),
        ("trusted_proxies: [10.0.0.0/8, '::1']", "trusted_proxies", (ip_network("10.0.0.0/8"), ip_network("::1"))),
        ("memory: {cpu: 16GiB, gpu1: 500MB}", "memory", {"cpu": 16 << 30, "gpu1": 500_000_000}),
        ("max_active: 1", "max_active", 1),
        ("max_active: unlimited", "max_active", None),
        ("headroom: 1GiB", "headroom", 1 << 30),
        ("headroom: 0", "headroom", 0),
        ("headroom: {gpu0: 2GiB}", "headroom", {"gpu0": 2 << 30}),
        ("max_wait: 30s", "max_wait_s", 30.0),
        ("min_residency: 0", "min_residency_s", 0.0),
        ("return_to_default: 10m", "return_to_default_s", 600.0),
        ("return_to_default: never", "return_to_default_s", None),
        ("max_queue: 0", "max_queue", 0),
        ("max_body: 1MiB", "max_body_bytes", 1 << 20),
        ("log: {format: json}", "log", Log("json")),
        ("log: {requests: true}", "log", Log("human", True)),
        ("traces: {}", "traces", Traces()),
        ("traces: {endpoint: 'http://127.0.0.1:4318', ratio: 0.1}", "traces", Traces("http://127.0.0.1:4318", 0.1)),
        ("traces: null", "traces", None),
        ("conversations: 1GiB", "conversations_bytes", 1 << 30),
        ("resume: false", "resume", False),
        ("comments_after: 2s", "comments_after_s", 2.0),
        ("comments_after: never", "comments_after_s", None),
        ("responses_ttl: 1d", "responses_ttl_s", 86400.0),
        ("responses_ttl: never", "responses_ttl_s", None),
        ("conversations: off", "conversations_bytes", None),
        ("gpu_layers: 33", "gpu_layers", 33),
        ("gpu_backend: not-vulkan", "gpu_backend", "not-vulkan"),
        ("env: {HSA_OVERRIDE_GFX_VERSION: 10.3.0}", "env", {"HSA_OVERRIDE_GFX_VERSION": "10.3.0"}),
        ("default_model: m", "default_model", "m"),
        ("timeouts: {start: 1m, stop: 0}", "timeouts", Timeouts(start_s=60.0, stop_s=0.0)),
    ],
)
def test_a_global_key_takes(tmp_path: Path, text: str, field: str, value: Any) -> None:
    """A global key is taken as the documentation says."""
    assert getattr(whole(Place(tmp_path), text), field) == value


def test_defaults_are_those_of_settings(tmp_path: Path) -> None:
    """A model of which only name and source are given has the defaults of ModelSettings, and so have the globals."""
    place = Place(tmp_path)
    settings = whole(place, "")
    base = place.paths.user_config.parent
    assert dict(settings.models) == {"m": ModelSettings("m", base / "m.gguf")}
    assert settings == Settings(settings.models, file=place.paths.user_config)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("contxt: 7", "unknown key `contxt`: did you mean `context`?"),
        ("zzzz: 7", "unknown key `zzzz`: valid: name, source, aliases"),
        ("context: big", "`context` must be a whole number, not the text 'big'"),
        ("context: '4096'", "`context` must be a whole number, not the text '4096': without quotes it would be 4096"),
        ("context: 0", "`context` must be between 1 and"),
        ("context: 1.5", "`context` must be a whole number, not 1.5"),
        ("gpu_layers: all", "`gpu_layers` must be auto or a whole number, not the text 'all'"),
        ("devices: [gpu0, gpu0]", "`devices` names a GPU twice"),
        ("devices: [cpu]", "`devices` has 'cpu', which is no name of a GPU"),
        ("tensor_split: [0, 0]", "`tensor_split` must give a GPU something"),
        ("tensor_split: 3:1", "`tensor_split` must be a list of numbers such as [3, 1]"),
        ("split: tensor", "`split` must be layer or row or none"),
        ("gpu_backend: opencl", "`gpu_backend` must be auto or vulkan"),
        ("gpu_layers: -1", "`gpu_layers` must be between 0 and"),
        ("parallel: true", "`parallel` must be a whole number, not true"),
        ("preload: yes", "`preload` must be true or false, not the text 'yes': write true"),
        ("pin: 0", "`pin` must be true or false, not 0"),
        ("replicas: 0", "`replicas` must be between 1 and 64"),
        ("schedule: mornings", "`schedule` must be a list of windows"),
        ("schedule: [{day: mon}]", "`schedule` has no key 'day' in a window"),
        ("schedule: [{days: monday}]", "`schedule` knows no days 'monday'"),
        ("schedule: [{from: 25:00}]", "`schedule` needs times of day such as 08:00, not the text '25:00'"),
        ("schedule: [{from: 8:00, to: 08:00}]", "`schedule` has a window that ends where it begins"),
        ("schedule: [{keep: warm}]", "`schedule` keeps ready or pin, not the text 'warm'"),
        ("args: '--x \"'", "`args` cannot be split into words: no closing quotation"),
        ("args: {a: 1}", "`args` must be a list of flags"),
        ("args: [[a]]", "`args` must be a list of flags"),
        ("env: [A=1]", "`env` must be names with values, not a list"),
        ("env: {'A-B': x}", "'A-B', which is no name of an environment variable"),
        ("env: {A: }", "`env` must give A a text, not nothing"),
        ("port: 0", "`port` must be between 1 and 65535, not 0"),
        ("port: 70000", "`port` must be between 1 and 65535, not 70000"),
        ("idle_timeout: soon", "`idle_timeout` must be a duration such as 30s, 5m or 1h30m, not the text 'soon'"),
        ("idle_timeout: -5", "`idle_timeout` must be a duration"),
        ("idle_timeout: false", "`idle_timeout` must be a duration such as 30s, 5m or 1h30m, not false"),
        ("idle_timeout: 1e99", "`idle_timeout` must be less than ten years"),
        ("on_out_of_memory: [gpu]", "`on_out_of_memory` must be never or a list of batch, context, layers, cpu"),
        ("on_out_of_memory: [cpu, cpu]", "`on_out_of_memory` names something twice"),
        ("priority: 5000", "`priority` must be between -1000 and 1000"),
        ("group: a b", "`group` must be a short name"),
        ("engine: tgi", "`engine` must be "),
        ("max_num_seqs: 8", "`max_num_seqs` is a key of vLLM's"),
        ("sleep: 3", "`sleep` must be off, 1 or 2, not 3"),
        ("quantization: int4", "`quantization` must be fp8_per_tensor or fp8_per_block or fp8_per_channel"),
        ("runner: lxc", "`runner` must be process or podman or docker or server, not the text 'lxc'"),
        ("aliases: [3]", "`aliases` must be a text, not 3 (put it in quotes: '3')"),
        ("aliases: ['a b']", "'a b' contains U+0020"),
        ("executable: ''", "`executable` must not be empty"),
    ],
)
def test_a_wrong_model_key_is_explained(tmp_path: Path, line: str, says: str) -> None:
    """A wrong value is one problem in words, at its line."""
    (problem,) = Place(tmp_path).problems(MODEL + f"    {line}\n")
    assert says in str(problem)
    assert problem.place.line == 4
    assert problem.level == "error"
    assert problem.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("modles: []", "unknown key `modles`: did you mean `models`?"),
        ("timeouts: {strt: 1}", "unknown key `strt`: did you mean `start`?"),
        ("timeouts: 5m", "`timeouts` must be a mapping of keys to values, not the text '5m'"),
        ("timeouts: {start: 0}", "`start` must be longer than nothing"),
        ("executables: {llama_cpp: x}", "unknown key `llama_cpp`: did you mean `llama.cpp`?"),
        ("memory: 16GiB", "`memory` must give a size per device, such as {cpu: 16GiB}"),
        ("memory: {cpu: lots}", "`memory` for cpu must be a size such as 16GiB or 500MB, not the text 'lots'"),
        ("memory: {cpu: 0}", "`memory` for cpu must be more than nothing"),
        ("memory: {cpu: -1}", "`memory` for cpu must be a size"),
        ("memory: {gpu: 1GiB}", "`memory` knows no device 'gpu'"),
        ("max_active: 0", "`max_active` must be at least 1; leave it out for no limit"),
        ("max_queue: -1", "`max_queue` must be between 0 and"),
        ("conversations: 0", "`conversations` must be more than nothing"),
        ("max_body: 0", "`max_body` must be more than nothing"),
        ("listen: []", "`listen` must name at least one address"),
        ("listen: {adress: 1}", "has an unknown key 'adress'"),
        ("listen: {address: 1, unix: /s}", "needs one of `address` and `unix`"),
        ("listen: {dialect: ollama}", "needs one of `address` and `unix`"),
        ("listen: {address: 1, dialect: soap}", "has a dialect that is none of openai"),
        ("listen: {address: 1, insecure: yes}", "has `insecure`, which must be true or false"),
        ("listen: {address: 1, tls: c.pem}", "must be {cert: FILE, key: FILE}"),
        ("listen: {address: 1, tls: {cert: c.pem}}", "must be {cert: FILE, key: FILE}"),
        ("listen: {address: 1, page: /p}", "needs `dialect: llamacpp` beside it"),
        ("listen: {address: 1, dialect: llamacpp, page: 1}", "must be the folder of llama.cpp's web page"),
        ("allowed_hosts: ['http://box']", "which is no host's name"),
        ("allowed_origins: localhost", "which is no origin"),
        ("trusted_proxies: proxy.lan", "which is no address or network"),
        ("listen: 127.0.0.1:99999", "has no port between 0 and 65535"),
        ("listen: :8642", "names no host (write 127.0.0.1:8642"),
        ("listen: 256.1.1.1:80", "is no IP address"),
        ("listen: http://127.0.0.1", "is no"),
        ("listen: true", "`listen` must be an address such as 127.0.0.1:8642, not true"),
        ("default_model: 7", "`default_model` must be a text, not 7"),
        ("roots: 7", "`roots` must be a text, not 7"),
        ("log: json", "`log` must give keys with values (format, requests), not the text 'json'"),
        ("log: {format: jsn}", "`log` is wrong: its format must be human or json, not the text 'jsn'"),
        ("log: {requests: 1}", "`log` is wrong: its requests must be true or false, not 1"),
        ("traces: {ratios: 1}", "`traces` knows no key 'ratios'; did you mean `ratio`?"),
        ("traces: {ratio: 2}", "`traces` must have a ratio between 0 and 1, not 2"),
        ("traces: {endpoint: 'box:4318'}", "has the endpoint 'box:4318', which is no address such as"),
        ("traces: {endpoint: 'http://me:secret@box:4318'}", "must not have a password in its endpoint"),
    ],
)
def test_a_wrong_global_key_is_explained(tmp_path: Path, text: str, says: str) -> None:
    """A wrong global value is one problem in words, at its line."""
    (problem,) = Place(tmp_path).problems(MODEL + text + "\n")
    assert says in str(problem)
    assert problem.place.line == 4
    assert problem.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "the file must be a mapping of keys to values, not a list"),
        ("models: 3", "`models` must be a list of models, not 3"),
        ("models: [3]", "a model must be a mapping of keys to values, not 3"),
        ("models: {a: 3}", "a model must be a mapping of keys to values, not 3"),
        ("models: [{source: x}]", "`name` is missing"),
        ("models: [{name: x}]", "`source` is missing"),
        ("models: {a: {name: b, source: builtin:demo}}", "the model under `a` has another `name`"),
        ("models: [{name: a, source: 'hf.co://x'}]", "is neither a file nor a reference"),
        ("models: [{name: a, source: 'builtin:x'}]", "the only built-in model is builtin:demo"),
        ("models: [{name: a, source: '${NOPE}/x'}]", "uses ${NOPE}, but there is no such variable"),
    ],
)
def test_a_document_of_another_shape_is_explained(tmp_path: Path, text: str, says: str) -> None:
    """What is no list of models is one problem in words."""
    (problem,) = Place(tmp_path).problems(text)
    assert says in str(problem)
    assert problem.place.line == 1 or says.startswith("the file")


def test_models_may_be_a_mapping(tmp_path: Path) -> None:
    """`models:` may map names to entries, with the same result as a list."""
    place = Place(tmp_path)
    place.user("models:\n  a: {source: builtin:demo}\n  b: {source: builtin:demo, name: b}\n")
    assert list(place.load().settings.models) == ["a", "b"]


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    """One look shows every problem: of each model, of the globals and between them, in the order of the lines."""
    problems = Place(tmp_path).problems(
        """\
        max_activ: 1
        default_model: coder
        models:
          - name: a
            sorce: x
            port: 8642
          - name: b
            source: builtin:demo
            contxt: 3
            port: x
          - name: a
            source: builtin:demo
        """
    )
    assert [(p.place.line, p.message.split(":")[0]) for p in problems] == [
        (1, "unknown key `max_activ`"),
        (2, "default_model 'coder' is none of the models"),
        (4, "`source` is missing"),
        (5, "unknown key `sorce`"),
        (6, "port 8642 of 'a' is already that of `listen` (127.0.0.1"),
        (9, "unknown key `contxt`"),
        (10, "`port` must be a whole number, not the text 'x'"),
        (11, "the name 'a' is given twice"),
    ]


@pytest.mark.parametrize("name", ["a", "gpt-oss-120b", "hf.co/org/repo:Q4_K_M", "x@sha256:0", "_x", "7", "A.b"])
def test_usual_names_are_names(tmp_path: Path, name: str) -> None:
    """Letters, digits and ._-:/@ make names."""
    place = Place(tmp_path)
    place.user(f"models: [{{name: '{name}', source: builtin:demo}}]")
    assert list(place.load().settings.models) == [name]


@pytest.mark.parametrize(
    "name", ["", "/a", "-a", "a b", "a/../b", "..", "./a", "a//b", "a/", "a\u00a0b", "\u0430", "a\\tb", "a" * 201, "a?"]
)
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    """Blanks, look-alikes, climbing paths and names that look like flags are no names."""
    (problem,) = Place(tmp_path).problems(f'models: [{{name: "{name}", source: builtin:demo}}]')
    assert "is no usable name" in problem.message


def test_an_address_can_say_more(tmp_path: Path) -> None:
    """The mapping form of `listen`: files are seen from the file that names them; OpenAI's dialect is that of all."""
    (tmp_path / "user").mkdir(exist_ok=True)
    place = Place(tmp_path)
    text = "listen:\n  - {address: '0.0.0.0:9443', tls: {cert: c.pem, key: /k.pem}, dialect: ollama, insecure: true}\n"
    listen = whole(place, text + "  - {address: 9000, dialect: openai}\n").listen
    assert [str(each) for each in listen] == ["0.0.0.0:9443", "127.0.0.1:9000"]
    first, second = listen
    assert (first.dialect, first.insecure, second.dialect, second.insecure, second.tls) == (
        "ollama",
        True,
        None,
        False,
        None,
    )
    assert first.tls is not None and first.tls.key == Path("/k.pem")
    assert first.tls.cert.is_absolute() and first.tls.cert.name == "c.pem"


def test_an_address_may_have_a_page(tmp_path: Path) -> None:
    """A folder, seen from the file that names it; one without a page in it is warned of."""
    place = Place(tmp_path)
    text = "listen: {address: 8080, dialect: llamacpp, page: dist}\n"
    found = whole(place, text).listen[0].page
    assert found is not None and found.is_absolute() and found.name == "dist"
    assert ["index.html" in each.message for each in place.load().warnings if each.key == ("listen",)] == [True]
    (found / "index.html").parent.mkdir(parents=True, exist_ok=True)
    (found / "index.html").touch()
    assert not [each for each in place.load().warnings if each.key == ("listen",)]
