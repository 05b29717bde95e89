"""Access: who may ask for what, how much of it, and what they took.

- key: a secret that somebody was given, as what is kept of it: an id, a hash, what it is good for and its limits.
- caller: who sent a request: the holder of a key, or an address where no key is asked for.
- reservation: what is set aside of a key's limits before a request runs; settled when it has ended.
- slab: a piece of a budget that is written down as spent before it is, so that a crash can only count too much.
- book: the SQLite file with keys, slabs and usage. What is in memory counts while a server lives.

Decisions (`keys`, `rates`, `budget`, `account`, `sizes`, `origin`, `engine_paths`) are pure; `desk` and `book` are the
shell around them, and `gate` answers the gateway's questions.
"""
