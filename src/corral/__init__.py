"""Corral: a local AI model runner and control plane."""

__version__ = "0.1.0.dev0"
