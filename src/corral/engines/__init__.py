"""Engines: programs that serve models, and what would have to run for one.

- **Adapter**: turns a model's settings into a plan; it starts nothing. `llamacpp` is one, with two executables.
- **LaunchPlan**: argv, environment, endpoint, footprint: what would run, as data.
- **Room** and **Step**: what a plan may use of each device, and how far below the best it is (`placement`, `rooms`).
- **Build**: one llama.cpp on this machine, embedded or a `llama-server`, with its version and flags (`executables`).
- **Flag**: one option in llama-server's spelling, with the embedded engine's parameter behind it (`flag_table`).
- **Host**: the child program that is the embedded engine (`embedded_host`).

Data flows settings and model header → `llamacpp` asks `executables` for a build, `architecture` and `flags` whether it
will do, `purpose` what the model is for, `rooms` and `layout` where it goes, `prediction` for its memory → `LaunchPlan`
→ a runner. In the child, `flags` reads the same argv and sets it on the engine's parameters.
"""
