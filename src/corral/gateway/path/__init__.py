"""The data path: from a client's request to an engine and back.

- fast: requests that need no waiting, in callbacks alone: `fast`, `fast_exchange`, `fast_stream`.
- with a task: `proxy` finds the model and takes the lease, `forwarding` sends, `relay` passes the answer on.
- link: a connection to an engine, and the pool of those that wait; `upstream` is one request on it.
- resume: what becomes of a stream whose engine ends; `again` says whether a request is tried again.

Both ways give the same bytes: `tests/gateway/test_fast.py` holds them against each other.
"""
