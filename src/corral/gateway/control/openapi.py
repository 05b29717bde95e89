"""The OpenAPI 3.1 document, made from the table of routes and the wire types. Pure."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from typing import Any, get_args, get_origin, get_type_hints

import corral
from corral.api import ErrorInfo
from corral.errors import Bug, CorralError
from corral.gateway.routes import Doc, Param, Route

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Any: {},
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The description of those `routes` that have a `doc`."""
    schemas: dict[str, Any] = {}
    error = {
        "type": "object",
        "description": "What every error looks like.",
        "required": ["error"],
        "properties": {"error": schema(ErrorInfo, schemas)},
    }
    paths: dict[str, Any] = {}
    for route in routes:
        if route.doc is not None:
            paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, route.doc, schemas)
    schemas["ErrorReply"] = error
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Corral's control API",
            "version": corral.__version__,
            "description": "What a running Corral tells of itself and can be told to do. The inference routes speak "
            "OpenAI's API and are described there.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "control", "description": "Models, their engines, and what happens to them."},
            {"name": "health", "description": "For whoever watches over the server."},
        ],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of `kind`; wire types go into `schemas` by name and are referred to."""
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in schemas:
            schemas[kind.__name__] = {}  # taken, should it refer to itself
            schemas[kind.__name__] = _object(kind, schemas)
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    origin, args = get_origin(kind), get_args(kind)
    if origin is list:
        return {"type": "array", "items": schema(args[0], schemas)}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema(args[1], schemas) or True}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [{"type": "null"} if each is type(None) else schema(each, schemas) for each in args]}
    raise TypeError(f"no schema for {kind!r}")


def _object(kind: type, schemas: dict[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    properties = {}
    for field in fields:
        properties[field.name] = schema(hints[field.name], schemas)
        if field.default is not dataclasses.MISSING:
            properties[field.name]["default"] = field.default
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n\n")[0],
        "required": required,
        "properties": properties,
    }


def _operation(route: Route, doc: Doc, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": doc.summary,
        "tags": [doc.tag],
    }
    if doc.text:
        operation["description"] = doc.text
    parameters = [_path_parameter(route)] if route.prefix is not None else []
    parameters += [_parameter(param) for param in doc.params]
    if parameters:
        operation["parameters"] = parameters
    if doc.takes is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema(doc.takes, schemas)}},
        }
    operation["responses"] = {
        **{str(status): _answer(doc, schemas) for status in doc.statuses},
        **_errors(doc),
    }
    return operation


def operation_id(route: Route) -> str:
    """A name for programs, such as `get_control_units`."""
    words = route.path.replace("{", "").replace("}", "").replace(".", "_").strip("/").split("/")
    return "_".join([route.method.lower(), *(word for word in words if word)]) if words != [""] else "get_root"


def _path_parameter(route: Route) -> dict[str, Any]:
    return {
        "name": route.path[route.path.index("{") + 1 : route.path.index("}")],
        "in": "path",
        "required": True,
        "description": "a model's name or alias, slashes included",
        "schema": {"type": "string"},
    }


def _parameter(param: Param) -> dict[str, Any]:
    shape = dict(_PLAIN[param.kind])
    if param.default is not None:
        shape["default"] = param.default
    if param.minimum is not None:
        shape["minimum"] = param.minimum
    if param.maximum is not None:
        shape["maximum"] = param.maximum
    return {"name": param.name, "in": "query", "required": False, "description": param.text, "schema": shape}


def _answer(doc: Doc, schemas: dict[str, Any]) -> dict[str, Any]:
    content = {}
    for media in doc.media:
        plain = schema(doc.result, schemas) if media == "application/json" else {"type": "string"}
        content[media] = {"schema": plain}
    return {"description": doc.summary, "content": content}


def _errors(doc: Doc) -> dict[str, Any]:
    by_status: dict[int, list[str]] = {}
    kinds: list[type[CorralError]] = [*doc.errors, Bug]
    for kind in kinds:
        first_line = (kind.__doc__ or "").split("\n")[0]
        by_status.setdefault(kind.status, []).append(f"`{kind.code}`: {first_line}" if first_line else f"`{kind.code}`")
    return {
        str(status): {
            "description": "; ".join(dict.fromkeys(words)),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorReply"}}},
        }
        for status, words in sorted(by_status.items())
    }
