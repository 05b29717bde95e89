"""`corral doctor --report`: what a bug report needs is in it, and no secret is, wherever it was."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.api import EventInfo, dump
from corral.cli.app import App
from corral.cli.check_server import configuration
from corral.cli.report import begin, default_name, write
from corral.config.paths import Paths
from corral.hidden import MASK, Cleaner, is_secret
from support.server import Server
from support.small_server import SmallServer

Corral = Callable[..., "subprocess.CompletedProcess[str]"]

_PEM = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQ"
PLANTED = {
    "an engine's variable": "engine-variable-3f9a",
    "one with a harmless name": "/opt/private-place-77b1",
    "a token of the hub": "hf_PlantedHubToken0011",
    "a key in a flag": "flag-key-a81c",
    "a key in a flag with =": "flag-key-b92d",
    "an engine's password": "pass word 5512 with blanks",
    "a bearer": "bearer-planted-0c1d2e",
    "a basic": "dXNlcjpwbGFudGVkLWJhc2lj",
    "a cookie": "cookie-planted-9d8e7f",
    "an x-api-key": "xapikey-planted-11aa",
    "a password in an address": "url-pass-planted-22bb",
    "a token in an address": "query-token-planted-33cc",
    "a signature in an address": "sig-planted-44dd",
    "a key of Corral's": "ck_planted1234567890abcdef",
    "a key of OpenAI's": "sk-proj-planted0987654321",
    "a token of GitHub's": "ghp_planted0123456789abcdef",
    "a token that reads as JSON": "eyJhbGciOiJub25lIn0.eyJwbGFudGVkIjoxfQ.c2ln",
    "this command's key": "process-key-planted-55ee",
    "headers for a collector": "otel-header-planted-66ff",
    "a private key": _PEM,
    "a password that was assigned": "assigned-planted-7a7a",
    "a secret in JSON": "json-planted-8b8b",
    "somebody's name": "mallory-planted",
}

CONFIG = f"""
listen: 127.0.0.1:18642
env: {{SOME_SETTING: {PLANTED["an engine's variable"]}, PLACE: {PLANTED["one with a harmless name"]}}}
models:
  - name: demo
    source: builtin:demo
    env: {{HF_TOKEN: {PLANTED["a token of the hub"]}, SERVICE_PASSWORD: "{PLANTED["an engine's password"]}"}}
    args: [--api-key, {PLANTED["a key in a flag"]}, --api-key={PLANTED["a key in a flag with ="]}]
"""

LOG = f"""\
0.00.1 I srv init: n_tokens = 18, truncated = 0
Authorization: Bearer {PLANTED["a bearer"]}
curl -H 'authorization: Basic {PLANTED["a basic"]}' -H "X-Api-Key: {PLANTED["an x-api-key"]}"
Cookie: session={PLANTED["a cookie"]}; other=1
headers={{"authorization": "Bearer {PLANTED["a bearer"]}", "secret": "{PLANTED["a secret in JSON"]}"}}
fetching https://me:{PLANTED["a password in an address"]}@registry.example.org/v2/model
fetching https://hub.example.org/model?X-Amz-Signature={PLANTED["a signature in an address"]}&x=1
fetching https://hub.example.org/model?access_token={PLANTED["a token in an address"]}
keys {PLANTED["a key of Corral's"]} {PLANTED["a key of OpenAI's"]} {PLANTED["a token of GitHub's"]}
jwt {PLANTED["a token that reads as JSON"]}
SERVICE_PASSWORD={PLANTED["an engine's password"]}
DB_PASSWORD={PLANTED["a password that was assigned"]}
env SOME_SETTING is {PLANTED["an engine's variable"]}; PLACE is {PLANTED["one with a harmless name"]}
key of this command {PLANTED["this command's key"]}, of the collector {PLANTED["headers for a collector"]}
args: ['--api-key', '{PLANTED["a key in a flag"]}', '--api-key={PLANTED["a key in a flag with ="]}']
loaded /home/{PLANTED["somebody's name"]}/models/x.gguf
-----BEGIN PRIVATE KEY-----
{PLANTED["a private key"]}
-----END PRIVATE KEY-----
llama_perf: 12.5 tokens per second, token_embd.weight, bos_token_id = 1
"""


@pytest.fixture
def planted(paths: Paths) -> Paths:
    """Secrets in the configuration, the events, every log, and files with keys."""
    for folder in (paths.config_dir / "tls", paths.logs_dir / "demo", paths.logs_dir / "my%2Fmodel"):
        folder.mkdir(parents=True, exist_ok=True)
    paths.user_config.write_text(CONFIG)
    paths.user_config.chmod(0o600)
    (paths.config_dir / "tls" / "key.pem").write_text(f"-----BEGIN PRIVATE KEY-----\n{_PEM}\n")
    (paths.logs_dir / "demo" / "1.log").write_text("old\n")
    (paths.logs_dir / "demo" / "2.log").write_text(LOG)
    (paths.logs_dir / "demo" / "10.log").write_text("x" * (300 << 10) + "\n" + LOG)
    (paths.logs_dir / "my%2Fmodel" / "1.log").write_text(LOG)
    (paths.state_dir / "serve.log").write_text(LOG)
    (paths.state_dir / "warden.log").write_text(LOG)
    said = LOG.splitlines()
    entries = [
        EventInfo(1, 1e9, "unit.state", "demo", "demo.10", "demo.10: stopped → starting", {"after": "starting"}),
        EventInfo(
            2, 1e9 + 1, "unit.state", "demo", "demo.10", f"demo.10: loading → backoff ({said[1]})",
            {"before": "loading", "after": "backoff", "why": said[5], "tail": said, "headers": {"cookie": said[3]}},
        ),
    ]  # fmt: skip
    lines = "".join(json.dumps(dump(each), ensure_ascii=False) + "\n" for each in entries)
    (paths.state_dir / "events.jsonl").write_text(lines)
    return paths


def read(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def leaks(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Every planted secret that is somewhere in there, or half of one."""
    found = []
    for name, text in texts.items():
        for what, secret in PLANTED.items():
            half = len(secret) // 2
            if any(part in text or part in name for part in (secret, secret[:half], secret[half:])):
                found.append((what, name))
    return found


def gathered(file: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A report without the doctor's findings, made here."""
    for name in set(os.environ) - set(environment):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    begin(file)
    app = App()
    config, settings = configuration(app)
    write(app, file, config, settings)
    return read(file)


@pytest.fixture
def variables() -> dict[str, str]:
    return {
        "CORRAL_KEY": PLANTED["this command's key"],
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-team={PLANTED['headers for a collector']},b=c",
        "HF_TOKEN": PLANTED["a token of the hub"],
        "HTTPS_PROXY": f"http://me:{PLANTED['a password in an address']}@proxy.example.org:3128",
    }


def test_no_secrets(
    planted: Paths,
    variables: dict[str, str],
    corral_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a server: everything is in it, in a file for this user alone, and no secret, wherever it was planted."""
    file = tmp_path / "report.zip"
    texts = gathered(file, corral_env | variables, monkeypatch)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert leaks(texts) == []
    assert set(texts) >= {
        "README.txt", "versions.txt", "packages.txt", "doctor.txt", "hardware.json", "engines.json", "environment.txt",
        "config.yaml", "server.json", "events.jsonl", "stories/demo.txt", "serve.log", "warden.log",
        "logs/demo/10.log", "logs/demo/2.log", "logs/my_model/1.log",
    }  # fmt: skip
    assert "logs/demo/1.log" not in texts  # older than the last two
    for name in texts:
        assert name == "README.txt" or name in texts["README.txt"]
    log = texts["logs/demo/10.log"]
    assert "n_tokens = 18, truncated = 0" in log
    assert "12.5 tokens per second, token_embd.weight, bos_token_id = 1" in log
    assert f"https://{MASK}@registry.example.org/v2/model" in log
    assert "loaded ~/models/x.gguf" in log
    assert not log.startswith("x")  # whole lines of the end
    assert "demo.10" in texts["events.jsonl"] and "registry.example.org" in texts["stories/demo.txt"]
    assert json.loads(texts["server.json"])["running"] is False
    assert f"HF_TOKEN: {MASK}" in texts["config.yaml"] and "builtin:demo" not in texts["environment.txt"]
    assert f"HF_TOKEN: {MASK}" in texts["environment.txt"]
    assert json.loads(texts["hardware.json"])["cpu"]["logical"] > 0
    assert any(each["state"] == "embedded" for each in json.loads(texts["engines.json"]))
    assert "pydantic" in texts["packages.txt"] and "corral" in texts["versions.txt"]


def test_broken_configuration(
    planted: Paths,
    variables: dict[str, str],
    corral_env: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A configuration that cannot even be read gives nothing away either, and the report is made all the same."""
    planted.user_config.write_text(CONFIG + "  - [not: what, it should be\n")
    file = tmp_path / "report.zip"
    texts = gathered(file, corral_env | variables, monkeypatch)
    assert leaks(texts) == []
    assert "cannot be used" in texts["config.yaml"]


def test_of_a_server(corral: Corral, server: SmallServer, tmp_path: Path) -> None:
    """Where a server runs, what it says of itself is in it; --json says where it is and what is in it."""
    run = corral("doctor", "--report", "--json", cwd=tmp_path, timeout=110)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert Path(told["file"]).parent == tmp_path
    assert told["bytes"] == Path(told["file"]).stat().st_size
    texts = read(Path(told["file"]))
    assert set(told["contents"]) == set(texts)
    assert json.loads(texts["server.json"])["status"]["version"] == "9.9"


def test_of_a_real_server(
    corral: Corral, paths: Paths, corral_env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that could not start has its story in it, told by what a running server wrote down."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 64)
    with Server(paths, config=f"models: [{{name: bad, source: '{broken}'}}]") as running:
        assert corral("start", "bad", timeout=110).returncode != 0
        texts = gathered(tmp_path / "report.zip", corral_env, monkeypatch)
        told = json.loads(texts["server.json"])
        assert (told["running"], told["status"]["pid"]) == (True, running.pid)
        assert [each["name"] for each in told["models"]] == ["bad"]
    assert "start 1" in texts["stories/bad.txt"]
    assert "no usable GGUF file" in texts["stories/bad.txt"]
    assert "listening on" in texts["events.jsonl"]


def test_where_it_cannot_be(corral: Corral, tmp_path: Path) -> None:
    """A file that is there is not written over, and a folder that is not is told of."""
    there = tmp_path / "there.zip"
    there.write_text("mine")
    for file in (there, tmp_path / "none" / "report.zip"):
        run = corral("doctor", "--report", str(file))
        assert run.returncode != 0
        assert f"the report cannot be written to {file}" in run.stderr
    assert there.read_text() == "mine"
    assert default_name(0.0).startswith("corral-report-19")


@pytest.mark.parametrize(
    "text",
    [
        "n_tokens = 18, truncated = 0",
        "BOS token        = 1 '<s>'",
        "tokenizer.ggml.tokens arr[str,1024] = [a, ...]",
        "12.5 tokens per second; max_tokens: 40",
        '{"completion_tokens": 9, "cached_tokens": 0, "key": null}',
        "demo.1: loading → ready (loaded in 390 ms)",
        "http://127.0.0.1:8642/v1/chat/completions?stream=1",
        "key laptop was used",
    ],
)
def test_kept(text: str) -> None:
    """What is no secret stays as it is."""
    assert Cleaner(["secret-value"], ["/root"]).text(text) == text


def test_known() -> None:
    """A known secret goes wherever it stands, written as text or within JSON; one that is too short is left alone."""
    cleaner = Cleaner(['pa"ss\\word', "ab"], ["/srv/me"])
    assert cleaner.text('x pa"ss\\word y') == f"x {MASK} y"
    assert cleaner.text(json.dumps({"x": 'pa"ss\\word'})) == json.dumps({"x": MASK})
    assert cleaner.text("ab /srv/me/x /srv/meter") == "ab ~/x /srv/meter"


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("HF_TOKEN", True), ("api-key", True), ("AWS_SECRET_ACCESS_KEY", True), ("PGPASSWORD", True), ("token", True),
        ("x-auth", True), ("PATH", False), ("CUDA_VISIBLE_DEVICES", False), ("KEYBOARD", False), ("n_predict", False),
    ],
)  # fmt: skip
def test_names(name: str, secret: bool) -> None:
    """Names of what holds secrets are told from others."""
    assert is_secret(name) is secret
