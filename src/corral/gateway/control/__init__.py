"""Corral's own API under `/control`: the server, its models, downloads, keys and metrics, and its description."""
