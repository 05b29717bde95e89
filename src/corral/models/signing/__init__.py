"""Whose signature a model must have, where it is looked for, and whether it holds."""
