"""`prometheus.yml`: where Corral is scraped, with which key, and which rules are held against it. Pure."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final

from corral.deploy.grown import JOB
from corral.deploy.prometheus.limits import Limits
from corral.deploy.site import Site
from corral.lazy_dataclass import dataclass

KEY_FILE: Final = "corral.key"
CA_FILE: Final = "ca.pem"
RULES: Final = "rules"


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever deploys wants of it."""

    limits: Limits = field(default_factory=Limits)
    every_s: int = 5
    key_file: str = KEY_FILE  # beside the configuration, or an absolute path
    alertmanager: str | None = None  # host:port


def scraping(site: Site, wish: Wish) -> dict[str, Any]:
    """The configuration. A key is read from its file at each scrape and stands nowhere in here."""
    job: dict[str, Any] = {
        "job_name": JOB,
        "metrics_path": site.metrics,
        "scheme": site.scheme,
        "static_configs": [{"targets": [site.authority]}],
    }
    if site.key:
        job["authorization"] = {"type": "Bearer", "credentials_file": wish.key_file}
    if site.tls and site.ca is not None:
        job["tls_config"] = {"ca_file": CA_FILE}
    every = f"{wish.every_s}s"
    data: dict[str, Any] = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": [f"{RULES}/*.yml"],
        "scrape_configs": [job],
    }
    if wish.alertmanager is not None:
        data["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [wish.alertmanager]}]}]}
    return data
