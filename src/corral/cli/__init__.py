"""The command line: one file per command, and the few nouns they share.

- `main.entry` is the program: it turns every ending (done, error, Ctrl-C, a reader that left) into an exit code.
- The **group** knows each command's name and one line of help, and imports a command only when it is called.
- The **app** is what a command gets: the global options (`--host`, `--json`, `--no-color`) and, from them, the client.
- A command asks the server through `corral.client`, and shows the wire types it gets back as a **table**, as words,
  or with `--json` as they are.
- A **session** is a chat without a terminal (pure); the **REPL** is the terminal around it.
- A **finding** is one line of `doctor`: what was looked at, how it is, and the command that mends it.

Imports inside functions are the rule here, not the exception: `corral ps` must not pay for `corral serve`.
"""
