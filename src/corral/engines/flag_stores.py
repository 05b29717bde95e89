"""How each kind of engine flag is stored in the embedded engine's parameters.

A store takes `(engine, params, value)`: the `xllamacpp` module, its `CommonParams`, and what the flag's reader made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from corral.engines.flag_values import Symbol

Store = Callable[[Any, Any, Any], None]


def find(params: Any, path: str) -> tuple[Any, str]:
    """The object that holds the attribute at dotted `path`, and the attribute's own name."""
    *owners, name = path.split(".")
    for owner in owners:
        params = getattr(params, owner)
    return params, name


def resolved(engine: Any, value: Any) -> Any:
    """`value` with each Symbol replaced by the engine's own enumeration member."""
    if isinstance(value, Symbol):
        return getattr(getattr(engine, value.enumeration), value.member)
    return [resolved(engine, item) for item in value] if isinstance(value, list) else value


def put(path: str, *more: str) -> Store:
    """Sets the attribute at `path` (and those at `more`)."""

    def store(engine: Any, params: Any, value: Any) -> None:
        for each in (path, *more):
            owner, name = find(params, each)
            setattr(owner, name, resolved(engine, value))

    return store


def put_not(path: str, *more: str) -> Store:
    """Sets the attribute to the opposite: the engine's parameter says `no_…`."""
    inner = put(path, *more)
    return lambda engine, params, value: inner(engine, params, not value)


def put_chosen(path: str, mark: str) -> Store:
    """Sets a sampling default and marks it as the user's, so that the model's own metadata does not replace it."""
    inner = put(path)

    def store(engine: Any, params: Any, value: Any) -> None:
        inner(engine, params, value)
        member = getattr(engine.common_params_sampling_config, "COMMON_PARAMS_SAMPLING_CONFIG_" + mark)
        params.sampling.user_sampling_config |= int(member)

    return store


def add(path: str) -> Store:
    """Appends to the list at `path`: one value, or each of a list."""

    def store(engine: Any, params: Any, value: Any) -> None:
        owner, name = find(params, path)
        new = resolved(engine, value)
        setattr(owner, name, [*getattr(owner, name), *(new if isinstance(new, list) else [new])])

    return store


def add_text(path: str) -> Store:
    """Appends to the comma-separated text at `path`."""

    def store(engine: Any, params: Any, value: Any) -> None:
        owner, name = find(params, path)
        before = getattr(owner, name)
        setattr(owner, name, f"{before},{value}" if before else value)

    return store


def add_names(path: str) -> Store:
    """Adds to the set of names at `path`."""

    def store(engine: Any, params: Any, value: list[str]) -> None:
        owner, name = find(params, path)
        setattr(owner, name, {*getattr(owner, name), *value})

    return store


def both(*stores: Store) -> Store:
    """Each of `stores` in turn."""

    def store(engine: Any, params: Any, value: Any) -> None:
        for each in stores:
            each(engine, params, value)

    return store


def fixed(path: str, value: Any) -> Store:
    """Sets `path` to `value` whatever the flag's own value is."""
    inner = put(path)
    return lambda engine, params, _: inner(engine, params, value)


def context_size(engine: Any, params: Any, value: int) -> None:
    """Sets the context; 0 is the model's own, which fitting to device memory must then not shorten."""
    params.n_ctx = value
    if value == 0:
        params.fit_params_min_ctx = -1


def thread_count(path: str) -> Store:
    """Sets a number of threads; 0 and below is one per CPU."""
    inner = put(path)
    return lambda engine, params, value: inner(engine, params, value if value > 0 else (os.cpu_count() or 1))


def repeat_window(engine: Any, params: Any, value: int) -> None:
    """Sets how far back repetition is looked for; what the sampler remembers must reach as far."""
    put_chosen("sampling.penalty_last_n", "PENALTY_LAST_N")(engine, params, value)
    params.sampling.n_prev = max(params.sampling.n_prev, value)


