"""OpenAI's responses API, made of chat completions.

- request: what is asked for, strictly read.
- items: input and output items, and the chat messages that they are.
- answer: an engine's chat answer as a response, whole or as its events.
- table: the routes, and what becomes of each.

A stored response has its own input and output items and the name of the one before it; what a model is shown is all of
them in order.
"""
