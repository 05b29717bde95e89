"""What is said of an import: how it was done, why not otherwise, and what it depends on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from corral.models.peers.known import PEERS
from corral.models.peers.outside import OutsideModel, Peer
from corral.units import show_bytes

Done = Literal["present", "reflink", "hardlink", "reference", "copy"]


def note(how: Done, size: int, path: Path, refused: Mapping[str, str], peer: Peer | None) -> str:
    """What was done with a model's largest file, at `path`. `refused` has the ways that were not possible, and why."""
    title = peer.title if peer is not None else "its owner"
    theirs = f"{title}'s file" if peer is not None else "the original"
    prunes = _capital(peer.prunes if peer is not None else "its owner may change or delete it")
    what = {
        "present": "the store had it already; nothing was added",
        "reflink": f"reflink: it shares the disk's blocks with {theirs}, and nothing that happens to that one "
        "matters here",
        "hardlink": f"hard link: one file that {title} and Corral both have. {prunes}: the model stays here, and its "
        "space is free once both have removed it",
        "reference": f"reference: the file stays where it is, {path}. {prunes}: Corral then notices, and wants the "
        "model imported or pulled again",
        "copy": f"copy: {show_bytes(size)} more on the disk; what happens to {theirs} does not matter here",
    }[how]
    why = _why(how, path, refused)
    return f"{what} ({why})" if why else what


def _why(how: Done, path: Path, refused: Mapping[str, str]) -> str:
    """Why it is no link, where that is of interest: a copy costs space, a reference can be lost."""
    if how not in ("reference", "copy") or "hardlink" not in refused:
        return ""
    reason = refused["hardlink"]
    if "not permitted" in reason.lower() and _protected() and not _owns(path):
        return (
            "no hard link: the file is another user's, and the kernel lets one link only files that one owns or may "
            "write (fs.protected_hardlinks)"
        )
    return f"no hard link: {reason[:1].lower()}{reason[1:]}"


def _protected() -> bool:
    try:
        return Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "0"
    except OSError:
        return False


def _owns(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.getuid()
    except OSError:
        return False


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def again(model: OutsideModel) -> str:
    """The hint for a model that is damaged where it is."""
    peer = PEERS.get(model.holder)
    where = f" in {peer.title}" if peer is not None else ""
    return f"fetch it again{where}, or with: corral pull {model.name}"


def access_hint(peer: Peer | None, path: Path) -> str:
    """The hint for what this user may not read."""
    hint = f"let this user read it, as in: sudo setfacl -R -m u:$USER:rX {path}"
    if peer is not None and peer.key == "docker":
        return f"{hint}; or start Docker Model Runner, whose API gives out its models"
    return hint
