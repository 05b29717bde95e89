"""The tables of flags in `docs/engines.md`, written from the table that the engine uses.

`python -m corral.engines.flag_page docs/engines.md` puts them between the page's two markers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from corral.engines.flag_table import ABSENT, FLAGS, REFUSED, Flag

START = "<!-- flags: written by corral.engines.flag_page -->"
END = "<!-- end of flags -->"


def tables() -> str:
    """What stands between the markers."""
    rows = ["| flag | embedded engine's parameter |", "| --- | --- |"]
    rows += [f"| {_names(flag)} | `{flag.parameter}` |" for flag in FLAGS if not flag.owner]
    owned = [f"| {_names(flag)} | `{flag.owner}` |" for flag in FLAGS if flag.owner]
    refused: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        refused.setdefault(reason, []).append(f"`{name}`")
    parts = [
        "\n".join(rows),
        "Corral decides these itself; `args` may not have them, use the key instead:",
        "\n".join(["| flag | key of models.yaml |", "| --- | --- |", *owned]),
        "Only a `llama-server` takes these, the embedded engine has no parameter for them: "
        + ", ".join(f"`{name}`" for name in sorted(ABSENT))
        + ".",
        "No engine is given these:",
        "\n".join(f"- {', '.join(names)}: {reason}." for reason, names in refused.items()),
    ]
    return "\n\n".join(parts)


def rewritten(page: str) -> str:
    """`page` with its tables brought up to date. Raises ValueError when it lacks the markers."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the page lacks {START} or {END}")
    return f"{before}{START}\n\n{tables()}\n\n{END}{after}"


def _names(flag: Flag) -> str:
    takes = "" if flag.value is None else " …"
    return ", ".join([f"`{name}{takes}`" for name in flag.names] + [f"`{name}`" for name in flag.off])


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
