"""What whole configurations must obey."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.config.check import check
from corral.config.listening import clash, is_loopback, listen_text, parse_listen, with_dialects
from corral.config.settings import Listen, ModelSettings, Settings


def model(name: str, **keys: Any) -> ModelSettings:
    return ModelSettings(name, Path("/m.gguf"), **keys)


def found(*models: ModelSettings, **keys: Any) -> list[tuple[str, str]]:
    settings = Settings({each.name: each for each in models}, **keys)
    return [(problem.level, problem.message) for problem in check(settings)]


def test_a_usual_configuration_has_no_problem() -> None:
    """Two models on ports of their own, one at a time, obey every rule."""
    assert not found(
        model("a", port=8001, aliases=("x",)), model("b", port=8002, group="g"), max_active=1, default_model="x"
    )


def test_names_and_aliases_are_one_namespace() -> None:
    """A name that two models answer to, or one model twice, is an error; one that differs in case only, a warning."""
    assert found(model("a", aliases=("b",)), model("b")) == [("error", "the name 'b' is given twice")]
    assert found(model("a", aliases=("a",))) == [("error", "the name 'a' is given twice")]
    assert found(model("Coder"), model("x", aliases=("coder",))) == [
        ("warning", "'coder' and 'Coder' differ only in case")
    ]


def test_ports_are_each_for_one() -> None:
    """A model's port is neither another model's nor one that Corral listens on."""
    assert found(model("a", port=8001), model("b", port=8001)) == [
        ("error", "port 8001 of 'b' is already that of model 'a'")
    ]
    assert found(model("a", port=8642)) == [("error", "port 8642 of 'a' is already that of `listen` (127.0.0.1:8642)")]


def test_the_default_model_is_one_of_the_models() -> None:
    """default_model is a name or an alias, and the nearest is named when it is neither."""
    settings = Settings({"coder": model("coder", aliases=("c",))}, default_model="cdoer")
    (problem,) = check(settings)
    assert str(problem) == "default_model 'cdoer' is none of the models: did you mean `coder`?"
    assert not check(settings, names=["cdoer"])
    assert not found(model("coder", aliases=("c",)), default_model="c")


@pytest.mark.parametrize(("flag", "text"), [("preload", "preloaded"), ("pin", "pinned")])
def test_what_is_resident_together_may_be(flag: str, text: str) -> None:
    """Two models of one group, or one beside an exclusive one, cannot both be preloaded or pinned."""
    on = {flag: True}
    errors = [f for f in found(model("a", group="g", **on), model("b", group="g", **on)) if f[0] == "error"]
    assert errors == [("error", f"'a' and 'b' are both {text}, but both are in group 'g'")]
    errors = [f for f in found(model("a", exclusive=True, **on), model("b", **on)) if f[0] == "error"]
    assert errors == [("error", f"'a' and 'b' are both {text}, but 'a' is exclusive")]
    assert not found(model("a", group="g", **on), model("b", group="h", **on))


def test_no_more_is_preloaded_than_may_be_resident() -> None:
    """Preloading more models than max_active is an error."""
    assert found(model("a", preload=True), model("b", preload=True), max_active=1) == [
        ("error", "2 models are preloaded, but max_active is 1")
    ]
    assert not found(model("a", preload=True), model("b", preload=True), max_active=2)


def test_pinned_models_that_starve_others_are_warned_about() -> None:
    """A pinned model that keeps others out for good is said, whether by max_active, group or exclusive."""
    assert found(model("a", pin=True), model("b"), max_active=1) == [
        ("warning", "once the 1 pinned models are started, no other can be: max_active is 1")
    ]
    assert found(model("a", pin=True, exclusive=True), model("b")) == [
        ("warning", "once 'a' is started it stays, and 'b' can never run")
    ]
    assert found(model("a", pin=True, group="g"), model("b", group="g"), model("c")) == [
        ("warning", "once 'a' is started it stays, and 'b' can never run")
    ]
    assert not found(model("a", pin=True), max_active=1)


def test_a_group_of_an_exclusive_model_adds_nothing() -> None:
    """`exclusive` with `group` is a warning: the first says all that the second could."""
    assert found(model("a", exclusive=True, group="g")) == [
        ("warning", "'a' is exclusive, so its group 'g' adds nothing")
    ]


def test_a_budget_without_a_unit_is_doubted() -> None:
    """A budget that holds hardly any model is a warning: `16` means 16 bytes."""
    assert found(model("a"), memory={"cpu": 16}) == [("warning", "a budget of 16 B on cpu holds hardly any model")]
    assert not found(model("a"), memory={"cpu": 16 << 30})


def test_addresses_beyond_loopback_need_insecure() -> None:
    """An address that others reach is an error unless `insecure` is said; unix sockets and loopback never are."""
    settings = Settings({}, listen=(Listen("0.0.0.0", 1), Listen("box.lan", 2), Listen("::", 3)))
    problems = check(settings)
    assert [p.key for p in problems] == [("listen",)] * 3
    assert all("--insecure opens it to everybody" in p.hint for p in problems)
    assert not check(settings, insecure=True)
    assert not found(
        listen=(Listen("localhost", 1), Listen("127.8.9.1", 2), Listen("::1", 3), Listen("", 0, Path("/s")))
    )


def test_two_listeners_differ() -> None:
    """One address twice, or one within every address, cannot be listened on."""
    assert found(listen=(Listen(port=1), Listen(port=1))) == [
        ("error", "127.0.0.1:1 and 127.0.0.1:1 cannot both be listened on")
    ]
    assert clash(Listen("0.0.0.0", 1), Listen(port=1))
    assert not clash(Listen("::1", 1), Listen(port=1))
    assert not clash(Listen(port=0), Listen(port=0))


def test_a_sockets_path_is_short_enough() -> None:
    """A unix socket's path that no system can bind is an error before it is tried."""
    assert found(listen=(Listen("", 0, Path("/" + "x" * 103)),)) == [
        ("error", "the socket's path is longer than 103 bytes")
    ]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("127.0.0.1", "127.0.0.1", 8642),
        ("box.lan:80", "box.lan", 80),
        ("[::1]", "::1", 8642),
        ("::1", "::1", 8642),
        ("[::]:0", "::", 0),
        ("80", "127.0.0.1", 80),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    """host:port, [host]:port, a host or a port make an address, and printing it reads back."""
    listen = parse_listen(text)
    assert (listen.host, listen.port) == (host, port)
    assert parse_listen(str(listen)) == listen


