"""Ollama's API, version 0.33: what its clients send and expect, in terms of llama.cpp's server and Corral's store.

- asked: a request's fields, read strictly in kind and forgivingly in name, and as the engine's request.
- answer: an engine's answer on its way to the client: NDJSON lines, or one JSON object.
- facts: what is known of a model, from which `tags`, `ps` and `show` are shaped.
- memory: the list of numbers that `generate` gives to continue from.
- Modelfile: a model described in Ollama's own words.

Pure: what the time is comes in as an argument. The handlers around it are `gateway/ollama_*.py`.
"""
