"""The one HTTP client, against servers that behave and servers that do not."""

from __future__ import annotations

import io
import selectors
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import CorralError, EgressRefused, ManifestError, Unavailable
from corral.registry.egress import Egress, EgressPolicy
from support.raw_http import Asked, RawServer, answer, at, json_answer, serving

POLICY = EgressPolicy(proxy="", stall_s=0.3, connect_s=5)


@pytest.fixture
def egress() -> Iterator[Egress]:
    with Egress(POLICY) as made:
        yield made


def _get(egress: Egress, server: RawServer, path: str = "/", **more: str) -> bytes:
    with egress.request("GET", f"{server.url}{path}", headers=more) as response:
        return response.read()


def test_kept_connection(egress: Egress) -> None:
    """A connection whose answer was read to its end serves the next request; one that was not is closed."""
    with serving(lambda asked: answer(body=b"x" * 100_000)) as server:
        assert len(_get(egress, server)) == 100_000
        with egress.request("GET", server.url) as response:
            assert response.readinto(memoryview(bytearray(10))) == 10
        _get(egress, server)
    assert [each.connection for each in server.asked] == [1, 1, 2]


def test_idle_connection_that_was_closed(egress: Egress) -> None:
    """A kept connection that the server closes meanwhile costs nothing but a new one."""
    with serving(lambda asked: answer(body=b"x") if asked.path != "/drop" or asked.connection > 1 else None) as server:
        assert _get(egress, server) == b"x"
        assert _get(egress, server, "/drop") == b"x"
    assert [each.connection for each in server.asked] == [1, 1, 2]


def test_idle_connection_closed_under_a_file(egress: Egress) -> None:
    """A file that was sent over a dead connection is sent again from where it stood."""
    with serving(lambda asked: answer(201) if asked.method == "GET" or asked.connection > 1 else None) as server:
        _get(egress, server)
        file = io.BytesIO(b"0123456789")
        file.seek(4)
        with egress.request("PUT", server.url, body=file) as response:
            assert response.status == 201
    assert server.asked[-1].body == b"456789"


def test_bodies(egress: Egress) -> None:
    """Bodies with a length, in chunks, and up to the connection's end all arrive whole."""
    chunked = b"5\r\nabcde\r\n3;ext=1\r\nfgh\r\n0\r\n\r\n"
    bodies = {
        "GET /length": answer(body=b"abcdefgh"),
        "GET /chunks": answer(body=chunked, length=False, transfer_encoding="chunked"),
        "GET /close": answer(body=b"abcdefgh", length=False, connection="close"),
    }
    with serving(at(bodies)) as server:
        for path in ("/length", "/chunks", "/chunks", "/close"):
            assert _get(egress, server, path) == b"abcdefgh"
        with egress.request("GET", f"{server.url}/chunks") as response:
            view, got = memoryview(bytearray(2)), b""
            while count := response.readinto(view):
                got += view[:count]
        assert got == b"abcdefgh"


def test_empty_answers(egress: Egress) -> None:
    """HEAD, 204 and 304 have no body, whatever their length says; interim answers are passed over."""
    bodies = {
        "HEAD /": answer(200, length=False, content_length="50"),
        "GET /204": answer(204, length=False),
        "GET /103": b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + answer(body=b"late"),
    }
    with serving(at(bodies)) as server:
        with egress.request("HEAD", server.url) as response:
            assert (response.length, response.read()) == (50, b"")
        assert _get(egress, server, "/204") == b""
        assert _get(egress, server, "/103") == b"late"
    assert {each.connection for each in server.asked} == {1}


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "closed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nabcdef", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc", "truncated"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc", "truncated"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc", "protocol"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", "encoding"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "protocol"),
        (b"HTTP/1.1 103 Early\r\n\r\n" * 20, "protocol"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else value,
)
def test_damaged_answers(egress: Egress, raw: bytes, reason: str) -> None:
    """An answer that breaks off, or is no good HTTP, is Unavailable with the reason, never a short success."""

    def script(asked: Asked) -> bytes | None:
        return raw.replace(b"200 OK\r\n", b"200 OK\r\nconnection: close\r\n") or None

    with serving(script) as server, pytest.raises(Unavailable) as caught:
        _get(egress, server)
    assert caught.value.details["reason"] == reason
    assert caught.value.hint


