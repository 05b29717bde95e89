"""llama.cpp's own web page, built from its source, against Corral in a real browser: as on its own router."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from corral.api_access import KeyAsk
from corral.config.paths import Paths
from support.browser import Opened, opened
from support.server import Server, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

ANSWER = "Corral is a local AI model runner and control plane."
STORY = "Once upon a time there was a small llama"
NO_TOOLS = "the server responded with a status of 403"
"""What Chromium itself says of `/tools`, which a `llama-server` without tools answers so too."""


@pytest.fixture
def page() -> Path:
    """The folder of the page."""
    found = os.environ.get("CORRAL_TEST_LLAMA_PAGE")
    if found is None:
        pytest.skip("llama.cpp's page is not here: `make browser` builds it")
    return Path(found)


@pytest.fixture
def config(page: Path) -> str:
    return f"""
        listen:
          - {{address: 127.0.0.1:0, dialect: llamacpp, page: {page}}}
        models:
          - {{name: demo, source: "builtin:demo"}}
          - {{name: other, source: "builtin:demo"}}
    """


def say(seen: Opened, text: str, model: str = "demo") -> None:
    """Once the page knows whom to ask: what is sent before is lost."""
    seen.page.get_by_text(model, exact=True).last.wait_for()
    box = seen.page.get_by_placeholder("Type a message").first
    box.fill(text)
    box.press("Enter")


def test_chats_with_two_models(paths: Paths, config: str, window: Any) -> None:
    """The page sees a router with two models, has the first one answer, loads the other one and asks that, and shows
    what each answer took. None of its scripts failed, and nothing was asked of anybody else."""
    with Server(paths, config, listen="") as server, opened(window, server.url) as seen:
        say(seen, "What is Corral?")
        seen.page.get_by_text(ANSWER).first.wait_for()
        seen.page.get_by_text("t/s").first.wait_for()
        assert [(each.model, each.state) for each in server.client.units()] == [("demo", "ready")]
        seen.page.get_by_text("demo", exact=True).last.click()
        seen.page.get_by_text("other", exact=True).first.click()
        until(lambda: any(each.model == "other" and each.state == "ready" for each in server.client.units()), "it")
        say(seen, "Tell me a story", "other")
        seen.page.get_by_text(STORY).first.wait_for()
        seen.page.get_by_text(ANSWER).first.wait_for()  # what was said before is still there

        chats = [each for each in seen.asked if "/v1/chat/completions" in each]
        models = [json.loads(each.split(" ", 2)[2])["model"] for each in chats]
        assert models == ["demo", "other"] and any("/models/load" in each for each in seen.asked)
        assert all(each.split()[1].startswith((server.url, "blob:", "data:")) for each in seen.asked), seen.asked
        assert [each for each in seen.said if NO_TOOLS not in each] == []


def test_is_itself_under_no_foreign_name(paths: Paths, config: str) -> None:
    """A name that was made to lead here (DNS rebinding) gets no page, which would be asking as our own."""
    with Server(paths, config, listen="") as server:
        asked = urllib.request.Request(server.url, headers={"host": "evil.example"})
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(asked)
        refused.value.close()


def test_what_happens_elsewhere_is_seen(paths: Paths, config: str, window: Any) -> None:
    """A model that a command loads and stops is loaded and stopped in the page, by the router's feed."""
    with Server(paths, config, listen="") as server, opened(window, server.url) as seen:
        seen.page.get_by_text("demo", exact=True).last.click()
        seen.page.get_by_text("Available models").wait_for()
        with seen.page.expect_response(lambda each: "/props?model=other" in each.url) as looked:
            server.client.start("other")
        assert looked.value.json()["ui"] is True, "else the page leaves out a model once it is loaded"
        seen.page.get_by_text("Loaded models").wait_for()
        seen.page.get_by_text("other", exact=True).last.wait_for()
        server.client.stop("other")
        seen.page.get_by_text("Loaded models").wait_for(state="detached")
        assert [each for each in seen.said if NO_TOOLS not in each] == []


def test_asks_for_a_key_where_one_is_needed(paths: Paths, config: str, window: Any) -> None:
    """The page itself is for everybody. It says that access is denied, takes a key, and chats with it."""
    with Server(paths, config + "\n        require_keys: true\n", listen="") as server:
        key = server.client.create_key(KeyAsk("page")).secret
        with opened(window, server.url) as seen:
            seen.page.get_by_text("Access denied").wait_for()
            seen.page.get_by_text("Enter API Key").click()
            seen.page.locator("input").first.fill(key)
            seen.page.keyboard.press("Enter")
            say(seen, "What is Corral?")
            seen.page.get_by_text(ANSWER).first.wait_for()
