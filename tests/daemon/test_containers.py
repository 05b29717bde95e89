"""A real llama.cpp in real rootless containers of Podman, under a real server: it answers, dies, hangs, is adopted, and
is shut in as promised."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from corral.api import EventInfo
from corral.config.paths import Paths
from corral.errors import CorralError
from corral.runners.containers.naming import STATE, state_id
from support import podman
from support.containers import (
    WORDS,
    cleaned,
    config,
    engine_inside,
    for_root,
    inspected,
    label,
    log_of,
    model_file,
    say,
    service,
    unit,
)
from support.podman import Server
from support.server import Server as OwnServer
from support.server import until

pytestmark = [pytest.mark.podman, pytest.mark.timeout(400)]

TEXT = " ".join(WORDS)


def test_one_word_moves_a_model_into_a_container() -> None:
    """The same entry says the same under both runners; the log is there; after a stop nothing is left."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths):
        both = config(user, paths) + config(user, paths, runner="process", name="p").partition("\n")[2]
        with Server(paths, config=both) as server:
            assert say(server, "p") == TEXT
            assert say(server) == TEXT
            row = unit(server)
            assert row.runner == "podman" and row.memory_bytes is not None and row.memory_bytes > 8 << 20
            assert (
                any("limits not enforced" in each for each in row.warnings)
                or inspected(user, paths)["HostConfig"]["Memory"]
            )
            assert any("not locked" in each for each in row.warnings)
            assert "loading model" in log_of(server)
            assert len(user.containers(label(paths))) == 1
            server.client.stop("m")
            assert user.containers(label(paths)) == []
            assert [each.name for each in paths.units_dir.iterdir() if each.name.startswith("m-")] == []
            assert not list((paths.state_dir / "containers" / "podman").iterdir())


def test_it_is_shut_in() -> None:
    """Seen from the inside, and as Podman says: no way to write, no network, no capability, no device but its own."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), Server(paths, config=config(user, paths)) as server:
        assert say(server) == TEXT
        row = unit(server)
        told = inspected(user, paths)
        host = told["HostConfig"]
        assert host["ReadonlyRootfs"] and host["NetworkMode"] == "none"
        assert not told["EffectiveCaps"] and not told["BoundingCaps"]
        assert "no-new-privileges" in str(host["SecurityOpt"]) or told["Config"]["Annotations"] is not None
        assert not host["Privileged"] and host["Devices"] == []
        assert "label=disable" not in str(host["SecurityOpt"])
        writable = sorted(each["Destination"] for each in told["Mounts"] if each["RW"])
        folder = Path(row.endpoint.removeprefix("unix:")).parent
        assert writable == [str(folder)]
        assert [each["Destination"] for each in told["Mounts"] if not each["RW"]] == [str(paths.data_dir / "m.gguf")]

        pid = engine_inside(row)
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert int(status["Uid"].split()[0]) not in (0, user.uid), "neither root nor the user's own"
        for space in ("net", "pid", "mnt", "ipc", "uts", "user"):
            assert Path(f"/proc/{pid}/ns/{space}").readlink() != Path(f"/proc/self/ns/{space}").readlink(), space

        def inside(script: str) -> str:
            return user.podman("exec", told["Name"], "/bin/sh", "-c", script)

        places = (
            f"/ /etc /usr /app /dev /dev/shm /run /var/tmp /sys /proc /sys/fs/cgroup {paths.data_dir} /tmp {folder}"
        )
        wrote = inside(f"for at in {places}; do (: > $at/x) 2>/dev/null && echo $at; done; true").split()
        assert wrote == ["/tmp", str(folder)]
        assert inside(f"(: >> {paths.data_dir}/m.gguf) 2>/dev/null || echo refused") == "refused"
        assert inside("cat /proc/net/dev | tail -n +3 | cut -d: -f1").split() == ["lo"]
        assert inside("cat /proc/net/route | tail -n +2") == ""
        shown = set(inside("ls /dev").split())
        plain = {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty"}
        assert shown - {"shm"} <= plain | {"urandom", "zero", "console", "core"}
        assert inside("cat /proc/1/environ 2>/dev/null | tr '\\0' '\\n' | grep -c CORRAL; true") == "0"


def test_killed_inside_it_is_told_so_and_comes_back() -> None:
    """KILL of the engine itself, from within its container: seen as that signal; the next request has another."""
    user = podman.user()
    with (
        podman.directories(user) as paths,
        cleaned(user, paths),
        Server(paths, config=config(user, paths, "preload: true")) as server,
    ):
        assert say(server) == TEXT
        first = unit(server)
        name = podman.only(user.containers(label(paths)))
        script = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = llama-server ] && kill -9 ${p#/proc/}; done; true'
        user.run("podman", "exec", name, "/bin/sh", "-c", script, check=False)
        assert say(server) == TEXT
        second = unit(server)
        assert second.generation > first.generation and second.restarts == 1
        ended = [each for each in server.client.events(model="m") if each.data.get("event") == "failed"]
        assert "KILL" in ended[0].text or "killed" in ended[0].text
        until(lambda: name not in user.containers(label(paths)), "the first container is gone")


def test_one_that_hangs_is_replaced() -> None:
    """Stopped inside, it answers nobody: it is killed, and another comes."""
    user = podman.user()
    more = "timeouts: {hang: 2s}\n"
    with (
        podman.directories(user) as paths,
        cleaned(user, paths),
        Server(paths, config=config(user, paths, "preload: true") + more) as server,
    ):
        assert say(server) == TEXT
        first = unit(server)
        os.kill(engine_inside(first), signal.SIGSTOP)
        until(lambda: any(each.kind == "unit.hung" for each in server.client.events(model="m")), "it is found", 60)
        assert say(server) == TEXT
        assert unit(server).generation > first.generation


@pytest.mark.parametrize("how", ["killed", "told to leave them"])
def test_another_server_adopts_it(how: str) -> None:
    """The engine outlives its server and is taken over, the same process, by its record."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), Server(paths, config=config(user, paths)) as server:
        assert say(server) == TEXT
        before = unit(server)
        assert server.process is not None
        if how == "killed":
            server.kill()
        else:
            server.process.send_signal(signal.SIGUSR1)
            server._wait()
        assert len(user.containers(label(paths))) == 1
        server.start()
        after = unit(server)
        assert (after.pid, after.generation, after.state) == (before.pid, before.generation, "ready")
        assert say(server) == TEXT
        server.client.stop("m")
        assert user.containers(label(paths)) == []


