"""Reasoning: what a model thinks, told apart from what it says.

- tags: cutting a stream of text at markers, however it was cut before.
- harmony, think: one cleaner for each style; text in, pieces (`text`, `think`, `call`, `args`) out.
- style: which of them a model needs, from its template and architecture.
- clean: a cleaner put into an OpenAI answer, as a `Translation`.
- effort: what a request may say of the amount of thinking, in the engine's way of saying it.

An engine's stream goes through `clean`; where a cleaner finds no tags at the beginning of a message, what follows is
relayed byte for byte.
"""
