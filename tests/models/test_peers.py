"""What other tools hold on this machine: found where they keep it, named as it would be pulled, and never believed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.descriptors import digest_of
from corral.errors import ModelFileError, NotFound
from corral.models.importing import find_model, find_peers, list_models
from corral.models.peers import docker, huggingface, llamacpp, lmstudio, ollama
from corral.models.peers.folders import groups
from corral.models.peers.following import files_under, followed
from corral.models.peers.naming import local_ref
from corral.models.peers.outside import OutsideModel
from corral.models.roots import list_roots, models_in
from corral.refs_parse import parse_ref
from support.ggufs import write_chain
from support.peer_stores import COMMIT, docker_model, write_docker, write_hub, write_ollama


def by_name(models: object) -> dict[str, OutsideModel]:
    return {model.name: model for model in models}  # type: ignore[attr-defined]


def roles(model: OutsideModel) -> list[tuple[str, str]]:
    return [(file.role, file.title) for file in model.files]


@pytest.fixture
def gguf(tmp_path: Path) -> bytes:
    return write_chain(tmp_path / "source.gguf", ["one", "two"]).read_bytes()


def test_ollama_models_are_found_with_all_layers(tmp_path: Path, gguf: bytes) -> None:
    """A model of Ollama's store has its registry's name, its manifest to the byte, and a role for every layer."""
    layers = [("model", gguf), ("template", b"{{ .Prompt }}"), ("params", b'{"stop":["x"]}'), ("system", b"Be brief.")]
    digest = write_ollama(tmp_path, layers)
    write_ollama(tmp_path, layers, name="hf.co/org/Tiny-GGUF/Q4_K_M")
    write_ollama(tmp_path, layers, name="hf.co/org/Tiny-GGUF/latest")
    write_ollama(tmp_path, layers, name="example.com/me/own/v1")
    found = by_name(ollama.read(tmp_path))
    assert sorted(found) == [
        "example.com/me/own:v1",
        "hf.co/org/Tiny-GGUF",
        "hf.co/org/Tiny-GGUF:Q4_K_M",
        "registry.ollama.ai/library/tiny:latest",
    ]
    model = found["registry.ollama.ai/library/tiny:latest"]
    assert model.label == "tiny:latest" and not model.problem and model.format == "gguf"
    assert [role for role, _ in roles(model)] == ["weights", "template", "params", "system", "config"]
    assert model.files[0].digest and model.manifest and model.main is not None
    assert digest_of(model.manifest) == digest


def test_what_ollama_cannot_serve_from_disk_is_told(tmp_path: Path, gguf: bytes) -> None:
    """Cloud models, lost or half-written blobs, and damaged manifests are listed with the reason."""
    write_ollama(tmp_path, [("license", b"MIT")], name="registry.ollama.ai/library/cloud/latest",
                 config={"remote_host": "https://ollama.com"})  # fmt: skip
    write_ollama(tmp_path, [("model", gguf)], name="registry.ollama.ai/library/cut/latest")
    lost = [("model", gguf + b"more")]
    write_ollama(tmp_path, lost, name="registry.ollama.ai/library/lost/latest")
    broken = tmp_path / "manifests/registry.ollama.ai/library/broken/latest"
    broken.parent.mkdir()
    broken.write_text('{"schemaVersion": 2, "layers"')
    for blob in (tmp_path / "blobs").iterdir():
        if blob.stat().st_size == len(gguf):
            blob.write_bytes(gguf[:-10])
        elif blob.stat().st_size == len(gguf) + 4:
            blob.unlink()
    found = by_name(ollama.read(tmp_path))
    problems = {name.split("/")[2]: model.problem for name, model in found.items()}
    assert "another server" in problems["cloud:latest"]
    assert f"instead of {len(gguf)}" in problems["cut:latest"]
    assert "missing" in problems["lost:latest"]
    assert "no JSON" in problems["broken:latest"]


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 64, 7, None])
def test_a_digest_that_is_none_never_becomes_a_path(tmp_path: Path, gguf: bytes, digest: object) -> None:
    """A manifest of a peer's with an unsafe digest is a problem, not a path."""
    write_ollama(tmp_path, [("model", gguf)])
    path = tmp_path / "manifests/registry.ollama.ai/library/tiny/latest"
    manifest = json.loads(path.read_text())
    manifest["layers"][0]["digest"] = digest
    path.write_text(json.dumps(manifest))
    (model,) = ollama.read(tmp_path)
    assert "no digest" in model.problem and not model.files


