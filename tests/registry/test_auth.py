"""Which credentials go where: token servers, redirects, other hosts."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral.errors import BadReference, CorralError, EgressRefused, ManifestError, NotAllowedThere, RateLimited
from corral.registry.auth import Auth
from corral.registry.egress import Egress, EgressPolicy
from support.raw_http import Asked, RawServer, answer, json_answer, serving

BASIC = "Basic " + base64.b64encode(b"u:p").decode()


class Registry:
    """A scripted registry that wants a bearer token, and gives it at `realm`."""

    def __init__(self) -> None:
        self.server: RawServer | None = None
        self.realm = ""
        self.scope = "repository:a/b:pull"
        self.good = {"Bearer t1"}
        self.token: Callable[[Asked], bytes] = lambda asked: json_answer({"token": "t1"})

    @property
    def host(self) -> str:
        assert self.server is not None
        return self.server.authority

    def script(self, asked: Asked) -> bytes | None:
        if asked.path.startswith("/token"):
            return self.token(asked)
        if asked.path == "/v2/" or asked.headers.get("authorization") in self.good:
            return answer(body=b"yes")
        realm = self.realm or f"http://{self.host}/token"
        return answer(401, www_authenticate=f'Bearer realm="{realm}",service="s",scope="{self.scope}"')


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    with serving(made.script) as server:
        made.server = server
        yield made


@contextmanager
def auth(home: Path, registry: Registry, *, entry: object = None, **policy: object) -> Iterator[Auth]:
    entry = {"auth": base64.b64encode(b"u:p").decode()} if entry is None else entry
    (home / ".docker").mkdir(exist_ok=True)
    (home / ".docker" / "config.json").write_text(json.dumps({"auths": {registry.host: entry}}))
    with Egress(EgressPolicy(proxy="", stall_s=5, **policy)) as egress:  # type: ignore[arg-type]
        yield Auth(egress, home / "config", env={"HOME": str(home)})


def ask(
    auth: Auth, registry: Registry, path: str = "/v2/a/b/x", method: str = "GET", **more: object
) -> tuple[int, bytes]:
    scopes = ("repository:a/b:pull",)
    url = f"http://{registry.host}{path}"
    with auth.request(method, url, host=registry.host, scopes=scopes, **more) as response:  # type: ignore[arg-type]
        return response.status, response.read()


def tokens(registry: Registry) -> list[Asked]:
    assert registry.server is not None
    return [each for each in registry.server.asked if each.path.startswith("/token")]


def test_credentials_go_to_the_own_token_server(tmp_path: Path, registry: Registry) -> None:
    """The token server on the registry's own host gets the credentials; the registry itself only the token."""
    with auth(tmp_path, registry) as client:
        assert ask(client, registry) == (200, b"yes")
        assert ask(client, registry) == (200, b"yes")
    assert len(tokens(registry)) == 1
    assert tokens(registry)[0].headers["authorization"] == BASIC
    assert "service=s" in tokens(registry)[0].path
    assert "scope=repository%3Aa%2Fb%3Apull" in tokens(registry)[0].path
    assert registry.server is not None
    assert {each.headers.get("authorization") for each in registry.server.asked if "/v2/a" in each.path} == {
        None, "Bearer t1",
    }  # fmt: skip


def test_identity_token(tmp_path: Path, registry: Registry) -> None:
    """An identity token is shown to the token server in a form, never in an address."""
    with auth(tmp_path, registry, entry={"identitytoken": "it"}) as client:
        assert ask(client, registry) == (200, b"yes")
    (asked,) = tokens(registry)
    assert asked.method == "POST"
    assert b"refresh_token=it" in asked.body
    assert "it" not in asked.path.split("?")[-1]


def test_registry_token(tmp_path: Path, registry: Registry) -> None:
    """A registry token is used as it is."""
    with auth(tmp_path, registry, entry={"registrytoken": "t1"}) as client:
        assert ask(client, registry) == (200, b"yes")
    assert tokens(registry) == []


def test_renewal_under_a_body(tmp_path: Path, registry: Registry) -> None:
    """A token that is refused midway is renewed, and the body sent again from where it stood."""
    with auth(tmp_path, registry) as client:
        ask(client, registry)
        registry.good = {"Bearer t2"}
        registry.token = lambda asked: json_answer({"access_token": "t2", "expires_in": 10})
        file = io.BytesIO(b"0123456789")
        file.seek(3)
        assert ask(client, registry, method="PUT", body=file) == (200, b"yes")
        assert registry.server is not None
        assert registry.server.asked[-1].body == b"3456789"


