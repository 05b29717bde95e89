"""Dashboards as Grafana reads them: held against what its schemas say, because no Grafana runs here.

Source: grafana/grafana, `kinds/dashboard/dashboard_kind.cue` and the panels' `panelcfg.cue`; Grafana's documentation of
provisioning.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
import yaml
from tools.draw_charts import SHEETS

from corral.deploy.grafana.board import COLUMNS, Board
from corral.deploy.grafana.target import BOARDS, DATASOURCE, Wish, grafana

KINDS = {"timeseries", "stat", "table", "heatmap", "row"}
UNITS = {"short", "none", "s", "bytes", "Bps", "reqps", "ops", "percentunit", "celsius", "watt", "suffix: tok/s"}
"""Ids of Grafana's value formats, and a suffix of our own."""
TOP = {
    "uid", "title", "description", "tags", "editable", "graphTooltip", "timezone", "schemaVersion", "version",
    "refresh", "fiscalYearStartMonth", "time", "timepicker", "weekStart", "annotations", "links", "templating",
    "panels",
}  # fmt: skip
OPTIONS = {
    "timeseries": {"legend", "tooltip"},
    "stat": {"reduceOptions", "colorMode", "graphMode", "justifyMode", "textMode", "orientation", "wideLayout"},
    "table": {"showHeader", "cellHeight", "frameIndex", "footer"},
    "heatmap": {
        "calculate", "cellGap", "cellValues", "color", "exemplars", "filterValues", "legend", "rowsFrame", "showValue",
        "tooltip", "yAxis",
    },
}  # fmt: skip
CUSTOM = {
    "drawStyle": {"line", "bars", "points"},
    "lineInterpolation": {"linear", "smooth", "stepBefore", "stepAfter"},
    "gradientMode": {"none", "opacity", "hue", "scheme"},
    "showPoints": {"auto", "never", "always"},
}
FILES = {file.path: file.text for file in grafana(Wish(), "/srv/corral-grafana").files}


def data(board: Board) -> Any:
    return json.loads(FILES[f"dashboards/{board.file}"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_the_dashboard(board: Board) -> None:
    """The members are Grafana's and have values that it knows; no id, which a database gives."""
    made = data(board)
    assert set(made) == TOP
    assert 1 <= len(made["uid"]) <= 40 and made["graphTooltip"] in (0, 1, 2) and 36 <= made["schemaVersion"] <= 42
    names = [each["name"] for each in made["templating"]["list"]]
    assert names[:2] == ["datasource", "instance"] and len(set(names)) == len(names)
    for each in made["templating"]["list"]:
        assert each["type"] in ("query", "datasource") and each["hide"] in (0, 1, 2) and each["refresh"] in (0, 1, 2)
        assert each["type"] == "datasource" or each["definition"] == each["query"]["query"]
    for link in made["links"]:
        assert link["type"] == "dashboards" and set(link["tags"]) <= set(made["tags"])


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_its_panels(board: Board) -> None:
    """Each has a kind, a place of its own in the grid, words, a unit, queries on the chosen Prometheus."""
    made = data(board)["panels"]
    assert [panel["id"] for panel in made] == list(range(1, len(made) + 1))
    titles = [panel["title"] for panel in made]
    for panel in made:
        place = panel["gridPos"]
        assert place["w"] > 0 and place["x"] + place["w"] <= COLUMNS and place["h"] > 0
        assert panel["type"] in KINDS and panel["title"]
        if panel["type"] != "row":
            check_panel(panel)
    for one, other in combinations([panel["gridPos"] for panel in made], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
    assert len(titles) == len(set(titles))


def check_panel(panel: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["datasource"] == source
    assert panel["description"].endswith("."), panel["title"]
    assert defaults["unit"] in UNITS and defaults["color"]["mode"] in ("thresholds", "palette-classic", "fixed")
    steps = defaults["thresholds"]["steps"]
    assert steps[0]["value"] is None and [s["value"] for s in steps[1:]] == sorted(s["value"] for s in steps[1:])
    assert set(panel["options"]) == OPTIONS[panel["type"]]
    assert [target["refId"] for target in panel["targets"]] == [chr(65 + n) for n in range(len(panel["targets"]))]
    for target in panel["targets"]:
        assert target["datasource"] == source and target["instant"] != target["range"]
        assert target["format"] == {"table": "table", "heatmap": "heatmap"}.get(panel["type"], "time_series")
        assert "$instance" in target["expr"] or "ALERTS" in target["expr"]
    if panel["type"] == "timeseries":
        for name, allowed in CUSTOM.items():
            assert defaults["custom"][name] in allowed
        assert defaults["custom"]["stacking"]["mode"] in ("none", "normal", "percent")
    if panel["type"] == "table":
        assert [step["id"] for step in panel["transformations"]] == ["filterFieldsByName", "organize"]


def test_together() -> None:
    """Names are unique, and each dashboard has variables for what its expressions ask of it."""
    assert len({board.uid for board in BOARDS}) == len({board.title for board in BOARDS}) == len(BOARDS)
    for board in BOARDS:
        text = "".join(query.expr for panel in board.panels for query in panel.queries)
        for variable in board.variables:
            assert f"${variable.name}" in text, (board.uid, variable.name)


def test_provisioning() -> None:
    """Grafana finds its Prometheus and the dashboards' folder, with the scrapes' time for its rates."""
    sources = yaml.safe_load(FILES["provisioning/datasources/corral.yml"])
    (source,) = sources["datasources"]
    assert sources["apiVersion"] == 1
    assert (source["type"], source["uid"], source["access"]) == ("prometheus", DATASOURCE, "proxy")
    assert source["jsonData"]["timeInterval"] == "5s"
    providers = yaml.safe_load(FILES["provisioning/dashboards/corral.yml"])
    (provider,) = providers["providers"]
    assert providers["apiVersion"] == 1 and provider["type"] == "file"
    assert provider["options"]["path"] == "/srv/corral-grafana/dashboards"
    elsewhere = grafana(Wish("http://prometheus:9090", 15, "/var/lib/grafana/dashboards"), "out").files
    texts = {file.path: file.text for file in elsewhere}
    assert "path: /var/lib/grafana/dashboards" in texts["provisioning/dashboards/corral.yml"]
    assert "url: http://prometheus:9090" in texts["provisioning/datasources/corral.yml"]
    assert "$" not in "".join(text for path, text in texts.items() if path.startswith("provisioning/"))


def test_the_charts_of_the_documentation_are_panels() -> None:
    titles = {board.uid: {panel.title for panel in board.panels} for board in BOARDS}
    assert all(set(wanted) <= titles[uid] for uid, wanted in SHEETS.values())
