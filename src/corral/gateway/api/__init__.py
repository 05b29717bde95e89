"""The routes that clients' APIs have, one dialect after the other, over the pure translations in `gateway.dialects`.

`inference` and `chat_route` are OpenAI's and always there; `dialect_routes` loads the others when they are first asked.
"""
