"""Keys, budgets, TLS and origins on a real server with its demo model."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.access import certificates
from corral.api_access import KeyAsk, KeyMade
from corral.client import Client
from corral.config.paths import Paths
from corral.connection import parse_address
from corral.errors import CorralError, LocalOnly
from support.asking import CHAT, Reply, ask, ask_async, tokens_of
from support.rpc import free_port
from support.server import Server, until

KEYED = """
require_keys: true
allowed_origins: ['http://localhost:*']
models:
  - {name: demo, source: 'builtin:demo', aliases: [small], parallel: 4}
  - {name: other, source: 'builtin:demo'}
"""


def chat(model: str = "demo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8, **more}


@pytest.fixture(scope="module")
def server(module_paths: Paths) -> Iterator[Server]:
    """One for all that only ask: each makes keys of its own."""
    with Server(module_paths, KEYED) as started:
        yield started


@pytest.fixture
def own_server(paths: Paths) -> Iterator[Server]:
    """One that can be ended."""
    with Server(paths, KEYED) as started:
        yield started


_number = itertools.count(1)


def make(server: Server, name: str | None = None, **ask: Any) -> KeyMade:
    return server.client.create_key(KeyAsk(name or f"k{next(_number)}", **ask))


def test_who_has_no_key_is_not_let_in(server: Server) -> None:
    """401 in the dialect's shape with WWW-Authenticate; health is everybody's; each of the three fields works."""
    refused = ask(server.url, CHAT, None, chat())
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.headers["www-authenticate"] == 'Bearer realm="corral"'
    assert ask(server.url, CHAT, "sk-none", chat()).status == 401
    assert ask(server.url, "/control/status", "ck_abcdefghjk_" + "a" * 43).json()["error"]["code"] == "unauthorized"
    assert ask(server.url, "/health").status == ask(server.url, "/").status == 200
    secret = make(server).secret
    assert ask(server.url, CHAT, secret, chat()).status == 200
    assert ask(server.url, "/v1/models", x_api_key=secret).status == 200
    assert ask(server.url, "/v1/models", api_key=secret).status == 200
    assert ask(server.url, "/v1/models", secret[:-1] + ("a" if secret[-1] != "a" else "b")).status == 401


def test_a_key_is_good_for_its_scopes_and_models_only(server: Server) -> None:
    """403 beyond them, by alias too; the list of models is that of the key."""
    key = make(server, models=["small", "x/*"]).secret
    assert ask(server.url, CHAT, key, chat("small")).status == 200
    assert ask(server.url, CHAT, key, chat("other")).code == "forbidden"
    assert [each["id"] for each in ask(server.url, "/v1/models", key).json()["data"]] == ["demo", "small"]
    for path in ("/control/status", "/upstream/small/slots", "/control/keys"):
        assert (ask(server.url, path, key).status, ask(server.url, path, key).code) == (403, "forbidden")
    assert ask(server.url, "/upstream/small/slots/0?action=erase", key, {}).code == "forbidden"
    assert ask(server.url, "/upstream/small/%73lots/0?action=erase", key, {}).code == "forbidden"
    assert ask(server.url, "/upstream/small/tokenize", key, {"content": "a b"}).status == 200
    admin = make(server, "root", scopes=["admin"]).secret
    assert ask(server.url, "/upstream/small/slots", admin).status == 200
    assert ask(server.url, "/control/status", admin).status == 200


def test_revoking_and_rotating_count_at_once(server: Server) -> None:
    """The next request after the answer is judged by it; a rotated key's earlier secret while it overlaps."""
    made = make(server)
    assert ask(server.url, "/v1/models", made.secret).status == 200
    again = server.client.rotate_key(made.key.name, 0.0)
    assert again.key.id == made.key.id
    assert ask(server.url, "/v1/models", made.secret).status == 401
    third = server.client.rotate_key(made.key.name, 60.0)
    assert (
        ask(server.url, "/v1/models", again.secret).status == ask(server.url, "/v1/models", third.secret).status == 200
    )
    assert server.client.revoke_key(made.key.id).state == "revoked"
    refused = ask(server.url, "/v1/models", third.secret)
    assert refused.status == 401 and "was revoked" in refused.json()["error"]["message"]
    short = make(server, "short", expires_in_s=0.2).secret
    until(lambda: ask(server.url, "/v1/models", short).status == 401, "the key to expire")


