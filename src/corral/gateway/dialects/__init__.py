"""Dialects: the wire APIs clients speak.

- dialect: one module per API, pure: it shapes lists and errors, it moves no bytes.
- error body: what a CorralError looks like in that dialect, with the status that belongs to it.
- error event: the same inside a stream that has already begun.

A handler in the gateway asks a dialect for a body and sends it; what an engine answers natively never passes here.
"""
