"""A receiver of OTLP over HTTP on loopback, which reads what exporters post with OpenTelemetry's own types."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Seen:
    """One span as it was received. Ids are hexadecimal; times are nanoseconds."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """Serves from entering to leaving. `status` is what it answers with."""

    def __init__(self, port: int = 0) -> None:
        self.status = 200
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._spans: list[Seen] = []
        self._changed = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.paths.append(self.path)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                if collector.status == 200:
                    collector._take(ExportTraceServiceRequest.FromString(body))
                said = ExportTraceServiceResponse().SerializeToString()
                self.send_response(collector.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spans(self, least: int = 1, within_s: float = 60.0) -> list[Seen]:
        """All spans so far, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._spans) >= least, within_s), self._spans
            return list(self._spans)

    def _take(self, request: ExportTraceServiceRequest) -> None:
        found = []
        for group in request.resource_spans:
            resource = _plain(group.resource.attributes)
            for scope in group.scope_spans:
                for each in scope.spans:
                    found.append(
                        Seen(
                            each.name, each.kind, each.trace_id.hex(), each.span_id.hex(), each.parent_span_id.hex(),
                            each.start_time_unix_nano, each.end_time_unix_nano, each.status.code == 2,
                            _plain(each.attributes), resource,
                        )
                    )  # fmt: skip
        with self._changed:
            self._spans += found
            self._changed.notify_all()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
