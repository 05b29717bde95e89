"""Keys and their secrets."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.access.engine_paths import scope_of
from corral.access.keys import Key, digest, id_of, token_of

KEY = Key("abcdefghjk", "k", digest(b"now"), frozenset({"infer"}))


@given(st.integers(0, 2**256 - 1))
def test_a_secret_names_its_key(bits: int) -> None:
    """All 256 bits are in it: two secrets are the same only when their bits are."""
    token = token_of("abcdefghjk", bits)
    assert id_of(token.encode()) == "abcdefghjk"
    assert len(token) == 57 and token.isascii()
    assert token_of("abcdefghjk", bits ^ 1) != token


@pytest.mark.parametrize("token", [b"", b"none", b"sk-proj-123", b"ck_", b"ck_abc_def", b"ck_ABCDEFGHJK_" + b"a" * 43])
def test_other_peoples_keys_are_none_of_ours(token: bytes) -> None:
    """So that a client which has to send something may."""
    assert id_of(token) is None


def test_a_rotated_key_opens_with_both_for_a_while() -> None:
    """The secret before counts until its time is over, and no longer."""
    key = replace(KEY, before=digest(b"earlier"), before_until_wall_s=100.0)
    assert key.opens_with(b"now", 99.0) and key.opens_with(b"earlier", 99.0)
    assert key.opens_with(b"now", 100.0) and not key.opens_with(b"earlier", 100.0)
    assert not key.opens_with(b"other", 99.0)
    assert not KEY.opens_with(b"", 0.0)


def test_why_a_key_counts_no_more() -> None:
    """Revoked, or expired at that very second."""
    assert KEY.problem(10.0) is None
    assert replace(KEY, revoked_wall_s=5.0).problem(10.0) == "was revoked"
    assert replace(KEY, expires_wall_s=10.0).problem(10.0) == "has expired"
    assert replace(KEY, expires_wall_s=10.0).problem(9.9) is None


def test_scopes_and_models() -> None:
    """An administrator's key is good for everything; globs are over all names of a model."""
    assert KEY.may("infer") and not KEY.may("pull") and not KEY.may("admin")
    assert replace(KEY, scopes=frozenset({"admin"})).may("metrics")
    narrow = replace(KEY, models=("ai/*", "demo"))
    assert narrow.may_use(["demo"]) and narrow.may_use(["x", "ai/smollm2"]) and not narrow.may_use(["demo2"])
    assert KEY.may_use(["anything"])


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/chat/completions", "infer"), ("POST", "/completion", "infer"), ("POST", "/infill", "infer"),
        ("POST", "/v1/messages", "infer"), ("GET", "/props", "infer"), ("GET", "/v1/models/x", "infer"),
        ("GET", "/metrics", "metrics"), ("GET", "/slots", "admin"), ("POST", "/slots/0", "admin"),
        ("POST", "/props", "admin"), ("POST", "/lora-adapters", "admin"), ("POST", "/sleep", "admin"),
        ("POST", "/wake_up", "admin"), ("POST", "/collective_rpc", "admin"), ("POST", "/v1/load_lora_adapter", "admin"),
        ("POST", "//slots/0", "admin"), ("POST", "/v1/chat/completions/", "admin"), ("PUT", "/completion", "admin"),
        ("DELETE", "/v1/models/x", "admin"), ("POST", "/models/unload", "admin"), ("GET", "/", "admin"),
    ],
)  # fmt: skip
def test_which_paths_of_an_engine_need_what(method: str, path: str, scope: str) -> None:
    """What is not known to be harmless is an administrator's."""
    assert scope_of(method, path) == scope


def test_secrets_come_from_the_systems_own_chance() -> None:
    """No two of many are alike, and each letter occurs."""
    tokens = {token_of("abcdefghjk", secrets.randbits(256)) for _ in range(500)}
    assert len(tokens) == 500 and len({letter for token in tokens for letter in token[14:]}) == 62
