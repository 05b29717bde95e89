"""Measuring a server from outside: so many requests at once, and what they took.

- **Work**: what each request asks: random words as a prompt, and an answer of fixed length.
- **Shot**: one request as it went: to its first token, to its end, how many tokens, or what went wrong.
- **Run**: all shots of one level, one after another in so many lines at once.
- **Curve**: the runs of growing levels; it saturates where twice as many at once bring hardly more tokens.

Data flow: `load` sends the work of a level and gives its shots → `curve` sums runs up and finds where it saturates.
"""
