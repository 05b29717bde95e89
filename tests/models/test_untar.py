"""Unpacking tar layers, sound and hostile."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.artifact import Packing
from corral.errors import CorralError, DiskFull, ManifestError
from corral.models import inflate, untar
from corral.models.inflate import Inflated
from support.artifacts import entry, header, packed, tar

END = b"\0" * 1024


class Usage(NamedTuple):
    """What `shutil.disk_usage` gives."""

    total: int
    used: int
    free: int


def take_out(data: bytes, into: Path, packing: Packing = "tar") -> list[untar.Member]:
    into.mkdir(exist_ok=True)
    return untar.unpack(Inflated(io.BytesIO(data), packing, len(data)), into)


def everything(root: Path) -> list[str]:
    return sorted(str(each.relative_to(root)) for each in root.rglob("*"))


@pytest.mark.parametrize("packing", ["tar", "tar+gzip", "tar+zstd"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_files_come_out(tmp_path: Path, packing: Packing, form: int) -> None:
    """Files and directories of every common kind of archive come out as they went in, readable by all."""
    long = "folder/" * 12 + "a-long-name-" * 4 + ".json" if form != tarfile.USTAR_FORMAT else "folder/x.json"
    files = {"./model.gguf": os.urandom(3_000_000), long: b"{}", "empty": b""}
    data = packed(tar(files, entry("more", tarfile.DIRTYPE), form=form), packing)
    members = take_out(data, tmp_path / "in", packing)
    assert [member.path for member in members] == ["model.gguf", long, "empty"]
    for name, content in files.items():
        assert (tmp_path / "in" / name).read_bytes() == content
        assert (tmp_path / "in" / name).stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("packing", ["tar+gzip", "tar+zstd"])
def test_several_members(tmp_path: Path, packing: Packing) -> None:
    """A stream of several gzip members or zstd frames is one archive, as the tools that make them in parallel want."""
    whole = tar({"a": os.urandom(2_000_000)})
    half = len(whole) // 2
    data = packed(whole[:half], packing) + packed(whole[half:], packing) + b"\0" * 512
    assert [member.size for member in take_out(data, tmp_path / "in", packing)] == [2_000_000]


HOSTILE = {
    "climbs": (tar({"../evil": b"x"}), "is refused"),
    "climbs inside": (tar({"a/../../evil": b"x"}), "is refused"),
    "absolute": (header(b"/evil", size=1) + b"x" + b"\0" * 511, "is refused"),
    "absolute directory": (tar({}, entry("/evil/", tarfile.DIRTYPE)), "is refused"),
    "climbing directory": (tar({}, entry("../evil/", tarfile.DIRTYPE)), "is refused"),
    "symbolic link": (tar({}, entry("a", tarfile.SYMTYPE, "/etc/passwd")), "is no plain file"),
    "link inside": (tar({}, entry("a", tarfile.SYMTYPE, "b")), "is no plain file"),
    "hard link": (tar({}, entry("a", tarfile.LNKTYPE, "../../outside")), "is no plain file"),
    "character device": (tar({}, entry("a", tarfile.CHRTYPE)), "is no plain file"),
    "block device": (tar({}, entry("a", tarfile.BLKTYPE)), "is no plain file"),
    "pipe": (tar({}, entry("a", tarfile.FIFOTYPE)), "is no plain file"),
    "sparse": (header(b"a", kind=b"S"), "is no plain file"),
    "unknown kind": (header(b"a", kind=b"Z"), "is no plain file"),
    "twice": (header(b"a", size=1) + b"x" + b"\0" * 511 + header(b"a") + END, "two of its files have the path 'a'"),
    "through a file": (tar({"a": b"x", "a/b": b"y"}), "goes through a file"),
    "size lies": (header(b"a", size=1 << 30) + b"x" * 512, "claims 1,073,741,824 bytes"),
    "size lies a little": (header(b"a", size=1000) + b"x" * 512, "claims 1,000 bytes"),
    "huge size": (header(b"a", size_field=b"\x80" + b"\x00" * 2 + b"\xff" * 9), "absurd"),
    "negative size": (header(b"a", size_field=b"\xff" * 12), "absurd"),
    "no number": (header(b"a", size_field=b"9z999999999\0"), "number in a header is none"),
    "huge extended header": (header(b"a", kind=b"x", size=1 << 33), "an extended header of"),
    "huge long name": (header(b"a", kind=b"L", size=1 << 20), "an extended header of"),
    "extended path climbs": (header(b"p", kind=b"x", size=16) + b"16 path=../evil\n".ljust(512, b"\0")
                             + header(b"a") + END, "is refused"),
    "extended size lies": (header(b"p", kind=b"x", size=19) + b"19 size=9999999999\n".ljust(512, b"\0")
                           + header(b"a") + END, "claims 9,999,999,999"),
    "extended record lies": (header(b"p", kind=b"x", size=12) + b"99 path=evil".ljust(512, b"\0"), "damaged"),
    "sparse by record": (header(b"p", kind=b"x", size=22) + b"22 GNU.sparse.major=1\n".ljust(512, b"\0")
                         + header(b"a"), "is no plain file"),
    "signed size": (header(b"a", size_field=b"-0000000007\0") + b"x" * 4096, "number in a header is none"),
    "not UTF-8": (header(b"\xff\xfe"), "no UTF-8"),
    "wrong checksum": (b"x" + header(b"a")[1:], "no tar archive"),
    "no archive": (b"no tar archive at all " * 100, "number in a header is none"),
    "cut header": (header(b"a")[:300], "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(tmp_path: Path, case: str) -> None:
    """Whatever an archive tries is refused with the reason, and nothing appears outside its directory."""
    data, why = HOSTILE[case]
    with pytest.raises(ManifestError, match=why):
        take_out(data, tmp_path / "in")
    assert all(each == "in" or each.startswith("in/") for each in everything(tmp_path))
    assert not any(each.is_symlink() for each in tmp_path.rglob("*"))


@pytest.mark.parametrize("packing", ["tar+gzip", "tar+zstd"])
def test_bomb(tmp_path: Path, packing: Packing) -> None:
    """A small layer that would unpack to gigabytes is refused before they are written."""
    size = 200 << 20
    body = header(b"zeros", size=size) + b"\0" * size
    data = packed(body, packing)
    with pytest.raises(ManifestError, match="claims 209,715,200 bytes, more than the archive can hold"):
        take_out(data, tmp_path / "in", packing)
    assert everything(tmp_path) == ["in"]


@pytest.mark.parametrize("packing", ["tar+gzip", "tar+zstd"])
def test_bomb_of_many(tmp_path: Path, packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is on all files together, not on each one."""
    monkeypatch.setattr(inflate, "FREE_BYTES", 1 << 20)
    data = packed(tar({f"{i}": b"\0" * 600_000 for i in range(8)}), packing)
    with pytest.raises(ManifestError, match="more than"):
        take_out(data, tmp_path / "in", packing)
    written = sum(each.stat().st_size for each in (tmp_path / "in").iterdir())
    assert written <= 100 * len(data) + (1 << 20)


