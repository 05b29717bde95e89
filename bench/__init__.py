"""Benchmarks: Corral beside the bare engine, or beside a peer, in the same run.

A *figure* is one named number; a benchmark's figures make a flat JSON object. A *round* times each side once, in
alternating order, so that what else the machine does falls on all sides alike; a *median* over rounds is what is
reported. `frame` reads the arguments, prints the table and keeps `RESULTS.md`; `serving` starts what is measured;
each other module is one benchmark: `make bench NAME=first_token ARGS="--quick --json FILE"`.
"""
