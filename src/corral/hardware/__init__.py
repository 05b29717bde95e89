"""What this machine has: facts only, read without starting anything that could take a driver down.

- **Memory** is what the machine has, what is free, and the limit that a cgroup puts on this process.
- **Cpu** is the processor's name, and the cores that this process may really use.
- A **Gpu** is one graphics processor, with the device node that opens it and whether this user may.
- `probe()` gathers them as **Hardware**; each module has pure parsers with thin readers around them, and every reader
  takes the root of the file system, so that any machine's files can be read as a test's.
"""
