"""What the demo model knows about Corral: for each true answer, the ways to ask for it.

Each entry is `(patterns, answer)`; the patterns are in the small grammar of `phrases`.
"""

from __future__ import annotations

from basics import BASICS
from insides import INSIDES

FACTS: tuple[tuple[tuple[str, ...], str], ...] = (*BASICS, *INSIDES)
