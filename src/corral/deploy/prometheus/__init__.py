"""What a Prometheus needs to look after Corral.

- **limits**: from which figures on something is wrong: the thresholds of the alerts.
- **recording**: rules that keep figures which dashboards and alerts share.
- **alerts**: each alert: its expression, for how long it must hold, what it says.
- **rule_tests**: promtool's unit tests of all of these, made from the same limits.
- **scraping**: the configuration file.
- **target**: all of it as files.
"""