def test_stalls(egress: Egress) -> None:
    """A server that sends no byte for `stall_s` is given up, before its answer and in the middle of it."""
    with serving(lambda asked: answer()) as server:

        def script(asked: Asked) -> bytes:
            if asked.path == "/middle":
                return answer(length=False, content_length="100", body=b"abc")
            server.stall.wait(20)
            return answer()

        server.script = script
        for path in ("/before", "/middle"):
            with pytest.raises(Unavailable, match="sent nothing") as caught:
                _get(egress, server, path)
            assert caught.value.details["reason"] == "stall"


def test_abort(egress: Egress) -> None:
    """Another thread's abort ends a blocked read at once."""
    with serving(lambda asked: answer(length=False, content_length="100", body=b"abc")) as server, Egress() as patient:
        response = patient.request("GET", server.url)
        view = memoryview(bytearray(100))
        assert response.readinto(view) == 3
        threading.Timer(0.05, response.abort).start()
        with pytest.raises(Unavailable):
            response.readinto(view)


def test_bounded_reading(egress: Egress) -> None:
    """`read` refuses more than its limit, whether the length says so or not."""
    chunked = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n0\r\n\r\n"
    bodies = {
        "GET /length": answer(body=b"x" * 1000),
        "GET /chunks": answer(body=chunked, length=False, transfer_encoding="chunked"),
    }
    with serving(at(bodies)) as server:
        for path in ("/length", "/chunks"):
            with (
                egress.request("GET", f"{server.url}{path}") as response,
                pytest.raises(ManifestError, match="too long"),
            ):
                response.read(999)


def test_redirects(egress: Egress) -> None:
    """Redirects of a GET are followed, relative ones too; those of a POST are the caller's to judge."""
    hops = {
        "GET /a": answer(307, location="b?x=1"),
        "GET /b": answer(302, location="/c"),
        "GET /c": answer(body=b"here"),
        "GET /round": answer(301, location="/round"),
        "POST /a": answer(307, location="/c"),
    }
    with serving(at(hops)) as server:
        with egress.request("GET", f"{server.url}/a") as response:
            assert response.read() == b"here"
            assert response.url == f"{server.url}/c"
        with egress.request("POST", f"{server.url}/a", body=b"x") as response:
            assert response.status == 307
        with egress.request("GET", f"{server.url}/a", redirects=0) as response:
            assert response.status == 307
        with pytest.raises(Unavailable, match="redirects"):
            _get(egress, server, "/round")


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "http://127.0.0.1:1/x",
        "http://localhost:1/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "http://example.com/x",
        "//0.0.0.0/x",
        "https://user:pw@example.com/",
    ],
)
def test_redirects_to_where_nobody_may(egress: Egress, location: str) -> None:
    """A redirect to a private address, another scheme or plain http is refused before anything is connected to."""
    with serving(lambda asked: answer(302, location=location)) as server, pytest.raises(EgressRefused) as caught:
        _get(egress, server)
    assert caught.value.hint


def test_redirect_to_another_port_of_this_machine(egress: Egress) -> None:
    """Naming localhost:A allows no redirect to localhost:B."""
    with (
        serving(lambda asked: answer(body=b"secret")) as inner,
        serving(lambda asked: answer(302, location=f"{inner.url}/x")) as server,
        pytest.raises(EgressRefused),
    ):
        _get(egress, server)
    assert inner.asked == []


def test_names_that_lead_home(egress: Egress) -> None:
    """A name that resolves to loopback is refused unless it is what the user named."""
    with serving(lambda asked: answer()) as server:
        with pytest.raises(EgressRefused, match="public internet"):
            egress.request("GET", f"https://localhost:{server.port}/", auth_host="ghcr.io")
        with egress.request("GET", f"http://localhost:{server.port}/") as response:
            assert response.status == 200