def test_docker_models_have_each_of_their_tags(tmp_path: Path, gguf: bytes) -> None:
    """Docker Model Runner's tags become full names; a model without one goes by its digest."""
    first, second = write_docker(
        tmp_path,
        {gguf: ["ai/tiny:latest", "index.docker.io/me/tiny:v2", "huggingface.co/org/tiny:Q4_K_M"], b"GGUF": []},
    )
    found = by_name(docker.read(tmp_path))
    short = second[7:19]
    assert sorted(found) == [
        "docker.io/ai/tiny:latest",
        "docker.io/me/tiny:v2",
        "hf.co/org/tiny:Q4_K_M",
        f"localhost/docker/{short}:latest",
    ]
    assert found["docker.io/ai/tiny:latest"].manifest == docker_model(gguf)[0]
    (tmp_path / "manifests/sha256" / first[7:]).write_bytes(b"{}")
    assert "not what its name says" in by_name(docker.read(tmp_path))["docker.io/me/tiny:v2"].problem


def test_hub_models_are_named_by_quantization_or_file(tmp_path: Path, gguf: bytes) -> None:
    """GGUF files of the Hugging Face cache go by their quantization where it tells one from another, else by file."""
    write_hub(
        tmp_path,
        "org/Tiny-GGUF",
        {
            "Tiny-Q4_K_M.gguf": gguf + b"1",
            "Tiny-Q8_0.gguf": gguf + b"2",
            "other-Q8_0.gguf": gguf + b"3",
            "mmproj-F16.gguf": b"GGUFp",
            "mmproj-BF16.gguf": b"GGUFq",
            "imatrix.gguf": b"GGUFi",
            "README.md": b"# Tiny",
            "BF16/Tiny-BF16-00001-of-00002.gguf": b"GGUFa",
            "BF16/Tiny-BF16-00002-of-00002.gguf": b"GGUFb",
            "F32/Tiny-F32-00002-of-00003.gguf": b"GGUFc",
        },
    )
    found = by_name(huggingface.read(tmp_path))
    assert sorted(found) == [
        "hf.co/org/Tiny-GGUF/Tiny-Q8_0.gguf",
        "hf.co/org/Tiny-GGUF/other-Q8_0.gguf",
        "hf.co/org/Tiny-GGUF:BF16",
        "hf.co/org/Tiny-GGUF:F32",
        "hf.co/org/Tiny-GGUF:Q4_K_M",
    ]
    assert roles(found["hf.co/org/Tiny-GGUF:Q4_K_M"]) == [
        ("weights", "Tiny-Q4_K_M.gguf"),
        ("mmproj", "mmproj-F16.gguf"),
    ]
    assert [role for role, _ in roles(found["hf.co/org/Tiny-GGUF:BF16"])] == ["weights", "shard", "mmproj"]
    assert found["hf.co/org/Tiny-GGUF:F32"].problem == "2 of its 3 files are missing"
    assert all(file.digest for model in found.values() for file in model.files)


def test_hub_safetensors_and_pinned_revisions(tmp_path: Path, gguf: bytes) -> None:
    """A safetensors repository is one model without its code; a snapshot that no ref names keeps its commit."""
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"{}",
        "modeling_x.py": b"import os",
        "model-00001-of-00002.safetensors": b"a",
        "model-00002-of-00002.safetensors": b"b",
    }
    write_hub(tmp_path, "org/Whole", files)
    write_hub(tmp_path, "org/Old-GGUF", {"old-Q8_0.gguf": gguf}, commit="d" * 40, main=False)
    write_hub(tmp_path, "org/Old-GGUF", {"old-Q8_0.gguf": gguf + b"new"})
    found = by_name(huggingface.read(tmp_path))
    assert sorted(found) == ["hf.co/org/Old-GGUF:Q8_0", f"hf.co/org/Old-GGUF:Q8_0@{'d' * 40}", "hf.co/org/Whole"]
    titles = [title for _, title in roles(found["hf.co/org/Whole"])]
    weights = [name for name in files if name.startswith("model-")]
    assert titles == [*weights, "config.json", "tokenizer.json"]
    (tmp_path / "models--org--Whole/snapshots" / COMMIT / "model-00002-of-00002.safetensors").unlink()
    assert by_name(huggingface.read(tmp_path))["hf.co/org/Whole"].problem == "1 of its 2 files are missing"


