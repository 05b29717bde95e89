"""Where Corral may connect to."""

from __future__ import annotations

import ipaddress

import pytest

from corral.errors import EgressRefused
from corral.registry.policy import EgressPolicy, Gate, is_public, listed, parse_url
from corral.registry.proxies import Proxies


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1",
        "::1", "::", "fe80::1", "fc00::1", "fd12::1", "ff02::1", "fec0::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)  # fmt: skip
def test_private_addresses(address: str) -> None:
    """No private, link-local, loopback or special address is public, whatever IPv6 form it is written in."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses(address: str) -> None:
    """Addresses on the internet are public."""
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "file: addresses"),
        ("ftp://example.com/", "ftp: addresses"),
        ("gopher:x", "gopher: addresses"),
        ("https://user@example.com/", "user"),
        ("https://exa mple.com/", "space"),
        ("https://example.com/\r\nX: y", "control character"),
        ("https://example.com:0/", "host name"),
        ("https://[::1", "host name"),
        ("https://[fe80::1%25eth0]/", "host name"),
        ("https:///x", "host name"),
        ("https://" + "a" * 9000, "too long"),
    ],
)
def test_refused_urls(url: str, why: str) -> None:
    """Only clean http and https URLs are ever fetched."""
    with pytest.raises(EgressRefused, match=why):
        parse_url(url)


def test_relative_urls() -> None:
    """Redirects may be relative, and may not leave http and https by it."""
    base = parse_url("https://Example.com/a/b?x=1")
    assert str(parse_url("/c?d=e", base)) == "https://example.com/c?d=e"
    assert str(parse_url("c", base)) == "https://example.com/a/c"
    assert str(parse_url("//other.com:8443/c", base)) == "https://other.com:8443/c"
    with pytest.raises(EgressRefused, match="file"):
        parse_url("file:///etc/passwd", base)


def test_allow_list() -> None:
    """With an allow-list no other registry is asked; the mirrors of those on it are."""
    gate = Gate(EgressPolicy(allow=("docker.io", "*.corp.example"), mirrors={"docker.io": ("mirror.example:5000",)}))
    for host in ("docker.io", "registry-1.docker.io", "reg.corp.example:443", "mirror.example:5000"):
        gate.check_registry(host)
    for host in ("ghcr.io", "docker.io.example.com", "corp.example", "mirror.example:5001"):
        with pytest.raises(EgressRefused, match="allowed registries") as caught:
            gate.check_registry(host)
        assert "allow_registries" in caught.value.hint


def test_named_loopback() -> None:
    """localhost may be asked when the user named it, port and all; a server that sends us there is not believed."""
    gate = Gate(EgressPolicy())
    here = ipaddress.ip_address("127.0.0.1")
    gate.check_target(parse_url("http://localhost:5000/v2/"), "localhost:5000", None)
    gate.check_address(here, parse_url("http://localhost:5000/v2/"), "localhost:5000")
    for named in ("localhost:5001", "localhost", "ghcr.io", "127.0.0.1:5000"):
        with pytest.raises(EgressRefused):
            gate.check_address(here, parse_url("https://localhost:5000/v2/"), named)
    with pytest.raises(EgressRefused, match="public internet"):
        gate.check_address(ipaddress.ip_address("10.0.0.1"), parse_url("http://localhost:5000/"), "localhost:5000")


def test_private_hosts() -> None:
    """A host listed as private may be at a private address, on the port it is listed with."""
    gate = Gate(EgressPolicy(private_addresses=("reg.lan:5000", "nas.lan")))
    address = ipaddress.ip_address("192.168.1.2")
    gate.check_address(address, parse_url("https://reg.lan:5000/"), "reg.lan:5000")
    gate.check_address(address, parse_url("https://nas.lan:1234/"), "nas.lan")
    with pytest.raises(EgressRefused, match=r"reg\.lan at 192\.168\.1\.2") as caught:
        gate.check_address(address, parse_url("https://reg.lan/"), "reg.lan")
    assert "private: true" in caught.value.hint


def test_downgrade() -> None:
    """A redirect from https to plain http is refused, and so is plain http at all where it is not allowed."""
    gate = Gate(EgressPolicy(insecure=("old.example",)))
    with pytest.raises(EgressRefused, match="redirects from https"):
        gate.check_target(parse_url("http://cdn.example/x"), "ghcr.io", parse_url("https://ghcr.io/x"))
    with pytest.raises(EgressRefused, match="plain http"):
        gate.check_target(parse_url("http://ghcr.io/x"), "ghcr.io", None)
    gate.check_target(parse_url("http://old.example/x"), "old.example", None)


def test_listed() -> None:
    """An entry means a host on any port, or on one; a damaged entry means nothing."""
    assert listed("a.example", 443, ["A.example"])
    assert listed("::1", 5000, ["[::1]:5000"])
    assert not listed("a.example", 443, ["a.example:444", "*.a.example", "", "a b"])


def test_proxies() -> None:
    """The proxy comes from the environment, but for hosts of NO_PROXY and for this machine."""
    env = {"HTTPS_PROXY": "http://user:p%40ss@proxy.example:3128", "no_proxy": "example.org,10.0.0.0/8,.lan:8443"}
    proxies = Proxies(EgressPolicy(), env)
    found = proxies.pick(parse_url("https://ghcr.io/"))
    assert found is not None
    assert (found.host, found.port, found.authorization) == ("proxy.example", 3128, "Basic dXNlcjpwQHNz")
    assert proxies.pick(parse_url("http://ghcr.io/")) is None
    for url in ("https://www.example.org/", "https://10.1.2.3/", "https://reg.lan:8443/", "https://localhost:5000/"):
        assert proxies.pick(parse_url(url)) is None
    assert proxies.pick(parse_url("https://reg.lan/")) is not None
    assert Proxies(EgressPolicy(proxy=""), env).pick(parse_url("https://ghcr.io/")) is None


def test_unknown_proxy() -> None:
    """A proxy of a kind that is not supported is an error rather than passed over."""
    with pytest.raises(EgressRefused, match="proxy"):
        Proxies(EgressPolicy(proxy="socks5://localhost:1080"), {}).pick(parse_url("https://ghcr.io/"))
