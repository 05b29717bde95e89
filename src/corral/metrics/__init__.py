"""What Corral counts and times, kept off the way of requests.

- **Record**: one request as it went, appended as it ends, in the gateway; nothing is summed up there.
- **Recorder**: holds records until `drain` gives them to whoever sums them up: soon, or when somebody asks.
- **Catalogue**: every metric with its kind, labels and buckets, as data: what `/metrics` shows and dashboards ask.

Data flow: gateway → `record.Recorder` → `fold` (sums, pure) → text; traces are made of the same records.
"""