def test_lm_studio_settings_move_its_folder(tmp_path: Path, gguf: bytes) -> None:
    """LM Studio's models are found where its settings put them, and named after its folders."""
    home, moved = tmp_path / "home", tmp_path / "disk" / "llms"
    (home / ".lmstudio").mkdir(parents=True)
    (home / ".lmstudio" / "settings.json").write_text(json.dumps({"downloadsFolder": str(moved)}))
    for name in ("Pub/Tiny-GGUF/Tiny-Q4_K_M.gguf", "Pub/Tiny-GGUF/Tiny-Q8_0.gguf", "Pub/Plain/plain.gguf"):
        (moved / name).parent.mkdir(parents=True, exist_ok=True)
        (moved / name).write_bytes(gguf)
    places = lmstudio.places({"HOME": str(home)})
    assert places[0] == moved and home / ".lmstudio/models" in places
    found = by_name(list_models("lmstudio", env={"HOME": str(home)}))
    assert sorted(found) == [
        "localhost/lmstudio/pub/plain/plain:latest",
        "localhost/lmstudio/pub/tiny-gguf:q4_k_m",
        "localhost/lmstudio/pub/tiny-gguf:q8_0",
    ]


def test_llama_cpp_cache_old_and_new(tmp_path: Path, gguf: bytes) -> None:
    """llama.cpp's flat cache is named by the notes beside the files, and its newer layout as the Hugging Face cache."""
    flat = tmp_path / "llama.cpp"
    flat.mkdir()
    (flat / "org_Tiny-GGUF_sub_Tiny-Q4_K_M.gguf").write_bytes(gguf)
    note = {"ggufFile": {"rfilename": "sub/Tiny-Q4_K_M.gguf", "lfs": {"sha256": "e" * 64}}}
    (flat / "manifest=org=Tiny-GGUF=latest.json").write_text(json.dumps(note))
    (flat / "org_Old_old.gguf").write_bytes(gguf)
    url = "https://huggingface.co/org/Old/resolve/main/old.gguf"
    (flat / "org_Old_old.gguf.json").write_text(json.dumps({"url": url, "etag": '"x"'}))
    (flat / "loose-Q8_0.gguf").write_bytes(gguf)
    (flat / "partial.gguf.downloadInProgress").write_bytes(b"GG")
    write_hub(tmp_path / "huggingface/hub", "org/New-GGUF", {"New-Q8_0.gguf": gguf})
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    assert llamacpp.places({"LLAMA_CACHE": "/x"}) == [Path("/x")]
    found = by_name(list_models("llamacpp", env=env))
    assert sorted(found) == [
        "hf.co/org/New-GGUF:Q8_0",
        "hf.co/org/Old/old.gguf",
        "hf.co/org/Tiny-GGUF",
        "localhost/llamacpp/loose-q8_0:q8_0",
    ]
    assert found["hf.co/org/Tiny-GGUF"].files[0].digest == "sha256:" + "e" * 64


def test_only_peers_that_are_here_are_found(tmp_path: Path, gguf: bytes) -> None:
    """Peers are found by their directories; asking for one that is not here says where was looked."""
    write_ollama(tmp_path / ".ollama/models", [("model", gguf)])
    env = {"HOME": str(tmp_path)}
    assert "ollama" in [peer.key for peer in find_peers(env)]
    with pytest.raises(NotFound) as none:
        list_models("lmstudio", env=env)
    assert str(tmp_path / ".lmstudio/models") in none.value.hint
    with pytest.raises(NotFound, match="no importing"):
        list_models("gpt4all", env=env)
    models = list_models("ollama", place=tmp_path / ".ollama/models")
    assert find_model(models, "tiny") is find_model(models, "ollama://tiny") is models[0]
    with pytest.raises(NotFound):
        find_model(models, "other")