@pytest.mark.parametrize(
    "text", ["", ":80", "a:b", "a:-1", "a:99999", "[::1", "[::1]80", "[x]:1", "1.2.3", "a b:1", "unix:"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Anything else is refused with an example of what would do."""
    with pytest.raises(ValueError, match=r"is no|names no host|has no port"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "shown", "dialect"),
    [
        ("127.0.0.1:11434,dialect=ollama", "127.0.0.1:11434", "ollama"),
        ("unix:/run/d.sock,dialect=docker", "unix:/run/d.sock", "docker"),
        ("8080,dialect= llamacpp ", "127.0.0.1:8080", "llamacpp"),
        ("8080,dialect=openai", "127.0.0.1:8080", None),
        ("8080", "127.0.0.1:8080", None),
    ],
)
def test_a_dialect_may_follow_an_address(text: str, shown: str, dialect: str | None) -> None:
    """As `--listen` takes it; where a list was cut at its commas, too."""
    read = listen_text(text)
    assert (str(read), read.dialect) == (shown, dialect)
    cut = text.split(",")
    assert with_dialects(["1", *cut, {"address": 2}, "3"]) == ["1", text.strip(), {"address": 2}, "3"]


@pytest.mark.parametrize("text", ["8080,dialect=soap", "8080,dialect=", ",dialect=ollama", "8080,dialect"])
def test_a_dialect_that_is_none_is_refused(text: str) -> None:
    """With those there are."""
    with pytest.raises(ValueError, match=r"none of openai, anthropic|is no address|has no port|is no IP"):
        listen_text(text)
    assert with_dialects(["dialect=ollama"]) == ["dialect=ollama"]


def test_loopback_is_what_stays_on_this_machine() -> None:
    """All of 127.0.0.0/8, ::1, localhost and sockets; no name of a host is looked up."""
    assert is_loopback(Listen("127.1.2.3", 1))
    assert not is_loopback(Listen("localhost.example", 1))
