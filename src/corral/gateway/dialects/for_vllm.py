"""A chat request as vLLM reads it, where Corral makes requests as llama.cpp reads them. Pure.

Source: vLLM 0.32's chat completions: it ignores fields that it does not know without a word.
"""

from __future__ import annotations

from typing import Any, Final

_RENAMED: Final = {"repeat_penalty": "repetition_penalty", "n_predict": "max_tokens"}

_HARMLESS: Final = frozenset({"cache_prompt", "timings_per_token", "return_progress", "id_slot", "reasoning_format"})
"""How llama.cpp goes about it, or tells of it: nothing of the answer."""

_UNKNOWN: Final = frozenset(
    {
        "typical_p", "repeat_last_n", "n_keep", "mirostat", "mirostat_tau", "mirostat_eta", "dynatemp_range",
        "dynatemp_exponent", "xtc_probability", "xtc_threshold", "dry_multiplier", "dry_base", "dry_allowed_length",
        "dry_penalty_last_n", "samplers", "grammar", "n_probs", "thinking_budget_tokens", "reasoning_budget",
        "tfs_z", "penalize_nl",
    }
)  # fmt: skip


def shaped(request: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`request` with what vLLM calls otherwise, and the names of what it does not do."""
    made = {}
    for name, value in request.items():
        if name in _HARMLESS or name in _UNKNOWN:
            continue
        made[_RENAMED.get(name, name) if _RENAMED.get(name) not in request else name] = value
    messages = request.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if isinstance(last, dict) and last.get("role") == "assistant" and "add_generation_prompt" not in request:
        # llama.cpp goes on with an answer that was begun, and dialects count on that.
        made |= {"continue_final_message": True, "add_generation_prompt": False}
    return made, tuple(name for name in request if name in _UNKNOWN)


def counting(request: dict[str, Any]) -> dict[str, Any]:
    """What `/tokenize` is asked for the tokens of a chat request's prompt."""
    kept = ("model", "messages", "tools", "chat_template_kwargs", "continue_final_message", "add_generation_prompt")
    made, _ = shaped(request)
    return {name: made[name] for name in kept if name in made}
