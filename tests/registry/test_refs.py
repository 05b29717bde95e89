"""References as people type them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import BadReference, ConfigError
from corral.refs import Ref
from corral.refs_parse import full_name, is_loopback, parse_ref, split_authority
from corral.short_names import load_short_names

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ai/smollm2", "docker.io/ai/smollm2:latest"),
        ("smollm2:360M", "docker.io/ai/smollm2:360M"),
        ("docker.io/ai/smollm2", "docker.io/ai/smollm2:latest"),
        ("index.docker.io/ai/smollm2:x", "docker.io/ai/smollm2:x"),
        ("docker://ai/smollm2", "docker.io/ai/smollm2:latest"),
        ("docker.io/solo", "docker.io/library/solo:latest"),
        ("GHCR.io/Org/Model:Q4_K_M", "ghcr.io/org/model:Q4_K_M"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("oci://10.0.0.1:5000/a:b", "10.0.0.1:5000/a:b"),
        (f"ai/smollm2@{DIGEST}", f"docker.io/ai/smollm2@{DIGEST}"),
        (f"ai/smollm2:x@{DIGEST}", f"docker.io/ai/smollm2:x@{DIGEST}"),
        ("ollama://llama3.2", "registry.ollama.ai/library/llama3.2:latest"),
        ("ollama://me/Model:7b-q4_K_M", "registry.ollama.ai/me/Model:7b-q4_K_M"),
        ("registry.ollama.ai/library/llama3.2", "registry.ollama.ai/library/llama3.2:latest"),
        ("ollama.com/library/llama3.2:1b", "registry.ollama.ai/library/llama3.2:1b"),
        ("hf.co/Org/Repo-GGUF", "hf.co/Org/Repo-GGUF"),
        ("huggingface.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF:Q4_K_M"),
        ("hf://Org/Repo/sub/file.gguf@v1.0", "hf.co/Org/Repo/sub/file.gguf@v1.0"),
        ("hf.co/o/r:Q8_0@refs", "hf.co/o/r:Q8_0@refs"),
        ("https://huggingface.co/o/r", "hf.co/o/r"),
        ("https://huggingface.co/o/r/resolve/main/a/b.gguf?download=true", "hf.co/o/r/a/b.gguf"),
        ("https://hf.co/o/r/blob/abc/b.gguf", "hf.co/o/r/b.gguf@abc"),
        ("https://Example.COM/m/A.gguf?x=1", "https://example.com/m/A.gguf?x=1"),
        ("./models/a.gguf", "./models/a.gguf"),
        ("~/m", "~/m"),
        ("a.gguf", "a.gguf"),
        ("file:///m/é a.gguf", "/m/é a.gguf"),
    ],
)
def test_one_full_spelling(text: str, name: str) -> None:
    """Whatever way a model is named, its full name is one, and reading that gives the same reference again."""
    ref = parse_ref(text)
    assert str(ref) == name
    assert parse_ref(str(ref)) == ref


def test_parts() -> None:
    """A reference's parts are apart: kind, host, repository, tag, digest, file, revision."""
    assert parse_ref("hf.co/o/r/f.gguf@abc") == Ref("hf", "hf.co", "o/r", file="f.gguf", revision="abc")
    assert parse_ref(f"localhost:5000/a/b:c@{DIGEST}") == Ref("oci", "localhost:5000", "a/b", "c", DIGEST)
    assert parse_ref("https://example.com/a.gguf").kind == "url"
    assert parse_ref("/a/b").kind == "file"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("a" * 5000, "characters"),
        ("g\N{CYRILLIC SMALL LETTER BYELORUSSIAN-UKRAINIAN I}thub/x", "cyrillic small letter"),
        ("ai/smol\N{ZERO WIDTH SPACE}lm2", "U+200B"),
        ("ai/\N{RIGHT-TO-LEFT OVERRIDE}x", "U+202E"),
        ("\N{FULLWIDTH LATIN SMALL LETTER A}i/x", "fullwidth"),
        ("hf.co/\N{GREEK SMALL LETTER OMICRON}rg/r", "greek small letter"),
        ("https://ex\N{CYRILLIC SMALL LETTER A}mple.com/a.gguf", "cyrillic"),
        ("ai/a b", "' '"),
        ("ai/x\ny", "U+000A"),
        ("ftp://x/y", "scheme"),
        ("ai/../x", "repository"),
        ("ai//x", "repository"),
        ("ai/-x", "repository"),
        ("ai/x:", "tag"),
        ("ai/x:a/../b:c", "repository"),
        ("ai/x@sha256:abc", "digest"),
        ("ai/x@sha256:" + "A" * 64, "digest"),
        ("ai/x@md5:" + "a" * 32, "digest"),
        ("hf.co/a", "repository"),
        ("hf.co/a/..", "part"),
        ("hf.co/a/b/../../c", "part"),
        ("hf.co/a/b@../x", "part"),
        ("hf.co/a/b/c.gguf:Q4", "quantization"),
        ("ollama://a/b/c", "Ollama"),
        ("ollama://..", "Ollama"),
        ("host:99999/x", "host name"),
        ("host:/x", "host name"),
        ("https://user:pass@host/x.gguf", "user"),
        ("file://otherhost/x", "another host"),
    ],
)
def test_refused(text: str, why: str) -> None:
    """What is no name, or only looks like one, is refused with the reason and a hint."""
    with pytest.raises(BadReference, match=re.escape(why)) as caught:
        parse_ref(text)
    assert caught.value.hint
    assert caught.value.message.isascii()


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """Any text is a reference or a BadReference; the names of registries' models are plain ASCII without `..` parts."""
    try:
        ref = parse_ref(text)
    except BadReference:
        return
    if ref.kind not in ("file", "url"):
        assert ref.name.isascii()
        assert ref.name.isprintable()
        assert not {"", ".", ".."} & set(ref.name.split("/"))
        if ref.kind != "ollama":
            assert parse_ref(str(ref)) == ref