def test_one_that_goes_with_its_server_is_ended_by_the_next() -> None:
    """`leash: die-with-daemon`: it is not adopted, and nothing of it is left."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), Server(paths, config=config(user, paths)) as server:
        assert say(server) == TEXT
        first = unit(server)
        server.kill()
        (record,) = (paths.state_dir / "containers" / "podman").iterdir()
        data = json.loads(record.read_text())
        data["plan"]["launch_plan"]["leash"] = "die-with-daemon"
        record.write_text(json.dumps(data))
        user.owns(record)
        server.start()
        assert user.containers(label(paths)) == [] and not record.exists()
        assert say(server) == TEXT and unit(server).pid != first.pid


def test_its_buffers_are_measured() -> None:
    """A container's engine reports what it allocates as a plain process does, and the next start knows it."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), Server(paths, config=config(user, paths)) as server:
        assert say(server) == TEXT
        until(lambda: unit(server).footprint_origin == "measured", "its figures", 60)
        assert "--log-verbosity" in inspected(user, paths)["Config"]["Cmd"]
        server.client.stop("m")
        assert say(server) == TEXT
        assert "--log-verbosity" not in inspected(user, paths)["Config"]["Cmd"]


def test_what_a_killed_server_had_half_made_is_removed() -> None:
    """A container that was created and never started, one without a record, and one that ended: all go at the start."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths):
        state = state_id(os.fsencode(paths.state_dir))
        with Server(paths, config=config(user, paths)) as server:
            assert say(server) == TEXT
            name = podman.only(user.containers(label(paths)))
            server.kill()
            user.podman("kill", name)
            for each in ("half", "unknown"):
                user.podman(
                    "create", "--name", f"corral-{state}-{each}.1", "--label", f"{STATE}={state}",
                    user.images["llama.cpp"],
                )  # fmt: skip
            records = paths.state_dir / "containers" / "podman"
            data = json.loads((records / f"{name}.json").read_text())
            half = records / f"corral-{state}-half.1.json"
            half.write_text(json.dumps({**data, "name": f"corral-{state}-half.1"}))
            user.owns(records)
            server.start()
            assert user.containers(label(paths)) == []
            assert not list(records.iterdir())
            told = [each.text for each in server.client.events() if "ended while no server ran" in each.text]
            assert told
            assert say(server) == TEXT


def test_an_image_that_is_not_here_is_one_clear_error() -> None:
    """No start fetches an image: it says how."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths):
        text = config(user, paths).replace(user.images["llama.cpp"], "localhost/corral/nothing:1")
        with Server(paths, config=text) as server:
            with pytest.raises(CorralError) as error:
                server.client.start("m")
            assert error.value.code == "engine_missing" and "localhost/corral/nothing:1" in error.value.message
            assert "corral image" in error.value.hint
            assert user.containers(label(paths)) == []


