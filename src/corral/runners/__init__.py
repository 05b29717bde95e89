"""What engines run in: a runner executes a `LaunchPlan` and tells how that ended.

- **runner**: the contract (`runner`), kept by `process` for plain processes on this machine.
- **link**: the daemon's end of the connection to the warden; requests out, exits in.
- **nursery**: whether there may be one; the program that it is (`nursery_program`), which the warden starts and whose
  forks are engines with their library loaded already.
- **record**: a `LaunchPlan` as JSON, which the warden keeps so that a restarted daemon knows what runs.
- **environment**: what an engine sees of our own environment: an allow-list, so that no secret gets there by accident.
- **memory**: what a process and its descendants hold, by the operating system's own count.

Data flow: supervisor → `ProcessRunner.start(plan, log)` → `WardenLink.spawn` → the warden's socket; and back: the
warden's `exited` event → a future per unit → `Running.wait()`.
"""
