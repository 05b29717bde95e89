"""Writes the generated parts of docs/architecture.md: `python tools/architecture.py`."""

from __future__ import annotations

import re
from pathlib import Path

from corral.supervisor.machine import diagram

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = f"<!-- states -->\n```mermaid\n{diagram()}\n```\n<!-- /states -->"
    PAGE.write_text(re.sub(r"<!-- states -->.*?<!-- /states -->", lambda _: block, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
