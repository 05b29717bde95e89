"""Which model may run, and who may use it.

Glossary:
    spec        one model's scheduling facts: slots, idle time, pin, priority, footprint, replicas, schedule
    place       one unit as the scheduler sees it: phase, leases, what its loads took
    line        those who wait for one model, by key; a model's places share it
    waiter      one request that has not been answered yet
    lease       the right to use a ready unit until the response stream ends
    room        what would have to be stopped so that a model can start; a claim keeps it for one
    policy      what holds for all models: how many at once, budgets, headroom, how long anybody waits

Data flow: somebody calls `loop.Scheduler` → an event (`messages`) → `decide.step(state, event, now)`, pure: `apply`,
then `grant`, `start` (with `evict` and `memory`), `wish` and `idle` → commands → `loop` carries them out: a grant wakes
the waiter, a start or stop becomes a task of the supervisor, a look reads the devices; each ends in the next event.
"""
