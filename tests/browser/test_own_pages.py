"""Corral's own pages in a real browser, and pages of others that would like to ask it something."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from corral.config.paths import Paths
from support.browser import opened
from support.server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "What is Corral?"}], "temperature": 0}
TRIES = """async ([url, body]) => {
  const ways = {
    read: () => fetch(url + '/v1/models').then(each => each.text()),
    ask: () => fetch(url + '/v1/chat/completions', {method: 'POST', body}).then(each => each.text()),
    // What any page may send without asking first: it hears nothing of the answer, but the model would be loaded.
    blindly: () => fetch(url + '/v1/chat/completions', {method: 'POST', mode: 'no-cors', body}).then(each => each.type),
    load: () => fetch(url + '/models/load', {method: 'POST', mode: 'no-cors', body}).then(each => each.type),
    change: () => fetch(url + '/control/models/start', {method: 'POST', body,
      headers: {'content-type': 'application/json'}}).then(each => each.text()),
  }
  const said = {}
  for (const [name, way] of Object.entries(ways))
    said[name] = await way().then(text => text, error => 'failed: ' + error.message)
  return said
}"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title><link rel=icon href='data:,'>")

    def log_message(self, *args: object) -> None:
        return


@contextmanager
def elsewhere() -> Iterator[str]:
    """The address of somebody else's page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_pages_for_people(paths: Paths, window: Any) -> None:
    """The greeting leads to what it names, and nothing of any page is kept from it by the rules that it came with."""
    with Server(paths) as server, opened(window, server.url) as seen:
        seen.page.get_by_role("heading", name="Corral").wait_for()
        links = seen.page.locator("a").evaluate_all("each => each.map(a => a.href)")
        assert len(links) > 4
        for link in links:
            answer = seen.page.goto(link)
            assert answer.ok, link
        seen.page.goto(f"{server.url}/control/docs")
        seen.page.get_by_text("openapi.json").first.wait_for()
        assert seen.said == []


def test_a_log_grows_in_the_page(paths: Paths, window: Any) -> None:
    """And stays at its newest line, though the page has no script."""
    with Server(paths) as server:
        server.client.start("demo")
        with opened(window, f"{server.url}/control/logs/demo?follow=1", wait="commit") as seen:
            seen.page.get_by_role("heading", name="demo").wait_for()
            lines = seen.page.locator("pre")
            before = len(lines.inner_text())
            assert before > 100
            server.client.restart("demo")
            seen.page.wait_for_function("before => document.querySelector('pre').innerText.length > before", arg=before)
            assert seen.page.locator(".log").evaluate("each => Math.abs(each.scrollTop) < 2")
            assert seen.said == []


def test_pages_of_others_get_nothing(paths: Paths, window: Any) -> None:
    """A page that is open beside it can neither read nor ask nor change anything, and loads no model by asking blindly.
    One whose origin the configuration names may ask and read, by what browsers ask for it beforehand."""
    body = json.dumps(CHAT)
    with Server(paths) as server, elsewhere() as url:
        with opened(window, url) as seen:
            said = seen.page.evaluate(TRIES, [server.url, body])
        assert {name: said[name].startswith("failed") for name in ("read", "ask", "change")} == {
            "read": True, "ask": True, "change": True,
        }, said  # fmt: skip
        assert (said["blindly"], said["load"]) == ("opaque", "opaque")
        assert server.states("demo") == [], "nothing was started by any of it"

        server.write(server.config + f"\nallowed_origins: ['{url}']\n")
        server.client.reload()
        with opened(window, url) as seen:
            said = seen.page.evaluate(TRIES, [server.url, body])
        assert '"demo"' in said["read"] and "Corral is a local AI model runner" in said["ask"], said
