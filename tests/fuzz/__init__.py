"""Targets for the fuzzer: each takes any bytes and raises when Corral does with them what it must not do.

`make fuzz` runs them under atheris, guided by coverage; the core tests run them once over what is in `corpus/`.
"""
