"""Models of the store in a real server: fetched, found, served, removed, rolled back, and what survives a kill."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.api_store import ImportAsk, PackageAsk, PruneAsk, PullAsk, VerifyAsk
from corral.client import Client, Finished
from corral.config.paths import Paths
from corral.connection import parse_address
from corral.descriptors import digest_of
from corral.engines.defaults import _FLAGS
from corral.engines.flags import BY_NAME
from corral.errors import CorralError, InUse, LocalOnly, NotInRegistry, UnknownModel
from corral.store.store import Store
from support import shared_store
from support.artifacts import layer, put
from support.faulty_registry import Fault, FaultyRegistry
from support.ggufs import write_chain
from support.server import Server, until
from support.shared_store import WORDS

OTHER = ["that", "is", "it"]
registry, shared, server = shared_store.registry, shared_store.shared, shared_store.server

Configured = Callable[[str], Server]


@pytest.fixture
def configured(server: Server) -> Iterator[Configured]:
    """The shared server with another configuration until the test ends: whatever stands in it is taken up in place."""

    def configure(text: str) -> Server:
        server.write(text)
        assert server.client.reload().needs_restart == []
        return server

    yield configure
    for model in {unit.model for unit in server.client.units() if unit.state != "stopped"}:
        server.client.stop(model)
    configure(server.config)


def chain(directory: Path, words: list[str]) -> bytes:
    path = directory / f"{words[0]}.gguf"
    write_chain(path, words)
    return path.read_bytes()


def say(server: Server, model: str, *before: dict[str, str]) -> str:
    messages = [*before, {"role": "user", "content": "go"}]
    pieces = server.client.chat_stream(model, messages, temperature=0, max_tokens=20)
    return "".join(piece.text for piece in pieces if not isinstance(piece, Finished))


def fetch(server: Server, ref: str, **more: Any) -> str:
    """Pulls and waits; the name in the store."""
    job = server.client.pull(PullAsk(ref, **more))
    if not job.over:
        for each in server.client.follow_downloads():
            if each.id == job.id and each.over:
                job = each
                break
    assert job.state == "done", job.error
    return job.name


def run_all(work: Any) -> Any:
    """What a work gives, its progress passed over."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return ended.value


def test_a_pulled_model_answers_by_its_name(server: Server, registry: FaultyRegistry) -> None:
    """A model that no models.yaml knows is pulled, listed, and served under its full and its short spelling."""
    name = fetch(server, f"{registry.host}/me/a")
    assert name == f"{registry.host}/me/a:latest"
    assert say(server, name) == say(server, f"{registry.host}/me/a") == " ".join(WORDS)
    [stored] = server.client.stored()
    assert (stored.name, stored.in_use, stored.format) == (name, True, "gguf")
    with urllib.request.urlopen(f"{server.url}/v1/models") as answer:
        [listed] = [each for each in json.load(answer)["data"] if each["id"] == name]
    assert listed["created"] == int(stored.at_wall_s or 0) > 0
    with urllib.request.urlopen(f"{server.url}/v1/models/{name}") as answer:
        assert json.load(answer)["created"] == listed["created"]
    with pytest.raises(InUse):
        server.client.remove([name])
    server.client.stop(f"{registry.host}/me/a")
    removed = server.client.remove([name])
    assert removed.names == [name] and removed.bytes > 0
    assert server.client.stored() == []
    with pytest.raises(UnknownModel) as caught:
        say(server, name)
    assert f"corral pull {name}" in caught.value.hint


def test_a_served_name_stays_although_another_has_its_files(server: Server, registry: FaultyRegistry) -> None:
    """`corral rm` says to stop it; a name that goes in any other way is not served any more, and its engine ends."""
    name = fetch(server, f"{registry.host}/me/a")
    twin = server.client.tag(name, f"{registry.host}/me/twin:v1").name
    assert say(server, twin) == " ".join(WORDS)
    with pytest.raises(InUse, match="is being served"):
        server.client.remove([twin])
    server.client.remove([name])  # which is not
    server.client.tag(twin, name)
    Store(server.paths.store_dir).remove_name(twin)
    server.client.tag(name, f"{registry.host}/me/third")  # whatever changes the store
    until(lambda: not any(unit.model == twin for unit in server.client.units()), "the engine's end")
    assert twin not in [model.name for model in server.client.models()]


