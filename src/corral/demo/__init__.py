"""The demo model that comes with Corral.

demo model
    a tiny llama in one GGUF file, trained by `tools/train_demo` on text about Corral; `where.demo_model` is its path.
`builtin:demo`
    how a configuration names it as a `source`.
"""
