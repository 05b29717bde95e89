"""HTTP/1.1 as it comes and goes: heads, chunks and events taken apart strictly, sockets opened, bounds kept.

Nothing here knows of models, engines or dialects.
"""
