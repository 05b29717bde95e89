"""`corral deploy` as a command: which address it finds, the key, what it prints, what it will not overwrite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from corral.config.paths import Paths
from support.server import Server

DEMO = "models: [{name: demo, source: 'builtin:demo'}]\n"


def deploy(
    server: Server, *words: str, code: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "corral", "deploy", *words], env=server.environment | (env or {}), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


def job(folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    return dict(config["scrape_configs"][0])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def configured(paths: Paths, config: str) -> Server:
    """One that does not run."""
    server = Server(paths, config)
    server.write(config)
    return server


def test_a_server_that_runs(paths: Paths, out: Path) -> None:
    """The address is the one it listens on, on whichever port; what was written is said, and what comes next."""
    with Server(paths, DEMO) as server:
        done = deploy(server, "prometheus", "--out", str(out))
        assert job(out)["static_configs"] == [{"targets": [server.url.removeprefix("http://")]}]
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["new", str(out / name)]
        for name in ("prometheus.yml", "rules/corral-figures.yml", "rules/corral-alerts.yml", "tests/corral.yml")
    ]
    assert f"prometheus --config.file={out}/prometheus.yml" in done.stderr
    assert "authorization" not in job(out)


def test_a_server_that_does_not_run(paths: Paths, out: Path) -> None:
    """The configuration's own address, with its rules about keys; the key is named by its file and not made."""
    server = configured(paths, "listen: 127.0.0.1:9999\nrequire_keys: true\n" + DEMO)
    done = deploy(server, "prometheus", "--out", str(out))
    assert job(out)["static_configs"] == [{"targets": ["127.0.0.1:9999"]}]
    assert job(out)["authorization"] == {"type": "Bearer", "credentials_file": "corral.key"}
    assert "corral keys create --name prometheus --scope metrics" in done.stderr
    assert not (out / "corral.key").exists()


def test_a_key_is_made_once(paths: Paths, out: Path) -> None:
    """--make-key keeps a key of the scope metrics in a file of its own, which the configuration names; again, that one
    stays. The secret is in nothing else, and is not printed."""
    server = configured(paths, "require_keys: true\n" + DEMO)
    first = deploy(server, "prometheus", "--out", str(out), "--make-key")
    secret = (out / "corral.key").read_text()
    assert secret.startswith("ck_") and (out / "corral.key").stat().st_mode & 0o777 == 0o600
    again = deploy(server, "prometheus", "--out", str(out), "--make-key")
    assert (out / "corral.key").read_text() == secret
    texts = [first.stdout, first.stderr, again.stdout, again.stderr]
    texts += [file.read_text() for file in out.rglob("*") if file.is_file() and file.name != "corral.key"]
    assert not [text for text in texts if secret.strip().rpartition("_")[2] in text]
    listed = subprocess.run(
        [sys.executable, "-m", "corral", "--json", "keys", "list"], env=server.environment, capture_output=True,
        text=True, check=True, timeout=60,
    )  # fmt: skip
    assert [(key["name"], key["scopes"]) for key in json.loads(listed.stdout)] == [("prometheus", ["metrics"])]


def test_the_own_authority(paths: Paths, out: Path) -> None:
    """Where the certificate is from `corral tls init`, Prometheus gets a copy of the authority's and trusts it."""
    tls = paths.tls_dir
    listen = f"listen: [{{address: '0.0.0.0:8643', tls: {{cert: {tls}/server.pem, key: {tls}/server-key.pem}}}}]\n"
    server = configured(paths, listen + DEMO)
    subprocess.run(
        [sys.executable, "-m", "corral", "tls", "init"], env=server.environment, check=True, capture_output=True,
        timeout=60,
    )  # fmt: skip
    deploy(server, "prometheus", "--out", str(out))
    assert (job(out)["scheme"], job(out)["tls_config"]) == ("https", {"ca_file": "ca.pem"})
    assert (out / "ca.pem").read_text() == (tls / "ca.pem").read_text()
    assert job(out)["static_configs"] == [{"targets": ["127.0.0.1:8643"]}] and "authorization" in job(out)


