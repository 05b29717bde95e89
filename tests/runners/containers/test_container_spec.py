"""One plan gives one container, the same by a command line and by Podman's API, whatever its names and values are."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engines.plan import Endpoint, Footprint, LaunchPlan, Limits, Mount
from corral.errors import StartFailed
from corral.runners.containers import argv, body, naming
from corral.runners.containers.host import ROOT, Host, Kind
from corral.runners.containers.spec import NOBODY, ContainerSpec, doubts, identity, spec_of

LIMITED = Host("podman", "5.0", rootless=True, enforces=frozenset({"memory", "pids"}), runtime="crun")
UNLIMITED = Host("podman", "4.3.1", rootless=True, why_not="cgroup v1", runtime="runc")
AS_ROOT = Host("podman", "5.0", rootless=False, enforces=frozenset({"memory", "pids"}), subuids=True)
DOCKER = Host("docker", "28", rootless=False, enforces=frozenset({"memory", "pids"}), owner="1000:1000")

KINDS: tuple[Kind, ...] = ("podman", "docker")

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
segments = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
files = st.builds(lambda parts: Path("/", *parts), st.lists(segments, min_size=1, max_size=3))
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,15}", fullmatch=True)


def plan(
    *, unit: str = "m.1", source: Path = Path("/models/m.gguf"), words: Sequence[str] = (), nodes: tuple[str, ...] = ()
) -> LaunchPlan:
    return LaunchPlan(
        unit=unit,
        model=unit.rpartition(".")[0],
        generation=1,
        engine="llama.cpp",
        engine_version="b1",
        argv=("/app/llama-server", "--model", str(source), *words),
        endpoint=Endpoint(socket=Path("/run/u/m.1/s.sock")),
        footprint=Footprint({"cpu": 1 << 30}),
        mounts=(Mount(source, str(source)),),
        image="ghcr.io/x/llama.cpp:server",
        image_id="0" * 64,
        limits=Limits(2 << 30, 1024),
        nodes=nodes,
    )


def made(
    made_of: LaunchPlan, host: Host = LIMITED, *, readable: bool = True, env: Mapping[str, str] | None = None
) -> ContainerSpec:
    return spec_of(made_of, host, state="abcd1234", version="1", env=env or {}, readable=readable)


def test_the_command_line_of_a_plan() -> None:
    """Every word of it: nothing more is allowed than stands here."""
    spec = made(plan(), env={"A": "1", "HOME": "/tmp"})
    command = argv.run_command("podman", "podman", spec, log_driver="passthrough")
    assert " ".join(command.argv) == (
        "podman run --detach --name corral-abcd1234-m.1 --pull never --read-only --cap-drop all "
        "--security-opt no-new-privileges --network none --ipc none --no-healthcheck --restart no "
        "--tmpfs /tmp:rw,noexec,nosuid,nodev,size=536870912,mode=1777 "
        "--read-only-tmpfs=false --image-volume ignore --http-proxy=false --systemd=false "
        "--user 65532:65532 --umask 0000 --init --memory 2147483648 --pids-limit 1024 "
        "--label io.corral.state=abcd1234 --label io.corral.unit=m.1 --label io.corral.version=1 "
        "--log-driver passthrough --env A --env HOME=/tmp "
        "--volume /models/m.gguf:/models/m.gguf:ro,nosuid,nodev --volume /run/u/m.1:/run/u/m.1:rw,nosuid,nodev "
        f"--entrypoint /app/llama-server {'0' * 64} --model /models/m.gguf"
    )
    assert command.env == {"A": "1"}


def test_the_same_by_the_api() -> None:
    """The body says what the command line says."""
    told = body.create_body(made(plan(nodes=("/dev/kfd",)), env={"A": "1"}))
    assert told["read_only_filesystem"] and told["no_new_privileges"] and told["cap_drop"] == ["all"]
    assert not told["read_write_tmpfs"] and not told["httpproxy"] and told["image_volume_mode"] == "ignore"
    assert (told["netns"], told["ipcns"]) == ({"nsmode": "none"}, {"nsmode": "none"})
    assert told["resource_limits"] == {"memory": {"limit": 2 << 30}, "pids": {"limit": 1024}}
    assert [(each["destination"], each["type"], each["options"][:2]) for each in told["mounts"]] == [
        ("/tmp", "tmpfs", ["rw", "noexec"]),
        ("/models/m.gguf", "bind", ["rbind", "ro"]),
        ("/run/u/m.1", "bind", ["rbind", "rw"]),
    ]
    assert told["entrypoint"] == ["/app/llama-server"] and told["command"] == ["--model", "/models/m.gguf"]
    assert told["devices"] == [{"path": "/dev/kfd"}] and told["annotations"] == {"run.oci.keep_original_groups": "1"}
    assert "privileged" not in told and "umask" not in told, "devices are opened as our own user"


def test_an_engine_that_makes_code_and_shares_memory() -> None:
    """It may load what it puts into /tmp, and has a /dev/shm that is its own: nothing else changes."""
    usual, wider = made(plan()), made(replace(plan(), makes_code=True, shared_bytes=1 << 30))
    before = argv.run_command("podman", "podman", usual, log_driver="none").argv
    after = argv.run_command("podman", "podman", wider, log_driver="none").argv
    assert [word for word in after if word not in before] == [
        "private", "--shm-size", "1073741824b", "/tmp:rw,exec,nosuid,nodev,size=536870912,mode=1777",
    ]  # fmt: skip
    told = body.create_body(wider)
    assert told["ipcns"] == {"nsmode": "private"} and told["shm_size"] == 1 << 30
    assert told["mounts"][0]["options"][1] == "exec" and "shm_size" not in body.create_body(usual)


@given(text)
def test_any_unit_s_container_has_a_name_that_can_be_one(model: str) -> None:
    """It is one that container engines take, and different models have different ones."""
    name = naming.container_name("abcd1234", f"{model}.7")
    assert naming._PLAIN.fullmatch(name) and len(name) <= 120
    other = naming.container_name("abcd1234", f"{model}x.7")
    assert name != other and name.startswith("corral-abcd1234-")


@given(st.dictionaries(names, text, max_size=5), st.lists(text, max_size=4), text)
def test_any_environment_and_arguments_arrive_and_no_value_is_an_argument(
    env: dict[str, str], words: list[str], model: str
) -> None:
    """Values pass through the program's own environment, but for names that would lead that program itself."""
    spec = made(plan(unit=f"{model}.1", words=words), env=env)
    for kind in KINDS:
        command = argv.run_command(kind, kind, spec, log_driver="none")
        assert command.argv[-len(words) :] == tuple(words) if words else True
        at = command.argv.index("--entrypoint")
        options = command.argv[:at]
        passed = {options[i + 1] for i, word in enumerate(options) if word == "--env"}
        assert {each.partition("=")[0] for each in passed} == set(env)
        for name, value in env.items():
            assert (command.env.get(name) == value and name in passed) or f"{name}={value}" in passed
            assert (name in command.env) == (argv._LEADING.fullmatch(name) is None)
    assert json.loads(json.dumps(body.create_body(spec)))["env"] == env


