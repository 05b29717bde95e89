"""Which model may run, and who may use it.

Glossary:
    spec        one model's scheduling facts: slots, idle time, pin, priority, footprint
    place       one model's unit as the scheduler sees it: phase, leases, waiting requests
    waiter      one request that has not been answered yet
    lease       the right to use a ready unit until the response stream ends
    room        what would have to be stopped so that a model can start
    policy      what holds for all models: how many at once, budgets, queue length

Data flow: somebody calls `loop.Scheduler` → an event (`messages`) → `decide.step(state, event, now)`, pure, which asks
`evict.make_room` → commands → `loop` carries them out: a grant wakes the waiter, a start or stop becomes a task of the
supervisor, which ends in the next event.
"""