def test_a_missing_model_is_not_pulled_by_surprise(configured: Configured, registry: FaultyRegistry) -> None:
    """A request for a model that is not here is a 404 with the command, and nothing is asked of the registry."""
    config = f"models: [{{name: mine, source: '{registry.host}/me/a'}}]"
    server = configured(config)
    for name in (f"{registry.host}/me/a", "mine"):
        with pytest.raises(UnknownModel) as caught:
            say(server, name)
        assert "corral pull" in caught.value.hint
    assert registry.asked == []


def test_auto_pull_fetches_what_a_request_names(configured: Configured, registry: FaultyRegistry) -> None:
    """Where the registry's entry says so, the request waits for the download; what does not exist is its error."""
    config = f"""
        registries: {{'{registry.host}': {{auto_pull: true}}}}
        models: [{{name: mine, source: '{registry.host}/me/a'}}]
    """
    server = configured(config)
    assert say(server, "mine") == " ".join(WORDS)
    with pytest.raises(NotInRegistry):
        say(server, f"{registry.host}/me/nope")
    with pytest.raises(UnknownModel):
        say(server, "nope")


def test_a_pinned_source_stays(configured: Configured, registry: FaultyRegistry, short_tmp: Path) -> None:
    """`name@sha256:…` in models.yaml serves that digest whatever the name means, and its blobs are never collected."""
    first = digest_of(registry.manifests["me/a:latest"])
    config = f"models: [{{name: pinned, source: '{registry.host}/me/a@{first}'}}]"
    server = configured(config)
    name = fetch(server, f"{registry.host}/me/a")
    registry.model("me/a", chain(short_tmp, OTHER))
    assert fetch(server, f"{registry.host}/me/a") == name
    server.client.prune(PruneAsk(older_than_s=0.0))
    assert say(server, "pinned") == " ".join(WORDS)


def test_updates_and_rollbacks_show_at_the_next_start(
    server: Server, registry: FaultyRegistry, short_tmp: Path
) -> None:
    """`update` takes what changed upstream, `rollback` goes back, and an engine that runs keeps what it has."""
    name = fetch(server, f"{registry.host}/me/a")
    assert say(server, name) == " ".join(WORDS)
    registry.model("me/a", chain(short_tmp, OTHER))
    [job] = server.client.update([])
    until(lambda: next(j for j in server.client.downloads() if j.id == job.id).over, "the update")
    assert say(server, name) == " ".join(WORDS)
    server.client.restart(name)
    assert say(server, name) == " ".join(OTHER)
    server.client.rollback(name)
    server.client.restart(name)
    assert say(server, name) == " ".join(WORDS)
    assert [each.why for each in server.client.history(name)] == ["rollback", "pull", "pull"]


def test_a_killed_server_goes_on(paths: Paths, registry: FaultyRegistry) -> None:
    """After kill -9 a download goes on by itself, and a stored model's engine is adopted and still spared by `rm`."""
    with Server(paths) as server:
        name = fetch(server, f"{registry.host}/me/a")
        assert say(server, name) == " ".join(WORDS)
        [pid] = [unit.pid for unit in server.client.units() if unit.model == name]
        registry.model("me/slow", bytes(1000), tag="v1")
        registry.faults.append(Fault(stall_after=10, times=1))
        server.client.pull(PullAsk(f"{registry.host}/me/slow:v1"))
        until(lambda: any("slow" in each.path and "blobs" in each.path for each in registry.asked), "the download")
        server.kill()
        registry.let_go.set()
        server.start()
        assert [unit.pid for unit in server.client.units() if unit.model == name] == [pid]
        until(lambda: all(job.state == "done" for job in server.client.downloads()), "the download to end")
        with pytest.raises(InUse):
            server.client.remove([name])
        assert run_all(server.client.verify(VerifyAsk())).clean


def test_two_clients_share_one_download(server: Server, registry: FaultyRegistry) -> None:
    """The second asker gets the first one's job, which can be paused, resumed and cancelled."""
    registry.faults.append(Fault(pace_s=0.2, times=-1))
    one = server.client.pull(PullAsk(f"{registry.host}/me/a"))
    two = server.client.pull(PullAsk(f"{registry.host}/me/a:latest"))
    assert one.id == two.id
    assert server.client.pause(one.id).state == "paused"
    assert server.client.cancel(one.id).state == "cancelled"
    until(lambda: server.client.usage().partial_bytes == 0, "the partial files to go")
    with pytest.raises(CorralError):
        server.client.pause("nothing")