def test_window_bomb(tmp_path: Path) -> None:
    """A zstd frame that asks for gigabytes of memory is refused."""
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(31 - 10) << 3]) + b"\x01\x00\x00"
    with pytest.raises(ManifestError, match="cannot be decompressed"):
        take_out(frame, tmp_path / "in", "tar+zstd")


def test_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive of countless entries ends at the limit."""
    monkeypatch.setattr(untar, "MAX_FILES", 50)
    with pytest.raises(ManifestError, match="more than 50 files"):
        take_out(tar({f"{i}": b"" for i in range(60)}), tmp_path / "in")


def test_full_disk_is_said_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that does not fit on the disk is refused before a byte of it is written."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(2000, 1000, 1000))
    with pytest.raises(DiskFull, match="unpacks to"):
        take_out(tar({"a": b"x" * 2000}), tmp_path / "in")
    assert everything(tmp_path) == ["in"]


@pytest.mark.parametrize("packing", ["tar+gzip", "tar+zstd"])
def test_cut_and_damaged_streams(tmp_path: Path, packing: Packing) -> None:
    """A compressed layer that is cut short or damaged in the middle is refused."""
    data = packed(tar({"a": os.urandom(100_000)}), packing)
    with pytest.raises(ManifestError, match="ends in the middle"):
        take_out(data[: len(data) // 2], tmp_path / "in", packing)
    broken = bytearray(data)
    broken[:64] = b"\xaa" * 64
    with pytest.raises(ManifestError):
        take_out(bytes(broken), tmp_path / "in2", packing)


_PIECES = st.lists(
    st.one_of(
        st.binary(max_size=600),
        st.builds(
            header,
            st.sampled_from([b"a", b"../a", b"/a", b"a/b", b"", b"\xff"]),
            st.sampled_from([b"0", b"5", b"x", b"g", b"L", b"1", b"2", b"\0"]),
            st.integers(0, 2000),
        ),
        st.just(b"\0" * 512),
    ),
    max_size=8,
)


@given(pieces=_PIECES, packing=st.sampled_from(["tar", "tar+gzip", "tar+zstd"]), whole=st.booleans())
def test_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], packing: Packing, whole: bool
) -> None:
    """Any bytes at all come out as files inside the directory or end in an error of ours."""
    root = tmp_path_factory.mktemp("fuzz")
    data = b"".join(pieces)
    try:
        take_out(packed(data, packing) if whole else data, root / "in", packing)
    except CorralError as error:
        assert error.hint
    assert all(each == "in" or each.startswith("in/") for each in everything(root))


def test_attributes_do_no_harm(tmp_path: Path) -> None:
    """Extended attributes, whose values may be any bytes, are passed over."""
    record = b"30 SCHILY.xattr.user.a=\xff\xfe\x00\x01\x02\n"
    record = record.replace(b"30", b"%02d" % len(record))
    data = header(b"p", kind=b"x", size=len(record)) + record.ljust(512, b"\0") + header(b"a") + END
    assert take_out(data, tmp_path / "in") == [untar.Member("a", 0)]


def test_standard_reader_agrees(tmp_path: Path) -> None:
    """The standard library's reader finds the same files in what this one accepts."""
    data = tar({"a/b/c.txt": b"1", "ä.json": b"2", "x" * 200: b"3"})
    members = take_out(data, tmp_path / "in")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [(m.path, m.size) for m in members] == [(i.name, i.size) for i in archive if i.isfile()]