def test_limits_are_told_with_their_end(server: Server) -> None:
    """429 with Retry-After and the limit's name; what is refused takes nothing of the others."""
    made = make(server, requests_per_minute=2, tokens_per_day=10**6)
    key, name = made.secret, made.key.name
    assert [ask(server.url, CHAT, key, chat()).status for _ in range(2)] == [200, 200]
    refused = ask(server.url, CHAT, key, chat())
    assert (refused.status, refused.code) == (429, "limit_reached")
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    tight = make(server, "tight", tokens_per_minute=10).secret
    never = ask(server.url, CHAT, tight, chat())
    assert never.code == "limit_reached" and "retry-after" not in never.headers
    info = {each.name: each for each in server.client.list_keys()}
    assert info[name].tokens_today == sum(row.prompt_tokens + row.completion_tokens for row in usage(server, name))


def usage(server: Server, key: str) -> list[Any]:
    return server.client.key_usage(key, None, ("key", "model"))


async def test_two_hundred_at_once_never_spend_more_than_there_is(server: Server) -> None:
    """With streams and plain answers of many sizes at once: the sum stays in the budget, what is reported is what the
    answers said, and those who found none left were told so."""
    budget, chance = 12_000, random.Random(8)
    made = await asyncio.to_thread(make, server, tokens_per_day=budget)
    key, name = made.secret, made.key.name
    bodies = [
        chat(max_tokens=chance.randint(1, 24), stream=stream, stream_options={"include_usage": True})
        if (stream := chance.random() < 0.5)
        else chat(max_tokens=chance.randint(1, 24))
        for _ in range(200)
    ]
    replies = await asyncio.gather(*(ask_async(server.url, CHAT, key, body) for body in bodies))
    fine = [reply for reply in replies if reply.status == 200]
    assert {reply.code for reply in replies if reply.status != 200} == {"limit_reached"}
    spent = sum(tokens_of(reply) for reply in fine)
    assert 0 < spent <= budget
    rows = await asyncio.to_thread(usage, server, name)
    assert sum(row.prompt_tokens + row.completion_tokens for row in rows) == spent
    assert sum(row.requests for row in rows) == len(fine)
    (info,) = [each for each in await asyncio.to_thread(server.client.list_keys) if each.name == name]
    assert info.tokens_today == spent


def test_a_budget_survives_a_kill_and_secrets_are_nowhere(own_server: Server) -> None:
    """kill -9 in the middle: the next server counts at least what was spent, and not much more; what a clean end leaves
    is exact. A key's secret is not in a log, not in an event, not in a file of the state directory, not among the
    arguments of any process."""
    server = own_server
    made = make(server, tokens_per_day=20_000)
    key = made.secret
    spent = sum(tokens_of(ask(server.url, CHAT, key, chat())) for _ in range(5))
    server.kill()
    server.start()
    found = server.client.list_keys()[0].tokens_today
    assert found is not None and spent <= found <= spent + 2 * 20_000 // 32 + 500
    more = sum(tokens_of(ask(server.url, path, key, chat())) for path in (CHAT, "/upstream/demo/v1/chat/completions"))
    ask(server.url, "/nowhere", key)
    ask(server.url, CHAT, key, {"model": "demo"})
    run(server, "usage"), run(server, "keys", "list")
    secret = key.rpartition("_")[2]
    arguments = b"".join(_read(each) for each in Path("/proc").glob("[0-9]*/cmdline"))
    assert secret.encode() not in arguments
    assert secret not in str(server.client.events()) and secret not in str(server.client.list_keys())
    assert server.end() == 0
    places = [server.paths.state_dir, server.paths.cache_dir, server.paths.runtime_dir, server.paths.config_dir]
    files = [file for place in places if place.exists() for file in place.rglob("*") if file.is_file()]
    assert any(file.name == "access.db" for file in files) and any(file.suffix == ".log" for file in files)
    holding = [str(file) for file in files if secret.encode() in file.read_bytes()]
    assert holding == []
    assert server.paths.access_file.stat().st_mode & 0o777 == 0o600
    server.start()
    assert server.client.list_keys()[0].tokens_today == found + more


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def test_a_request_without_a_bound_stays_in_the_budget(server: Server) -> None:
    """The engine is told how much is left, so that not even an endless answer costs more."""
    key = make(server, tokens_per_day=400).secret
    body = {key: value for key, value in chat().items() if key != "max_tokens"}
    answer = ask(server.url, CHAT, key, {**body, "ignore_eos": True})
    assert answer.status == 200 and answer.json()["choices"][0]["finish_reason"] == "length"
    assert tokens_of(answer) <= 400