def test_damage_is_mended_from_where_it_came(server: Server, registry: FaultyRegistry) -> None:
    """`verify` names the damaged blob and its model; with `repair` it is fetched again."""
    name = fetch(server, f"{registry.host}/me/a")
    blob = max((server.paths.store_dir / "blobs" / "sha256").iterdir(), key=lambda each: each.stat().st_size)
    size = blob.stat().st_size
    blob.chmod(0o644)
    with blob.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"damage")
    found = run_all(server.client.verify(VerifyAsk()))
    assert [each.names for each in found.damage] == [[name]] and not found.clean
    assert run_all(server.client.verify(VerifyAsk([name], repair=True))).clean
    assert run_all(server.client.verify(VerifyAsk())).damage == []
    assert say(server, name) == " ".join(WORDS)


def test_a_models_own_words_are_honoured(configured: Configured, shared: Server, short_tmp: Path) -> None:
    """Ollama's parameters, system prompt and messages become flags and a template of the engine; settings win."""
    store = Store(shared.paths.store_dir)
    store.prepare()
    kind = "application/vnd.ollama.image."
    put(
        store,
        [
            layer(f"{kind}model", chain(short_tmp, WORDS)),
            layer(f"{kind}params", b'{"temperature": 0, "num_ctx": 128, "stop": ["or"], "odd": 1}'),
            layer(f"{kind}system", b'You are "it\'s" \\ {{ x }} %}\nend'),
            layer(f"{kind}messages", b'[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]'),
        ],
        name="registry.ollama.ai/library/tiny:latest",
    )
    server = configured("models: [{name: own, source: 'ollama://tiny', args: [--temp, '0.5']}]")
    assert say(server, "tiny") == "to be "
    body = json.dumps({"messages": [{"role": "user", "content": "go"}]}).encode()
    request = urllib.request.Request(
        f"{server.url}/upstream/registry.ollama.ai/library/tiny:latest/apply-template", body
    )
    with urllib.request.urlopen(request) as answer:
        prompt = json.load(answer)["prompt"]
    assert prompt.index('You are "it\'s" \\ {{ x }} %}\nend') < prompt.index("go")
    [unit] = server.client.units()
    assert unit.context == 128
    assert any("odd" in warning for warning in unit.warnings)
    server.client.start("own")
    card = server.client.show("tiny")
    assert card.params["num_ctx"] == 128 and card.system is not None


def test_every_parameter_is_a_flag() -> None:
    """What a model's parameters become are flags that the engine knows."""
    assert set(_FLAGS.values()) <= set(BY_NAME)


def test_models_of_a_root_are_served_as_they_lie(configured: Configured, short_tmp: Path) -> None:
    """A file in `model_roots` is listed and answers; nothing of it comes into the store."""
    root = short_tmp / "root"
    root.mkdir()
    write_chain(root / "lying.gguf", WORDS)
    server = configured(f"model_roots: ['{root}']")
    [row] = server.client.stored()
    assert row.place == str(root / "lying.gguf")
    assert say(server, row.name) == say(server, "lying") == " ".join(WORDS)
    assert server.client.usage().named_bytes == 0
    [found] = run_all(server.client.import_models(ImportAsk(str(root), ["lying"])))
    assert server.client.show(found.name).format == "gguf"


def test_packaged_exported_and_loaded(server: Server, short_tmp: Path) -> None:
    """A file becomes a model, a tar file, and after its removal a model again; the bytes are all accounted for."""
    from corral.api_store import ExportAsk, LoadAsk

    file = short_tmp / "m.gguf"
    write_chain(file, WORDS)
    client = server.client
    made = run_all(client.package(PackageAsk(str(file), "me/tiny", context_size=64)))
    assert client.tag("me/tiny", "me/again:v2").digest == made.digest
    run_all(client.export(ExportAsk(["me/tiny"], str(short_tmp / "m.tar"))))
    assert client.remove(["me/tiny"]).bytes == 0
    client.remove(["me/again:v2"])
    [name] = run_all(client.load(LoadAsk(str(short_tmp / "m.tar")))).names
    assert say(server, name) == " ".join(WORDS)
    usage = client.usage()
    parts = [usage.named_bytes, usage.kept_bytes, usage.unreferenced_bytes, usage.partial_bytes]
    assert sum([*parts, usage.placed_bytes, usage.other_bytes]) == usage.total_bytes
    assert usage.total_bytes == sum(
        each.lstat().st_size
        for each in server.paths.store_dir.rglob("*")
        if not each.is_dir() and not each.is_symlink()
    ) + sum(each.lstat().st_size for each in server.paths.store_dir.rglob("*") if each.is_symlink())
    with pytest.raises(LocalOnly):
        run_all(Client(parse_address(server.url)).package(PackageAsk(str(file), "me/tiny")))
