"""Keeping engines: started, seen ready, watched, stopped, and their ends explained.

Glossary:
    unit        one supervised engine with one model, through all its generations
    machine     a unit's state and the table that moves it
    generation  the number of a start; what concerns an earlier one is dropped
    probe       the small question whether an engine is ready
    reason      why a process ended, in words
    pulse       what the gateway counts in a running request
    liveness    whether an engine hangs, judged from looks at it and from pulses
    fleet       all units of one daemon

Data flow: the scheduler tells the fleet to start or stop a unit → the unit asks an adapter for a plan, a runner to
execute it, the probe whether it is ready → each step is a transition of its machine and an entry of the event log →
readiness and ends go back through `Listener`.
"""