def test_an_image_other_than_the_locked_one_is_refused() -> None:
    """A lock that says another digest stops the start; the right one takes the warning away."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths):
        reference = user.images["llama.cpp"]
        lock = paths.config_dir / "images.lock.json"
        with Server(paths, config=config(user, paths)) as server:
            lock.write_text(json.dumps({reference: "sha256:" + "0" * 64}))
            user.owns(paths.config_dir)
            with pytest.raises(CorralError, match="not the one that was locked"):
                server.client.start("m")
            server.client.stop("m")  # which forgets the failure, and the pause after it
            digest = user.podman("image", "inspect", "--format", "{{.Digest}}", reference)
            lock.write_text(json.dumps({reference: digest}))
            assert say(server) == TEXT
            assert not any("not locked" in each for each in unit(server).warnings)


def test_by_the_api_alone() -> None:
    """`CONTAINER_HOST` names Podman's API: everything goes through it, the log is followed, and paths may be odd."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), service(user, paths) as socket:
        text = config(user, paths)
        odd = paths.data_dir / 'o:d,d "m".gguf'
        (paths.data_dir / "m.gguf").rename(odd)
        text = text.replace(str(paths.data_dir / "m.gguf"), f"'{odd}'")
        with Server(paths, config=text, env={"CONTAINER_HOST": f"unix://{socket}"}) as server:
            assert say(server) == TEXT
            before = unit(server)
            until(lambda: "loading model" in log_of(server), "the log is followed")
            server.kill()
            server.start()
            assert unit(server).pid == before.pid
            assert say(server) == TEXT
            server.client.stop("m")
            assert user.containers(label(paths)) == []


def test_docker_s_program_against_podman_s_api() -> None:
    """`runner: docker` as far as it can be run without Docker's engine: its program, and Podman's imitation of it."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), service(user, paths) as socket:
        text = config(user, paths, runner="docker")
        with Server(paths, config=text, env={"DOCKER_HOST": f"unix://{socket}"}) as server:
            assert say(server) == TEXT
            row = unit(server)
            assert row.runner == "docker"
            host = inspected(user, paths)["HostConfig"]
            assert host["ReadonlyRootfs"] and host["NetworkMode"] == "none" and host["CapDrop"]
            until(lambda: "loading model" in log_of(server), "the log is followed")
            server.kill()
            server.start()
            assert unit(server).pid == row.pid
            server.client.stop("m")
            assert user.containers(label(paths)) == []


def test_a_model_that_only_its_user_may_read() -> None:
    """A private file is read all the same: as root inside, who is the user outside and has no capability."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths):
        text = config(user, paths)
        model_file(user, paths).chmod(0o600)
        with Server(paths, config=text) as server:
            assert say(server) == TEXT
            pid = engine_inside(unit(server))
            assert Path(f"/proc/{pid}").stat().st_uid == user.uid
            assert "CapEff:\t" + "0" * 16 in Path(f"/proc/{pid}/status").read_text()


def test_what_is_shown_is_what_runs() -> None:
    """`corral start --dry-run` prints the very command line that Podman then says it was given."""
    user = podman.user()
    with podman.directories(user) as paths, cleaned(user, paths), Server(paths, config=config(user, paths)) as server:
        planned = server.client.plan("m")
        assert planned.runner == "podman" and planned.image == user.images["llama.cpp"]
        assert user.containers(label(paths)) == []
        said = user.corral("start", "m", "--dry-run", paths=paths).stdout
        assert "podman run --detach" in said and "--cap-drop all" in said and "--network none" in said
        assert say(server) == TEXT
        ran = inspected(user, paths)["Config"]["CreateCommand"]
        assert [Path(ran[0]).name, *ran[1:]] == planned.command


def test_one_that_takes_more_memory_than_it_may(paths: Paths) -> None:
    """As root, where limits are kept: it is ended by the kernel, that is said, and it is started again by a smaller
    plan. Nothing of it is left."""
    user = podman.user()
    text = config(user, paths, "preload: true")
    with for_root(user) as env, OwnServer(paths, config=text, env=env) as server:
        whole = {**os.environ, **env}

        def ran(*words: str) -> str:
            return subprocess.run(["podman", *words], env=whole, capture_output=True, text=True, check=False).stdout

        assert say(server) == TEXT
        first = unit(server)
        assert not any("limits not enforced" in each for each in first.warnings)
        name = podman.only(ran("ps", "--format", "{{.Names}}", "--filter", label(paths)).split())
        [told] = json.loads(ran("container", "inspect", name))
        assert told["HostConfig"]["Memory"] > 512 << 20 and told["HostConfig"]["PidsLimit"] == 1024
        assert "CapEff:\t" + "0" * 16 in Path(f"/proc/{engine_inside(first)}/status").read_text()

        def ended() -> list[EventInfo]:
            return server.client.events(model="m")

        ran("exec", name, "/bin/sh", "-c", "cat /dev/zero > /tmp/x")  # what is in /tmp counts
        until(lambda: any("its memory limit of " in each.text for each in ended()), "its end", 60)
        assert say(server) == TEXT
        assert unit(server).generation > first.generation
        server.client.stop("m")
        assert ran("ps", "--all", "--format", "{{.Names}}", "--filter", label(paths)).split() == []