def test_an_address_of_ones_own(paths: Paths, out: Path) -> None:
    """--address is what Prometheus gets, with the path before it; a key of a file is named by its whole path."""
    server, key = configured(paths, DEMO), out.parent / "key"
    deploy(
        server, "prometheus", "--out", str(out), "--address", "https://box.example.org/corral", "--key-file", str(key)
    )
    made = job(out)
    assert (made["scheme"], made["metrics_path"]) == ("https", "/corral/metrics")
    assert made["static_configs"] == [{"targets": ["box.example.org:443"]}]
    assert made["authorization"]["credentials_file"] == str(key)


def test_unix_sockets_alone(paths: Paths, out: Path) -> None:
    """A server without a TCP address cannot be scraped, and the error says what to add."""
    server = configured(paths, f"listen: unix:{paths.runtime_dir}/x.sock\n" + DEMO)
    done = deploy(server, "prometheus", "--out", str(out), code=5)
    assert "no TCP address" in done.stderr and "127.0.0.1:8642" in done.stderr
    assert not out.exists()


def test_changed_files(paths: Paths, out: Path) -> None:
    """A file that somebody changed stops the command, which names it and --force."""
    server = configured(paths, DEMO)
    deploy(server, "grafana", "--out", str(out))
    (out / "dashboards/corral-model.json").write_text("{}")
    done = deploy(server, "grafana", "--out", str(out), "--every", "15s", code=5)
    assert "dashboards/corral-model.json" in done.stderr and "--force" in done.stderr
    assert "timeInterval: 5s" in (out / "provisioning/datasources/corral.yml").read_text()
    forced = deploy(server, "grafana", "--out", str(out), "--every", "15s", "--force")
    assert f"overwritten {out}/dashboards/corral-model.json" in forced.stdout
    assert "timeInterval: 15s" in (out / "provisioning/datasources/corral.yml").read_text()


def test_for_programs(paths: Paths, out: Path) -> None:
    """--json tells the folder, each file with what became of it, and the commands that come next."""
    server = configured(paths, DEMO)
    told = json.loads(deploy(server, "grafana", "--out", str(out), "--json").stdout)
    assert (told["target"], told["folder"]) == ("grafana", str(out))
    assert {Path(each["path"]).name for each in told["files"]} >= {"corral-overview.json", "corral.yml"}
    assert {each["how"] for each in told["files"]} == {"new"}
    assert any("GF_PATHS_PROVISIONING" in each["command"] for each in told["next"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every", "2m"], "each minute at least"),
        (["--every", "1.5s"], "whole seconds"),
        (["--errors-over", "120%"], "not a share"),
        (["--errors-over", "lots"], "not a share"),
        (["--first-token-over", "5m"], "between 5ms and 160s"),
        (["--memory-free-under", "much"], "not a size"),
        (["--queue-for", "soon"], "not a duration"),
    ],
)
def test_limits_that_cannot_be(paths: Paths, out: Path, words: list[str], said: str) -> None:
    """What is no limit is refused by its option, before anything is written."""
    done = deploy(configured(paths, DEMO), "prometheus", "--out", str(out), *words, code=2)
    assert said in done.stderr and words[0] in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("word", ["foo", "box:9090", "ftp://box", "http://", "http://a b", "unix:/run/x.sock"])
def test_a_prometheus_that_is_no_address(paths: Paths, out: Path, word: str) -> None:
    """What Grafana could not ask is refused, and nothing is written."""
    done = deploy(configured(paths, DEMO), "grafana", "--out", str(out), "--prometheus", word, code=2)
    assert f"{word!r} is not a URL such as http://127.0.0.1:9090" in " ".join(done.stderr.split())
    assert not out.exists()


def test_a_prometheus_elsewhere(paths: Paths, out: Path) -> None:
    deploy(configured(paths, DEMO), "grafana", "--out", str(out), "--prometheus", "https://box.example.org/prometheus")
    (source,) = yaml.safe_load((out / "provisioning/datasources/corral.yml").read_text())["datasources"]
    assert source["url"] == "https://box.example.org/prometheus"


def test_where_corral_is_is_said_as_it_is(paths: Paths, out: Path) -> None:
    done = deploy(configured(paths, "listen: 127.0.0.1:9999\n" + DEMO), "prometheus", "--out", str(out))
    assert "Corral is at 127.0.0.1:9999" in done.stderr and "8642" not in done.stderr