def padded(path: str) -> Store:
    """Sets a list with one place per possible device; places not named are 0."""

    def store(engine: Any, params: Any, value: list[float]) -> None:
        owner, name = find(params, path)
        size = len(getattr(owner, name))
        if len(value) >= size:
            raise ValueError(f"wants fewer than {size} values")
        setattr(owner, name, value + [0.0] * (size - len(value)))

    return store


def fit_margin(engine: Any, params: Any, value: list[int]) -> None:
    """Sets the margin per device in MiB; a single value is for every device."""
    margins = list(params.fit_params_target)
    if len(value) == 1:
        value = value * len(margins)
    params.fit_params_target = [each << 20 for each in value] + margins[len(value) :]


def adapters(engine: Any, params: Any, value: list[tuple[str, float]]) -> None:
    """Adds LoRA adapters."""
    params.lora_adapters = [
        *params.lora_adapters,
        *(engine.CommonAdapterLoraInfo(path, scale) for path, scale in value),
    ]


def user_grammar(engine: Any, params: Any, value: str) -> None:
    """Sets the grammar that every answer keeps to."""
    kind = engine.common_grammar_type.COMMON_GRAMMAR_TYPE_USER
    params.sampling.grammar = engine.CommonGrammar(kind, value)


def schema_grammar(engine: Any, params: Any, value: str) -> None:
    """Sets the JSON schema that every answer keeps to."""
    kind = engine.common_grammar_type.COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT
    params.sampling.grammar = engine.CommonGrammar(kind, engine.json_schema_to_grammar(value))


def kwargs(engine: Any, params: Any, value: dict[str, str]) -> None:
    """Adds parameters of the chat template."""
    params.default_template_kwargs = {**params.default_template_kwargs, **value}


def reasoning(engine: Any, params: Any, value: int) -> None:
    """Sets whether the model thinks; the template is told too."""
    params.enable_reasoning = value
    if value >= 0:
        kwargs(engine, params, {"enable_thinking": "true" if value else "false"})


def effort(engine: Any, params: Any, value: str) -> None:
    """Sets the reasoning effort given to the template; `default` leaves it to the template."""
    kept = {key: item for key, item in params.default_template_kwargs.items() if key != "reasoning_effort"}
    params.default_template_kwargs = kept if value == "default" else {**kept, "reasoning_effort": json.dumps(value)}


def keep_reasoning(engine: Any, params: Any, value: bool) -> None:
    """Sets whether earlier turns' thoughts stay in the prompt."""
    kwargs(engine, params, {"preserve_reasoning": "true" if value else "false"})
    params.preserve_reasoning_specified = True


def all_on_cpu(path: str, pattern: str) -> Store:
    """Keeps the tensors that `pattern` names on the CPU."""
    inner = add_text(path)
    return lambda engine, params, _: inner(engine, params, f"{pattern}=CPU")


def first_layers_on_cpu(path: str, pattern: str) -> Store:
    """Keeps the tensors that `pattern` names on the CPU in the first N layers."""
    inner = add_text(path)

    def store(engine: Any, params: Any, value: int) -> None:
        for layer in range(value):
            inner(engine, params, f"blk\\.{layer}{pattern}=CPU")

    return store


def dry_base(engine: Any, params: Any, value: float) -> None:
    """Sets the DRY base; one below 1 is left out, as llama.cpp does."""
    if value >= 1.0:
        params.sampling.dry_base = value


def ngram_defaults(engine: Any, params: Any, value: Any) -> None:
    """Speculative decoding as llama.cpp recommends it: n-grams of 24, drafts of 48 to 64 tokens."""
    add("speculative.types")(engine, params, Symbol("common_speculative_type", "COMMON_SPECULATIVE_TYPE_NGRAM_MOD"))
    ngram = params.speculative.ngram_mod
    ngram.n_match, ngram.n_min, ngram.n_max = 24, 48, 64
