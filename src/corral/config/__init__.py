"""Configuration: from models.yaml, the environment and flags to plain frozen data.

- **Paths**: where Corral keeps things on this machine; cheap to import, every command does.
- **Document**: YAML as plain data that knows where each key stands.
- **Keys**: what may stand in a models.yaml; the pydantic classes of `schema`, with rules from `values`.
- **Setting**: one value from a variable, a `.env` file or a flag, laid over the document.
- **Problem**: one thing that is wrong, with its place and a hint. All of them are reported at once.
- **Settings**: the result that the rest of Corral sees, with every default filled in.

Data flows `locate` (which file; `trust` decides about the working directory) → `document` → `assemble` (lays the
`environment` over it, `schema` and `explain` judge each key, `sources` makes paths, `check` judges the whole) →
`load`, which adds each value's origin. `diff` compares two results; `render` writes one as YAML again.
"""
