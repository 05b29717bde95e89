"""`corral deploy prometheus`: configuration, rules, and their tests as files. Pure."""

from __future__ import annotations

from corral.deploy.deployment import Deployment, File, Step
from corral.deploy.prometheus.alerts import alert_rules
from corral.deploy.prometheus.recording import recording_rules
from corral.deploy.prometheus.rule_tests import rule_tests
from corral.deploy.prometheus.scraping import CA_FILE, KEY_FILE, RULES, Wish, scraping
from corral.deploy.site import Site
from corral.deploy.yaml_text import yaml_text

CONFIG = "prometheus.yml"
FIGURES, ALERTS = f"{RULES}/corral-figures.yml", f"{RULES}/corral-alerts.yml"
TESTS = "tests/corral.yml"


def prometheus(site: Site, wish: Wish, folder: str, *, keyed: bool = False) -> Deployment:
    """The files of a Prometheus that scrapes `site`; `folder` is where they will be, as commands name it.

    `keyed`: the key that it may need is there, or about to be.
    """
    files = [
        File(
            CONFIG, yaml_text(scraping(site, wish), f"Prometheus scrapes Corral at {site.scheme}://{site.authority}.")
        ),
        File(FIGURES, yaml_text(recording_rules(), "Figures that dashboards and alerts share.")),
        File(
            ALERTS, yaml_text(alert_rules(wish.limits), "What is wrong with Corral; docs/operate.md says what to do.")
        ),
        File(TESTS, yaml_text(rule_tests(wish.limits), f"promtool test rules {TESTS}")),
    ]
    if site.tls and site.ca is not None:
        files.append(File(CA_FILE, site.ca))
    return Deployment("prometheus", tuple(files), _steps(site, wish, folder, keyed))


def _steps(site: Site, wish: Wish, folder: str, keyed: bool) -> tuple[Step, ...]:
    steps = [
        Step("Check it:", f"promtool check config {folder}/{CONFIG} && promtool test rules {folder}/{TESTS}"),
        Step(
            f"Run it (Corral is at {site.authority}; Prometheus's own pages will be at 127.0.0.1:9090):",
            f"prometheus --config.file={folder}/{CONFIG} --storage.tsdb.path={folder}/data "
            "--web.listen-address=127.0.0.1:9090",
        ),
        Step("See it in Grafana:", "corral deploy grafana"),
    ]
    if site.key and wish.key_file == KEY_FILE and not keyed:
        make = f"(umask 077; corral keys create --name prometheus --scope metrics > {folder}/{KEY_FILE})"
        steps.insert(0, Step("It needs a key; --make-key makes it, or:", make))
    return tuple(steps)