def test_credentials_stay(egress: Egress) -> None:
    """Authorization and cookies do not go to another origin; other headers do."""
    with serving(lambda asked: answer(body=b"x")) as other:
        policy = EgressPolicy(private_addresses=(other.authority,), insecure=(other.authority,), proxy="")
        with Egress(policy) as free, serving(lambda asked: answer(307, location=f"{other.url}/x")) as server:
            headers = {"Authorization": "Bearer secret", "cookie": "a=b", "range": "bytes=1-"}
            with free.request("GET", server.url, headers=headers) as response:
                assert response.status == 200
    assert server.asked[0].headers["authorization"] == "Bearer secret"
    assert other.asked[0].headers.get("authorization") is None
    assert other.asked[0].headers.get("cookie") is None
    assert other.asked[0].headers["range"] == "bytes=1-"


def test_credentials_follow_at_home(egress: Egress) -> None:
    """A redirect to the same origin keeps the credentials."""
    with serving(at({"GET /a": answer(302, location="/b"), "GET /b": answer()})) as server:
        egress.request("GET", f"{server.url}/a", headers={"authorization": "x"}).close()
    assert server.asked[1].headers["authorization"] == "x"


@pytest.mark.parametrize(
    "header", [{"x": "a\r\nb: c"}, {"x\r\n": "a"}, {"x y": "a"}, {"x": "a\0"}, {"x": "\N{BULLET}"}]
)
def test_header_injection(egress: Egress, header: dict[str, str]) -> None:
    """A header that would end its line is refused."""
    with serving(lambda asked: answer()) as server:
        with pytest.raises(EgressRefused, match="header"):
            egress.request("GET", server.url, headers=header)
        assert server.asked == []


def test_paths_are_quoted(egress: Egress) -> None:
    """What a URL may not have is quoted, what it has quoted stays."""
    with serving(lambda asked: answer()) as server:
        _get(egress, server, "/a%2Fb\N{LATIN SMALL LETTER E WITH ACUTE}?x=%20&y=|")
    assert server.asked[0].path == "/a%2Fb%C3%A9?x=%20&y=%7C"


def test_files_are_sent(egress: Egress) -> None:
    """A file is sent from where it stands, as much of it as was asked, and told piece by piece."""
    told: list[int] = []
    with serving(lambda asked: answer(201)) as server:
        file = io.BytesIO(bytes(3 << 20))
        file.seek(100)
        with egress.request("PUT", server.url, body=file, length=2 << 20, sent=told.append) as response:
            assert response.status == 201
        with egress.request("POST", server.url) as response:
            assert response.status == 201
    assert len(server.asked[0].body) == 2 << 20
    assert sum(told) == 2 << 20
    assert server.asked[1].headers["content-length"] == "0"


def test_refusal_while_sending(egress: Egress) -> None:
    """A server that refuses a large body before it has read it is heard."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(answer(413, connection="close"))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 20):
                    pass

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        with egress.request("PUT", url, body=io.BytesIO(bytes(64 << 20))) as response:
            assert response.status == 413
        thread.join()


def test_nobody_there(egress: Egress) -> None:
    """A port that nobody listens on, and a name that does not exist, are Unavailable with a hint."""
    with serving(lambda asked: answer()) as server:
        pass
    for url in (server.url, "https://does-not-exist.invalid/"):
        with pytest.raises(Unavailable) as caught:
            egress.request("GET", url)
        assert caught.value.hint


def test_allow_list_is_asked_about_the_registry() -> None:
    """What is not on the allow-list is not connected to."""
    with serving(lambda asked: answer()) as server, Egress(EgressPolicy(allow=("ghcr.io",), proxy="")) as strict:
        with pytest.raises(EgressRefused, match="allowed"):
            strict.request("GET", server.url)
        with pytest.raises(EgressRefused, match="allowed"):
            strict.base_url(server.authority)
        assert server.asked == []


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


def test_certificates(certificate: tuple[Path, ssl.SSLContext]) -> None:
    """A certificate of an unknown authority is refused; with the authority's file, or as insecure, it is not."""
    cert, context = certificate
    with serving(lambda asked: answer(body=b"x" * 100_000), tls=context) as server:
        url = f"https://{server.authority}/"
        with Egress(POLICY) as plain, pytest.raises(Unavailable, match="certificate") as caught:
            plain.request("GET", url)
        assert caught.value.details["reason"] == "certificate"
        for policy in (
            EgressPolicy(ca_file=cert, proxy=""),
            EgressPolicy(ca_files={server.authority: cert}, proxy=""),
            EgressPolicy(insecure=(server.authority,), proxy=""),
        ):
            with Egress(policy) as made:
                for _ in range(2):
                    with made.request("GET", url) as response:
                        assert len(response.read()) == 100_000
                assert made.base_url(server.authority) == url.rstrip("/")


