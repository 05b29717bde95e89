"""Measuring a server from outside: one load generator, one set of definitions.

- **Target**: a model of a server, which fields it takes, and how its key is sent.
- **Work**: what each request asks: a random prompt of so many tokens, and an answer of fixed length.
- **Shot**: one request as it went: to its first piece, between pieces, to its end, how many tokens, or what went wrong.
- **Run**: all shots of one load (so many at once, or so many a second), and how late the generator itself was.
- **Figure**: one thing measured of one subject, with its value in each run. A **Report** is all of them with machine,
  versions and settings; it is what is saved, shown, drawn and compared.

Data flow: `work` writes requests → `load` sends them over `wire` → `answer` reads what came into shots → `curve` and
`figures` sum runs up → `report` keeps them → `difference`, `plot`, `page`, `png` show them.
"""