def test_pages_of_others_get_nothing(server: Server) -> None:
    """Neither by name (rebinding) nor from where they are (drive-by), whatever the method; a page that is allowed reads
    its answers, errors too."""
    key = make(server).secret
    host = server.url.removeprefix("http://")
    assert ask(server.url, "/v1/models", key, origin="http://evil.example").code == "origin_refused"
    assert ask(server.url, CHAT, key, chat(), origin="http://evil.example").status == 403
    assert ask(server.url, "/v1/models", key, sec_fetch_site="cross-site").status == 403
    assert ask(server.url, "/health", origin="http://evil.example").status == 200
    assert ask(server.url, "/v1/models", key, origin=f"http://{host}").status == 200

    def preflight(origin: str) -> Reply:
        return ask(
            server.url, CHAT, method="OPTIONS", origin=origin, access_control_request_method="POST",
            access_control_request_headers="x-a",
        )  # fmt: skip

    assert preflight("http://evil.example").status == 403
    fine = preflight("http://localhost:5173")
    assert (fine.status, fine.headers["access-control-allow-origin"]) == (204, "http://localhost:5173")
    assert fine.headers["access-control-allow-headers"] == "x-a"
    for path, status, body in (
        ("/v1/models", 200, None),
        ("/control/status", 403, None),
        (CHAT, 200, chat()),
        (CHAT, 200, chat(stream=True)),
        (CHAT, 404, chat("nobody")),
    ):
        allowed = ask(server.url, path, key, body, origin="http://localhost:5173")
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (status, "http://localhost:5173")


@pytest.fixture(scope="module")
def opened(module_paths: Paths) -> Iterator[Server]:
    """One without keys, on an address in the clear and one with TLS."""
    place = module_paths.state_dir.parent / "o"
    paths = Paths(*(place / name for name in ("config", "state", "cache", "r", "data")))
    paths.make()
    files = certificates.init(paths.tls_dir).files
    entry = f"{{address: '127.0.0.1:{free_port()}', tls: {{cert: {files.cert}, key: {files.key}}}}}"
    config = f"listen: ['127.0.0.1:0', {entry}]\nmodels: [{{name: demo, source: 'builtin:demo'}}]"
    with Server(paths, config, listen="") as started:
        yield started


def test_an_open_server_is_open_to_this_machine_only(opened: Server) -> None:
    """No key is asked for, any is taken; a rebound name is refused; nobody without a key makes one over TCP."""
    before = nobodys_requests(opened)
    assert ask(opened.url, CHAT, None, chat()).status == 200
    assert ask(opened.url, CHAT, "sk-anything", chat()).status == 200
    rebound = ask(opened.url, "/v1/models", host="evil.example:80")
    assert (rebound.status, rebound.code) == (403, "origin_refused")
    assert ask(opened.url, "/v1/models", host="localhost:1").status == 200
    with pytest.raises(LocalOnly):
        Client(parse_address(opened.url)).create_key(KeyAsk("mine"))
    made = make(opened, "root", scopes=["admin"])
    assert ask(opened.url, "/control/keys/create", made.secret, {"name": "second"}).status == 200
    opened.client.revoke_key("root")
    assert ask(opened.url, "/v1/models", made.secret).status == 401
    assert nobodys_requests(opened) == before + 2


def nobodys_requests(server: Server) -> int:
    """How many were counted without a key; all of them are of one model."""
    rows = server.client.key_usage("-", None, ("model",))
    assert {row.model for row in rows} <= {"demo"} and len(rows) <= 1
    return sum(row.requests for row in rows)


