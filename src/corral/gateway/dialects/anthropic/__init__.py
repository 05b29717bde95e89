"""Anthropic's messages API, made of chat completions.

- errors: its error shape, and the dialect itself.
- request: a messages request as a chat request.
- answer: an engine's chat answer as a message, whole or as its events.
- models: its list of models.
- table: its routes, and what becomes of each.

llama.cpp answers `/v1/messages` itself, but takes a stop sequence for the end of a turn, passes over a tool that must
be called where the template knows none, names its errors as OpenAI does and leaves a model's tags in the text. So
requests are translated, and what is put right for OpenAI's clients is right here too.
"""
