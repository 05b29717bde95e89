"""`corral deploy grafana`: six dashboards, and the files with which a Grafana finds them. Pure."""

from __future__ import annotations

from typing import Any, Final

from corral.deploy.deployment import Deployment, File, Step
from corral.deploy.grafana.board import Board
from corral.deploy.grafana.devices import DEVICES
from corral.deploy.grafana.engines import ENGINES
from corral.deploy.grafana.model import MODEL
from corral.deploy.grafana.overview import OVERVIEW
from corral.deploy.grafana.storage import STORAGE
from corral.deploy.grafana.usage import USAGE
from corral.deploy.yaml_text import yaml_text
from corral.lazy_dataclass import dataclass

BOARDS: Final[tuple[Board, ...]] = (OVERVIEW, MODEL, DEVICES, STORAGE, USAGE, ENGINES)
DATASOURCE: Final = "corral-prometheus"


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever deploys wants of it."""

    prometheus: str = "http://127.0.0.1:9090"  # as Grafana reaches it
    every_s: int = 5  # how often Prometheus scrapes: rates need four scrapes
    dashboards: str | None = None  # the folder of the dashboards as Grafana sees it; None: where they are written


def grafana(wish: Wish, folder: str) -> Deployment:
    """The files for a Grafana that shows what `wish.prometheus` has; `folder` is where they will be."""
    seen = wish.dashboards or f"{folder}/dashboards"
    files = [
        File("provisioning/datasources/corral.yml", yaml_text(_datasource(wish), "Where Grafana asks.")),
        File("provisioning/dashboards/corral.yml", yaml_text(_provider(seen), "Where Grafana finds the dashboards.")),
        *(File(f"dashboards/{board.file}", board.text()) for board in BOARDS),
    ]
    steps = (
        Step(
            "Run a Grafana of its own with them:",
            f"GF_PATHS_PROVISIONING={folder}/provisioning GF_PATHS_DATA={folder}/data grafana server --homepath "
            "/usr/share/grafana",
        ),
        Step(
            "Or give them to the one there is, then restart it:",
            f"cp -r {folder}/provisioning/. /etc/grafana/provisioning/",
        ),
        Step("Each file of dashboards/ can also be imported by hand: Dashboards, New, Import."),
    )
    return Deployment("grafana", tuple(files), steps)


def _datasource(wish: Wish) -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Corral's Prometheus",
                "uid": DATASOURCE,
                "type": "prometheus",
                "access": "proxy",
                "url": wish.prometheus,
                "isDefault": False,
                "editable": False,
                "jsonData": {"httpMethod": "POST", "timeInterval": f"{wish.every_s}s"},
            }
        ],
    }


def _provider(seen: str) -> dict[str, Any]:
    return {
        "apiVersion": 1,
        "providers": [
            {
                "name": "corral",
                "orgId": 1,
                "folder": "Corral",
                "type": "file",
                "disableDeletion": False,
                "allowUiUpdates": False,
                "updateIntervalSeconds": 30,
                "options": {"path": seen, "foldersFromFilesStructure": False},
            }
        ],
    }
