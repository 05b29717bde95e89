"""What the running server tells of itself: figures, what happens now, logs of requests, traces.

- **Metering**: once a second, adds up what requests left (`metrics`) and hands it on; writes it for who scrapes.
- **Gauges, live**: what holds at this moment, as metrics and as one picture for `corral top`.
- **Afterwards**: what is done with requests that have ended: the request log and spans for OpenTelemetry.

Data flow: gateway → records → `metering` → sums for `/metrics` and `/control/live`, and `afterwards` → `request_log`,
`traces`. `engine_metrics` asks engines for theirs, `places` the disks; both beside all requests.
"""