def test_the_network_is_not_let_in_without_keys(paths: Paths) -> None:
    """`serve` refuses, with the way out; with a key it starts and asks for it; --insecure said aloud opens it."""
    lan = Server(paths, listen="0.0.0.0:0")
    lan.write(lan.config)
    refused = subprocess.run(
        lan.command(), env=lan.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert "needs keys, and there are none" in refused.stderr and "corral listen lan" in refused.stderr
    created = run(lan, "keys", "create", "--name", "lan")
    with lan:
        url = lan.url.replace("0.0.0.0", "127.0.0.1")
        assert ask(url, "/v1/models").status == 401
        assert ask(url, "/v1/models", created.strip()).status == 200
        assert ask(url, "/health", host="anything.example").status == 200
    with Server(paths, listen="0.0.0.0:0", flags=("--insecure",)) as server:
        assert ask(server.url.replace("0.0.0.0", "127.0.0.1"), "/v1/models").status == 200


def run(server: Server, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "corral", *words], env=server.environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_tls_with_the_own_authority(opened: Server) -> None:
    """A client that trusts the authority is answered, streamed too, another is not; a renewed certificate is taken up
    without a restart, and one that is no good is not."""
    server, files = opened, certificates.files_in(opened.paths.tls_dir)
    url = f"https://{server.greeting['listen'][1]}"
    trusting = ssl.create_default_context(cafile=str(files.ca))
    assert ask(url, CHAT, None, chat(), tls=trusting).status == 200
    streamed = ask(url, CHAT, None, chat(stream=True), tls=trusting)
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(url, "/health", tls=ssl.create_default_context())
    assert Client(parse_address(url)).answers() is False
    trusted = Client.find(server.paths, url, env={"CORRAL_CA": str(files.ca)})
    assert [each.name for each in trusted.models()] == ["demo"]

    def serial() -> str:
        return ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2])))

    before = serial()
    files.key.write_text("spoilt")
    assert ask(url, "/health", tls=trusting).status == 200
    certificates.init(server.paths.tls_dir)
    until(lambda: serial() != before, "the new certificate")
    assert ask(url, "/health", tls=trusting).status == 200
    assert "eof_received" not in server.said()


def test_requests_are_recorded_when_asked_for(server: Server) -> None:
    """Off at first; then without secrets, and with bodies only on demand."""
    secret = make(server).secret
    assert ask(server.url, CHAT, secret, chat()).status == 200
    assert server.client.recording().requests == []
    server.client.record(on=True)
    ask(server.url, f"{CHAT}?api_key=sesame", secret, chat(), cookie="sesame")
    ask(server.url, "/v1/models", None)

    def ended() -> list[Any]:
        return [each for each in server.client.recording().requests if each.peer == "127.0.0.1" and each.status]

    first, second = until(lambda: len(found := ended()) == 2 and found, "both requests")
    assert (first.status, first.model, first.body, second.status) == (200, "demo", None, 401)
    assert first.caller.startswith("key:") and first.body_bytes > 0 and first.took_ms is not None
    assert "sesame" not in str(first) and secret.rpartition("_")[2] not in str(first)
    server.client.record(on=True, bodies=True)
    ask(server.url, CHAT, secret, chat(user=secret))
    last = until(lambda: ended()[-1].body, "the body")
    assert '"hello"' in last and secret not in last
    assert server.client.record(on=False).requests == []


def test_engines_are_reached_through_the_gateway_only(server: Server) -> None:
    """Each engine listens on a unix socket of this user in a directory of this user, and on no port."""
    ask(server.url, CHAT, make(server).secret, chat())
    (unit,) = [each for each in server.client.units() if each.model == "demo"]
    where = Path(re.sub(r"^unix:", "", unit.endpoint))
    assert where.is_socket()
    assert server.paths.units_dir.stat().st_mode & 0o777 == 0o700
    ports = {port for table in ("tcp", "tcp6") for port in _listening(Path(f"/proc/{unit.pid}/net/{table}"), unit.pid)}
    assert ports == set()


def _listening(table: Path, pid: int | None) -> set[int]:
    """Ports on which process `pid` listens."""
    mine = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir() if each.is_symlink()}
    found = set()
    for line in table.read_text().splitlines()[1:]:
        columns = line.split()
        if columns[3] == "0A" and f"socket:[{columns[9]}]" in mine:
            found.add(int(columns[1].rpartition(":")[2], 16))
    return found


def test_an_error_of_the_command_line_is_an_error(server: Server) -> None:
    """A key that is not there, a scope that is none."""
    for act in (lambda: server.client.revoke_key("nobody"), lambda: make(server, scopes=["all"])):
        with pytest.raises(CorralError):
            act()
