"""Calls of one server's control routes, and their answers as wire types: what every client is made of."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, TypeVar, get_args, get_origin

from corral.api import dump, load
from corral.api_downloads import Progress
from corral.connection import Address, Cord, error_from, request
from corral.errors import CorralError, Unreachable

T = TypeVar("T")


class Calls:
    """One server, by its address. A `cord` ends its questions and streams from another thread, for good."""

    def __init__(self, address: Address, cord: Cord | None = None) -> None:
        self.address = address
        self.cord = cord

    def _list(self, kind: type[T], target: str, timeout_s: float | None = 15.0) -> list[T]:
        with request(self.address, "GET", target, timeout_s=timeout_s, cord=self.cord) as answer:
            return understood(list[kind], answer.json())  # type: ignore[valid-type]

    def _one(self, kind: type[T], method: str, target: str, body: Any = None, timeout_s: float | None = 15.0) -> T:
        sent = None if body is None else dump(body)
        with request(self.address, method, target, sent, timeout_s=timeout_s, cord=self.cord) as answer:
            return understood(kind, answer.json())

    def _work(self, kind: type[T], verb: str, body: Any) -> Generator[Progress, None, T]:
        """Progress as it comes; the generator's value is the result. Closing it early ends the work."""
        target = f"/control/{verb}"
        with request(self.address, "POST", target, dump(body), accept="text/event-stream", timeout_s=None) as answer:
            for text in answer.events():
                data = json.loads(text)
                if "progress" in data:
                    yield understood(Progress, data["progress"])
                elif "result" in data:
                    return understood(kind, data["result"])
                elif isinstance(data.get("error"), dict):
                    raise error_from(data["error"])
        raise self._ended()

    def _ended(self) -> Unreachable:
        return Unreachable("the server has ended", hint="start it again with: corral serve")


def understood(kind: type[T], data: Any) -> T:
    """`data` as a wire type, or a list of one. Raises CorralError when it is something else."""
    try:
        if get_origin(kind) is list:
            if not isinstance(data, list):
                raise TypeError("no list")
            return [load(get_args(kind)[0], each) for each in data]  # type: ignore[return-value]
        return load(kind, data)
    except TypeError as error:
        name = get_args(kind)[0].__name__ if get_origin(kind) is list else kind.__name__
        raise CorralError(
            f"the server's answer is not {name} as this command knows it",
            hint="compare the versions of the command and of the server: corral version",
        ) from error
