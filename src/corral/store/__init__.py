"""The model store: a plain OCI image layout on disk, for many threads and processes at once.

blob
    bytes named by their sha256, whole or not there at all; most are files of the store, some (`external`) links to a
    file elsewhere that is looked at again before each use.
partial
    a blob on its way here: a file, the state of its download, and a lock that dies with its owner.
name
    an entry of `index.json` that points to a manifest; a model is what can be reached from one.
history
    what a name pointed to before, and why it changed.
hold
    a lock that says "in use": neither `remove_name` nor `collect` touches what is held.
mark and sweep
    the only way bytes ever go: `collect` keeps what names, kept history, holds and running downloads reach.

Bytes come in by `partial(...).finish`, `add_bytes`, `add_file` or `load`; only then does `set_name` point to them. So a
reader, who takes no lock, sees whole models or none. Everything here blocks and belongs in a thread.
"""
