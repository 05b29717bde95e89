"""Conversations kept across swaps: what an engine has read need not be read again after its next start.

A *kept conversation* is the state of one slot of llama.cpp in a file, with a *record* beside it. Its *key* says which
model, engine and settings it belongs to. A *recall* puts one back for a request that goes on from it; the answer's own
count of what it did not have to read is the *verdict* on it.

    scheduler: a unit is idle → keeper.save → engine's slot → shelf
    gateway: a request has its lease → keeper.recall → shelf → engine's slot → the answer's tail → verdict
"""
