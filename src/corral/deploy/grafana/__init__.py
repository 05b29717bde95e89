"""What a Grafana needs to show Corral.

- **panels**: one picture each: its kind, unit, queries, and in words what it is good for; as Grafana's JSON.
- **board**: a dashboard: variables at the top, panels laid out row by row.
- **overview**, **model**, **devices**, **storage**, **usage**, **engines**: the six dashboards.
- **target**: all of them as files, and those with which a Grafana finds them (provisioning).

The JSON is Grafana's classic model, which versions 9 to 13 read from files.
"""