def test_roots_are_listed_without_being_touched(tmp_path: Path, gguf: bytes) -> None:
    """A root of plain files is listed by path; a root that is not mounted has no models."""
    root = tmp_path / "share"
    for name in ("qwen/Qwen3-8B-Q4_K_M.gguf", "qwen/mmproj-F16.gguf", "top.gguf", ".trash/old.gguf"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(gguf)
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    found = {model.label: model for model in list_roots([tmp_path / "not-mounted", root])}
    assert sorted(found) == ["qwen/Qwen3-8B-Q4_K_M", "top"]
    assert found["qwen/Qwen3-8B-Q4_K_M"].projector == root / "qwen/mmproj-F16.gguf"
    assert found["qwen/Qwen3-8B-Q4_K_M"].main == root / "qwen/Qwen3-8B-Q4_K_M.gguf"
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before
    (alone,) = models_in(root / "top.gguf")
    assert alone.main == root / "top.gguf"


def test_a_root_may_be_another_tools_store(tmp_path: Path, gguf: bytes) -> None:
    """Of Ollama's store as a root, models of one file are served; a split one must be imported to have its names."""
    write_ollama(tmp_path, [("model", gguf)])
    write_ollama(tmp_path, [("model", gguf), ("model", gguf + b"2")], name="registry.ollama.ai/library/split/latest")
    found = {model.label: model for model in list_roots([tmp_path])}
    assert found["tiny:latest"].main is not None and not found["tiny:latest"].problem
    assert "import it" in found["split:latest"].problem


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a link in another user's name")
def test_a_strangers_link_does_not_lead_out(tmp_path: Path) -> None:
    """Another user's link out of their directory is refused: it could publish a private file. One's own is followed."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    place = tmp_path / "place"
    place.mkdir()
    (place / "inside").write_text("theirs")
    for name, target in (("out", secret), ("in", place / "inside"), ("own", secret)):
        (place / name).symlink_to(target)
        if name != "own":
            os.chown(place / name, 65534, 65534, follow_symlinks=False)
    assert followed(place / "own", place) == (secret, 4)
    assert followed(place / "in", place)[0] == place / "inside"
    with pytest.raises(ModelFileError, match="another user's link"):
        followed(place / "out", place)


def test_only_regular_files_are_followed_to(tmp_path: Path) -> None:
    """Pipes, directories, circles and loose ends are refused without waiting on any of them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "loose").symlink_to("nowhere")
    for name in ("pipe", "folder", "a", "loose"):
        with pytest.raises(ModelFileError):
            followed(tmp_path / name, tmp_path)


def test_walking_ends_where_links_go_in_circles(tmp_path: Path) -> None:
    """A linked directory is entered once, however often and wherever it is linked."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    (tmp_path / "a/b/up").symlink_to(tmp_path)
    (tmp_path / "a/again").symlink_to(tmp_path / "a/b")
    assert len([path for path in files_under(tmp_path) if path.name == "file"]) == 1


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=40)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS)
def test_every_made_up_name_can_be_typed(parts: list[str], tag: str) -> None:
    """Whatever a file is called, the name made for it is a reference that reads back as itself."""
    name = local_ref("root", parts, tag).name
    assert parse_ref(name).name == name


@given(st.lists(st.tuples(WORDS, WORDS).map(lambda pair: PurePosixPath(pair[0]) / f"{pair[1]}.gguf"), max_size=12))
def test_every_gguf_file_is_in_one_group(names: list[PurePosixPath]) -> None:
    """Each file of weights is in exactly one model, and no model has a file twice."""
    found = groups(names)
    weights = [name for group in found for name in group.weights]
    assert len(weights) == len(set(weights)) and set(weights) <= set(names)
    for group in found:
        members = [name for _, name in group.members]
        assert len(members) == len(set(members))


def test_a_place_that_goes_away_is_empty(tmp_path: Path, gguf: bytes) -> None:
    """A store that is removed while it is read has no models rather than an error of the disk."""
    write_ollama(tmp_path / "o", [("model", gguf)])
    reading = ollama.read(tmp_path / "o")
    shutil.rmtree(tmp_path / "o")
    assert list(reading) == []