@given(files)
def test_any_path_is_mounted_or_refused(path: Path) -> None:
    """Read back as the programs read it, the mount is that path; what cannot be said is an error, no other path."""
    spec = made(plan(source=path))
    for kind in KINDS:
        try:
            command = argv.run_command(kind, kind, spec, log_driver="none").argv
        except StartFailed as error:
            assert kind == "podman" and error.hint
            assert set(str(path)) & set(':"\n\r\\'), path
            continue
        word, value = next(
            (command[i], command[i + 1]) for i, each in enumerate(command) if each in ("--volume", "--mount")
        )
        if word == "--volume":
            source, target, options = value.split(":")
            assert options.split(",")[0] == "ro"
        else:
            fields = value.split(",") if kind == "podman" else next(csv.reader([value], strict=True))
            told = dict(each.partition("=")[::2] for each in fields)
            source, target = told["source"], told["target"]
            assert told["type"] == "bind" and ("readonly" in told or told.get("ro") == "true")
        assert source == target == str(path)
    assert body.create_body(spec)["mounts"][1]["source"] == str(path)


def test_whom_an_engine_runs_as() -> None:
    """Nobody, wherever it can: else our own user, who is root inside a rootless container only."""
    assert identity(LIMITED, readable=True, devices=False) == (NOBODY, "")
    assert identity(LIMITED, readable=False, devices=False) == (ROOT, "")
    assert identity(LIMITED, readable=True, devices=True) == (ROOT, "")
    assert identity(AS_ROOT, readable=True, devices=False) == (NOBODY, "auto")
    assert identity(AS_ROOT, readable=False, devices=False) == (ROOT, "")
    assert identity(DOCKER, readable=True, devices=False) == ("1000:1000", "")


def test_limits_that_the_kernel_does_not_keep_are_not_asked_for_but_said() -> None:
    """Podman would ignore them silently."""
    spec = made(plan(), UNLIMITED)
    assert spec.memory_bytes is None and spec.pids is None
    assert doubts(UNLIMITED, NOBODY, "") == ("limits not enforced (memory and pids: cgroup v1)",)
    assert doubts(LIMITED, NOBODY, "") == ()
    alone = Host("podman", "5", rootless=False, enforces=frozenset({"memory", "pids"}))
    assert "no user namespace" in doubts(alone, NOBODY, "")[0]


def test_selinux_labels_only_where_it_is_enforced() -> None:
    """Shared for models, private for the socket; the label itself is never taken away."""
    host = Host("podman", "5", rootless=True, selinux=True)
    assert [each.label for each in made(plan(), host).binds] == ["z", "Z"]
    assert [each.label for each in made(plan(), LIMITED).binds] == ["", ""]
    words = argv.run_command("podman", "podman", made(plan(), host), log_driver="none").argv
    assert not any("label=" in word and "disable" in word for word in words)


@pytest.mark.parametrize(
    ("kind", "node", "words"),
    [
        ("podman", "/dev/dri/renderD128", ("--device", "/dev/dri/renderD128")),
        ("podman", "nvidia.com/gpu=1", ("--device", "nvidia.com/gpu=1")),
        ("docker", "nvidia.com/gpu=1", ("--gpus", '"device=1"')),
        ("docker", "nvidia.com/gpu=all", ("--gpus", "all")),
    ],
)
def test_devices_of_the_plan(kind: str, node: str, words: tuple[str, str]) -> None:
    """Each as the program wants it told."""
    host = LIMITED if kind == "podman" else DOCKER
    command = argv.run_command(kind, host.kind, made(plan(nodes=(node,)), host), log_driver="none").argv
    at = command.index(words[0])
    assert command[at : at + 2] == words