def test_short_names() -> None:
    """A short name stands for its reference; a tag or digest given with it takes the place of the one it stands for."""
    names = {"coder": "hf.co/o/Coder:Q4_K_M", "coder:big": "ai/big-coder"}
    assert full_name("coder", names) == "hf.co/o/Coder:Q4_K_M"
    assert full_name("Coder:Q8_0", names) == "hf.co/o/Coder:Q8_0"
    assert full_name("coder:big", names) == "docker.io/ai/big-coder:latest"
    assert full_name(f"coder@{DIGEST}", names) == f"hf.co/o/Coder:Q4_K_M@{DIGEST}"
    assert full_name("org/coder", names) == "docker.io/org/coder:latest"


def test_shipped_short_names() -> None:
    """Each shipped short name stands for a good reference."""
    names = load_short_names()
    assert "qwen3-coder" in names
    for name, whole in names.items():
        assert parse_ref(name, names) == parse_ref(whole)


def test_own_short_names(tmp_path: Path) -> None:
    """The user's lines win over the shipped ones, and `-` takes a name away; missing files are none."""
    own = tmp_path / "short-names.txt"
    own.write_text("# mine\nQwen3  ghcr.io/me/qwen3:x  # better\ngemma -\n")
    names = load_short_names([tmp_path / "missing", own])
    assert names["qwen3"] == "ghcr.io/me/qwen3:x"
    assert "gemma" not in names


def test_damaged_short_names(tmp_path: Path) -> None:
    """A line that is no pair is an error with file and line."""
    own = tmp_path / "short-names.txt"
    own.write_text("a b\na b c\n")
    with pytest.raises(ConfigError, match=r"short-names\.txt:2"):
        load_short_names([own])


def test_authorities() -> None:
    """Hosts come apart from ports, and only this machine's own names are loopback."""
    assert split_authority("[::1]:80") == ("::1", 80)
    assert split_authority("Example.com") == ("example.com", None)
    assert [is_loopback(each) for each in ("localhost:5000", "a.localhost", "127.0.0.9", "[::1]:1")] == [True] * 4
    assert not is_loopback("localhost.example.com")
    assert not is_loopback("10.0.0.1")


def test_a_signature_is_no_part_of_a_name() -> None:
    """What a query says of who may fetch stays out of the name, which is shown and kept; what is fetched does not."""
    ref = parse_ref("https://h.example/m.gguf?file=a.gguf&X-Amz-Signature=SEC&X-Amz-Credential=SEC&token=SEC&key=b")
    assert ref.repository.count("SEC") == 3  # what is asked for is as it was given
    assert ref.name == str(ref) == "https://h.example/m.gguf?file=a.gguf&key=b"
    assert parse_ref(ref.name).name == ref.name
    assert parse_ref("https://h.example/m.gguf?sig=SEC#sha256=" + "0" * 64).name == "https://h.example/m.gguf"
    for odd in ("https://h.example/m?", "https://h.example/m?&", "https://h.example/m?a&&b=?&"):
        assert parse_ref(odd).name == odd, "where nothing signs it, it stays as it was written"


def test_no_error_quotes_a_password() -> None:
    """Whatever is wrong with a reference, what stands before its @ is not repeated."""
    for text in ("oci://me:SEC@H.example/a b", "s3://me:SEC@h.example/x", "https://me:SEC@h.example/x.gguf",
                 "https://me:SEC/x@h.example/x.gguf", "me:SEC@h.example/Repo!", "hf://me:SEC@x/y/z/é"):  # fmt: skip
        with pytest.raises(BadReference) as caught:
            parse_ref(text)
        assert "SEC" not in f"{caught.value.message} {caught.value.hint}"