def test_many_threads_one_token(tmp_path: Path, registry: Registry) -> None:
    """Threads that need the same token wait for one answer."""
    found: list[int] = []
    with auth(tmp_path, registry) as client:
        barrier = threading.Barrier(8)

        def run() -> None:
            barrier.wait()
            found.append(ask(client, registry)[0])

        threads = [threading.Thread(target=run) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert found == [200] * 8
    assert len(tokens(registry)) == 1


def test_realm_elsewhere(tmp_path: Path, registry: Registry) -> None:
    """A token server on another host is asked without credentials, if its address may be asked at all."""
    with serving(lambda asked: answer(401)) as other:
        registry.realm = f"{other.url}/token"
        with auth(tmp_path, registry) as client, pytest.raises(EgressRefused, match="plain http"):
            ask(client, registry)
        free = {"private_addresses": (other.authority,), "insecure": (other.authority,)}
        with auth(tmp_path, registry, **free) as client, pytest.raises(NotAllowedThere, match="another host") as caught:
            ask(client, registry)
        assert "realms" in caught.value.hint
        assert [each.headers.get("authorization") for each in other.asked] == [None]
        with (
            auth(tmp_path, registry, realms={registry.host: (other.authority,)}) as client,
            pytest.raises(NotAllowedThere),
        ):
            ask(client, registry)
        assert other.asked[-1].headers["authorization"] == BASIC


@pytest.mark.parametrize(
    "realm",
    ["file:///etc/passwd", "https://169.254.169.254/token", "https://10.0.0.1/token", "ftp://x/", "", "https://u:p@x/"],
)
def test_realms_nobody_may_ask(tmp_path: Path, registry: Registry, realm: str) -> None:
    """A token server at a private address or of another scheme is refused."""
    registry.realm = realm or '"'
    with auth(tmp_path, registry) as client, pytest.raises(EgressRefused):
        ask(client, registry)
    assert tokens(registry) == []


def test_realm_outside_the_allow_list(tmp_path: Path, registry: Registry) -> None:
    """With an allow-list, a token server that is not on it is not asked."""
    registry.realm = "https://auth.example/token"
    with auth(tmp_path, registry, allow=(registry.host,)) as client, pytest.raises(EgressRefused, match="allowed"):
        ask(client, registry)


def test_challenge_of_another_host(tmp_path: Path, registry: Registry) -> None:
    """A 401 of the place that a registry redirects to starts no exchange of tokens."""
    with serving(lambda asked: answer(401, www_authenticate='Basic realm="x"')) as other:
        free = {"private_addresses": (other.authority,), "insecure": (other.authority,)}
        assert registry.server is not None
        registry.server.script = lambda asked: answer(200) if asked.path == "/v2/" else answer(307, location=other.url)
        with auth(tmp_path, registry, **free) as client:
            assert ask(client, registry)[0] == 401
    assert [each.headers.get("authorization") for each in other.asked] == [None]


def test_other_hosts_get_nothing(tmp_path: Path, registry: Registry) -> None:
    """A URL of another host, such as an upload's, is asked without the registry's credentials, whatever it says."""
    with serving(lambda asked: answer(401, www_authenticate='Basic realm="x"')) as other:
        free = {"private_addresses": (other.authority,), "insecure": (other.authority,)}
        with auth(tmp_path, registry, **free) as client:
            ask(client, registry)
            with client.request("PUT", f"{other.url}/up", host=registry.host, body=b"x") as response:
                assert response.status == 401
    assert [each.headers.get("authorization") for each in other.asked] == [None]


@pytest.mark.parametrize(
    ("token", "error"),
    [
        (answer(500), CorralError),
        (answer(429, retry_after="7"), RateLimited),
        (answer(200, b"not json"), ManifestError),
        (json_answer({"token": ""}), ManifestError),
        (json_answer({"token": "a\r\nb"}), ManifestError),
        (json_answer([]), ManifestError),
        (answer(200, b"x" * 100_000), ManifestError),
        (answer(302, location="https://example.com/"), CorralError),
    ],
)
def test_bad_token_servers(tmp_path: Path, registry: Registry, token: bytes, error: type[CorralError]) -> None:
    """A token server that fails or lies is an error, with its wish to be left alone for a while."""
    registry.token = lambda asked: token
    with auth(tmp_path, registry) as client, pytest.raises(error) as caught:
        ask(client, registry)
    assert caught.value.retry_after_s == (7 if error is RateLimited else None)


def test_login_checks(tmp_path: Path, registry: Registry) -> None:
    """Nothing is kept of a login that the registry did not take, or whose name cannot be one."""
    assert registry.server is not None
    registry.server.script = lambda asked: answer(
        200 if asked.headers.get("authorization") == BASIC else 401, www_authenticate='Basic realm="x"'
    )
    with auth(tmp_path, registry, entry={}) as client:
        with pytest.raises(NotAllowedThere):
            client.login(registry.host, "u", "wrong")
        for user in ("", "a:b", "a\nb"):
            with pytest.raises(BadReference):
                client.login(registry.host, user, "p")
        with pytest.raises(BadReference):
            client.login("not a host", "u", "p")
        assert not (tmp_path / "config" / "auth.json").exists()
        client.login(registry.host, "u", "p")
        assert ask(client, registry)[0] == 200
