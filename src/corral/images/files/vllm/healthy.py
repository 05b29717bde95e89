"""Whether this container's vLLM answers: exit code 0 or 1. Where it listens, the first process's arguments say."""

import http.client
import itertools
import socket
import sys
from pathlib import Path

words = Path("/proc/1/cmdline").read_bytes().decode().split("\0")
given = dict(itertools.pairwise(words))
host, port = given.get("--host", "127.0.0.1"), int(given.get("--port", "8000"))
connection = http.client.HTTPConnection("127.0.0.1" if host in ("0.0.0.0", "") else host, port, timeout=4)
try:
    if "--uds" in given:
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(4)
        connection.sock.connect(given["--uds"])
    connection.request("GET", "/health")
    sys.exit(connection.getresponse().status != 200)
except (OSError, http.client.HTTPException):
    sys.exit(1)