def test_base_url(egress: Egress) -> None:
    """https it is, but for this machine and for insecure hosts that turn out to speak plain http."""
    assert egress.base_url("ghcr.io") == "https://ghcr.io"
    assert egress.base_url("docker.io") == "https://registry-1.docker.io"
    with serving(at({"GET /v2/": json_answer({})})) as server:
        assert egress.base_url(server.authority) == server.url
        assert egress.base_url(server.authority) == server.url
        assert len(server.asked) == 1


# Proxies.


def test_plain_proxy() -> None:
    """Plain http goes through a proxy with the whole URL and the proxy's own credentials, which go nowhere else."""
    with serving(lambda asked: answer(body=b"via")) as proxy:
        policy = EgressPolicy(proxy=f"http://u:p@{proxy.authority}", insecure=("reg.example",))
        with Egress(policy, env={}) as made, made.request("GET", "http://reg.example/v2/") as response:
            assert response.read() == b"via"
    assert proxy.asked[0].path == "http://reg.example/v2/"
    assert proxy.asked[0].headers["host"] == "reg.example"
    assert proxy.asked[0].headers["proxy-authorization"] == "Basic dTpw"


def test_tunnel_refused() -> None:
    """https asks the proxy for a tunnel; a proxy that wants credentials is said to."""
    with serving(lambda asked: answer(407, connection="close")) as proxy:
        policy = EgressPolicy(proxy=proxy.url)
        with Egress(policy, env={}) as made, pytest.raises(Unavailable, match="407") as caught:
            made.request("GET", "https://ghcr.io/v2/")
    assert proxy.paths() == ["CONNECT ghcr.io:443"]
    assert "credentials" in caught.value.hint


def test_private_literals_through_a_proxy() -> None:
    """A private address is refused through a proxy too."""
    with serving(lambda asked: answer()) as proxy, Egress(EgressPolicy(proxy=proxy.url), env={}) as made:
        with pytest.raises(CorralError, match="public internet"):
            made.request("GET", "https://169.254.169.254/", auth_host="ghcr.io")
        assert proxy.asked == []


def test_tunnel(certificate: tuple[Path, ssl.SSLContext]) -> None:
    """Through a tunnel TLS is with the registry itself; the proxy is told its name, not its address."""
    heads: list[bytes] = []

    def relay(listener: socket.socket, port: int) -> None:
        near, _ = listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            heads.append(near.recv(4096))
            near.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            selector = selectors.DefaultSelector()
            with selector:
                selector.register(near, selectors.EVENT_READ, far)
                selector.register(far, selectors.EVENT_READ, near)
                while True:
                    for key, _ in selector.select(10):
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if not data:
                            return
                        key.data.sendall(data)

    with (
        serving(lambda asked: answer(body=b"inside"), tls=certificate[1]) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        thread = threading.Thread(target=relay, args=(listener, server.port))
        thread.start()
        proxy = f"http://u:p@127.0.0.1:{listener.getsockname()[1]}"
        policy, secret = EgressPolicy(proxy=proxy, insecure=("reg.example",)), {"authorization": "Bearer x"}
        with Egress(policy, env={}) as made, made.request("GET", "https://reg.example/v2/", headers=secret) as response:
            assert response.read() == b"inside"
        thread.join(10)
    assert heads[0].startswith(b"CONNECT reg.example:443 HTTP/1.1\r\n")
    assert b"proxy-authorization: Basic dTpw\r\n" in heads[0]
    assert "proxy-authorization" not in server.asked[0].headers
    assert server.asked[0].headers["authorization"] == "Bearer x"
