"""The control API does what its own description says: right and wrong requests made of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from corral.config.paths import Paths
from support.server import Server

CHECKED = (
    "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
OF_OTHERS = (502, 503, 504, 507)
"""What is said of a registry that does not answer, of a full queue or disk; anything else from 500 on is our fault, but
for 501 with `engine_missing`: here is no tool that quantizes."""
ELSEWHERE = ("/control/search", "/control/login", "/control/handover")
"""What would ask registries in the internet, or end the server; each has tests of its own."""
REACHING = ("/control/pull", "/control/update", "/control/store/push", "/control/inspect")
"""What asks a registry: here always one on this machine where nobody listens."""
NOBODY = "127.0.0.1:1/none/none:none"


@pytest.fixture
def server(paths: Paths) -> Iterator[Server]:
    with Server(paths, env={"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}) as found:
        yield found


@pytest.mark.parametrize("examples", [3, pytest.param(12, marks=pytest.mark.long)])
def test_every_answer_is_one_that_is_described(server: Server, examples: int) -> None:
    """No operation fails within, and each status, content type and body is in the document, whatever is sent."""
    document = httpx2.get(f"{server.url}/control/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    told: list[str] = []
    tried = 0
    for result in schema.get_all_operations():
        operation: Any = cast(Any, result).ok()
        if operation.path in ELSEWHERE:
            continue
        tried += 1
        _try(operation, server.url, told, examples)
    assert not told, "\n\n".join(told)
    assert tried == sum(len(each) for each in document["paths"].values()) - len(ELSEWHERE)


def _try(operation: Any, url: str, told: list[str], examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    @given(case=st.one_of([operation.as_strategy(mode) for mode in GenerationMode]))
    def one(case: Any) -> None:
        if case.query:
            case.query.pop("follow", None)  # which has no end
        if operation.path in REACHING:
            for given_values in (case.body, case.query):
                if isinstance(given_values, dict):
                    given_values.update({key: NOBODY for key in ("name", "ref", "to") if key in given_values})
        response = case.call(base_url=url, timeout=20)
        missing = response.status_code == 501 and response.json()["error"]["code"] == "engine_missing"
        names = CHECKED if missing or response.status_code in OF_OTHERS else (*CHECKED, "not_a_server_error")
        case.validate_response(response, checks=[CHECKS.get_one(name) for name in names])

    try:
        one()
    except Exception as exc:  # noqa: BLE001 - all of them are told at the end
        told.append(f"{operation.method.upper()} {operation.path}: {exc}")
