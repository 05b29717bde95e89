"""Registries and other sources of models."""
