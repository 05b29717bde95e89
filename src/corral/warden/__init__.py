"""The warden: a tiny process that outlives the daemon and owns every engine process.

- **warden**: one process per state directory, standard library only. Nothing here imports the rest of Corral, and it
  is started by its path with `python -I -S`, so that an upgrade or a broken environment cannot take engines down.
- **engine**: a child in a session and a process group of its own, with its output appended to a log file. The warden
  spawns it, waits for it, and ends what it leaves behind.
- **record**: one small file per engine in the state directory: the next warden learns from it what was left.
- **client**: a connection to the warden's unix socket. A *daemon* holds the leash of engines; an *observer* only looks.
- **leash**: `die-with-daemon` engines are stopped when the last daemon connection breaks; `survive` ones go on.
- **linger**: how long a warden with living engines waits for a daemon to come back before it ends everything.

Data flow: lines of JSON in (`protocol`) → `requests` answers them with the table in `engines`, which acts through
`spawn`, `stop` and `kernel` and writes `records` → replies to the asker, and exits pushed to every client (`server`).
"""
