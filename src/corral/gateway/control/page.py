"""The pages for people: the greeting at `/`, the control API, a followed log. No assets, no scripts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Any
from urllib.parse import quote

import corral
from corral.gateway.control.openapi import document
from corral.gateway.routes import Route

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
section { border-top: 1px solid #8884; padding: .5rem 0 1rem; }
h2 code { font-size: 1.1rem; } table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
pre { background: #8881; padding: .6rem; overflow-x: auto; border-radius: .3rem; }
.log { display: flex; flex-direction: column-reverse; height: 80vh; overflow: auto; }
.log pre { margin: 0 0 auto; overflow: visible; white-space: pre-wrap; }
"""


ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><path d="M7 5v22M16 5v22M25 5v22M3 11h26M3 20h26" '
    'fill="none" stroke="#a0662c" stroke-width="3" stroke-linecap="round"/></svg>'
)
"""A fence, for the tab of a browser, which asks for it with each page."""
_END = "</body></html>"
_DIALECTS = (
    ("anthropic", "Anthropic's"),
    ("ollama", "Ollama's"),
    ("docker", "Docker Model Runner's"),
    ("llamacpp", "llama.cpp's and llama-swap's"),
)


def greeting() -> str:
    """What somebody sees who opens the server in a browser."""
    links = (
        ("/v1/models", "the models, as OpenAI's clients ask for them"),
        ("/control/status", "the server's state"),
        ("/control/units", "the engines"),
        ("/control/docs", "the control API"),
        ("/health", "is it alive"),
        ("/ready", "does it take work"),
    )
    items = "".join(f'<li><a href="{path}"><code>{path}</code></a> {escape(text)}</li>' for path, text in links)
    prefixes = ", ".join(f"<code>/{name}</code> ({escape(whose)})" for name, whose in _DIALECTS)
    others = (
        f"Other clients find theirs under {prefixes}; where one is to have the root of an address, "
        "<code>listen</code> in models.yaml says so: <code>{address: 127.0.0.1:11434, dialect: ollama}</code>."
    )
    logs = "What an engine writes is followed at <code>/control/logs/NAME?follow=1</code>."
    return _page(
        "Corral",
        f"<h1>Corral {escape(corral.__version__)}</h1><p>A local AI model runner. Point any OpenAI client at "
        f"<code>/v1</code> of this address. {others}</p><ul>{items}</ul><p>{logs}</p>",
    )


def api_page(routes: Iterable[Route]) -> str:
    """The description of `routes` that the OpenAPI document gives, as a page."""
    described = document(routes)
    sections = "".join(
        _section(path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    )
    shapes = "".join(_shape(name, shape) for name, shape in described["components"]["schemas"].items())
    return _page(
        "Corral's control API",
        f"<h1>{escape(described['info']['title'])}</h1><p>{escape(described['info']['description'])} For programs: "
        f'<a href="/control/openapi.json">openapi.json</a>.</p>{sections}<h1>Shapes</h1>{shapes}',
    )


def log_page(model: str) -> str:
    """The beginning of a page to which the lines of `model`'s log are added, escaped, as they come. What runs from the
    bottom up stays at its newest line, as long as nobody scrolls away from it."""
    name = escape(model)
    story = f'<a href="/control/story/{quote(model)}"><code>story</code></a>'
    head = f"<h1>{name}</h1><p>What its engine writes, as it comes. Its {story}.</p>"
    return _page(f"{model}: log", f'{head}<div class="log"><pre>').removesuffix(_END)


def _section(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"<section><h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(str(operation['summary']))}."]
    if "description" in operation:
        parts.append(f" {escape(str(operation['description']))}")
    parts.append("</p>")
    rows = [(f"{each['name']} ({each['in']})", str(each["description"])) for each in operation.get("parameters", [])]
    rows += [(status, _words(answer)) for status, answer in operation["responses"].items()]
    parts.append("<table>")
    parts += [f"<tr><th><code>{escape(name)}</code></th><td>{escape(text)}</td></tr>" for name, text in rows]
    data = ' -d \'{"model": "NAME"}\'' if "requestBody" in operation else ""
    verb = f" -X {method.upper()}" if method != "get" else ""
    shown = escape(path.replace("{model}", "NAME"))
    parts.append(f"</table><pre>curl{verb} http://127.0.0.1:8642{shown}{escape(data)}</pre></section>")
    return "".join(parts)


def _words(answer: dict[str, Any]) -> str:
    return f"{answer['description']} ({', '.join(answer['content'])})"


def _shape(name: str, shape: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th><code>{escape(field)}</code></th><td>{escape(_kind(kind))}</td></tr>"
        for field, kind in shape.get("properties", {}).items()
    )
    about = escape(str(shape["description"]))
    return f"<section><h2><code>{escape(name)}</code></h2><p>{about}</p><table>{rows}</table></section>"


def _kind(kind: dict[str, Any]) -> str:
    if "$ref" in kind:
        return str(kind["$ref"]).rpartition("/")[2]
    if "anyOf" in kind:
        return " or ".join(_kind(each) for each in kind["anyOf"])
    if kind.get("type") == "array":
        return f"list of {_kind(kind['items'])}"
    return str(kind.get("type", "anything"))


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}{_END}'
    )
