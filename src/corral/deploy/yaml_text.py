"""YAML as the targets write it: in the order given, long texts as blocks, with a line that says where it comes from."""

from __future__ import annotations

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Keeps the order of keys, shows no aliases, and indents lists as people do."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def yaml_text(data: Any, words: str) -> str:
    """`data` as a document that begins with `words` as comments."""
    head = "".join(
        f"# {line}\n" for line in [*words.splitlines(), "Made by `corral deploy`; made again, it is replaced."]
    )
    return head + yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
