"""Engines in containers of Podman or Docker.

- **host**: what a container engine says of itself (`info`, pure): rootless or not, which limits it really enforces.
- **spec**: `ContainerSpec`, one container as data (pure). `argv` makes the exact command line of it, `body` the JSON
  for Podman's API (both pure).
- **engine**: the contract of what drives containers, kept by `cli` (the `podman` or `docker` program) and `api`
  (Podman's own socket). `connect` picks.
- **catalogue**: which image serves which engine on which kind of GPU; **image**: that image asked for its version and
  flags; **contained**: the adapter that has plans made for it.
- **runner**: starts, adopts and ends; **running**: one container; **records**: what is kept of each on disk.

Data flow: model → `contained` (image, nodes, limits into the `LaunchPlan`) → `runner.start` → `spec` → `engine.run` → a
process of this machine, whose end is seen by its descriptor and whose exit status the container engine tells.
"""
