"""What Corral remembers of loads: figures that were measured, kept in one SQLite file of the state directory.

- A **Key** says what was loaded: the model's content, the engine and its version, and the settings that matter.
- **Figures** are what a load took by device and component, and how long it took. Of several loads the larger count.
- The **Ledger** holds them all in memory, where they are looked up, and writes each change down in a thread of its own.
- A **Book** is the file: it survives a kill at any moment, and is set aside when it cannot be read.
"""
