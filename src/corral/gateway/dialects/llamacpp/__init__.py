"""llama.cpp's dialect: the paths of its server, the way its router tells of many models, and llama-swap's routes. Pure.

- **Entry**: one model as the router lists it, with the value of its status: unloaded, loading, loaded or sleeping
  (`router`).
- **Told**: one event of the router's feed, made of a change of state or of a download's progress (`feed`).
- The paths that engines answer go through byte for byte; `table` says which.
"""
