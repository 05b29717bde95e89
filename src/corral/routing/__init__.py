"""Choosing what answers for a model's name.

Glossary:
    name        what a client wrote: a model's name or one of its aliases
    default     the model that answers when none was named: the listener's own, else the configured one
    target      what can answer for a name: today always a configured model

Data flow: the gateway peeks at a request's `model` → `resolve` → a configured model, or an error with the nearest name.
"""
