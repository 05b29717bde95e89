"""The table of engine flags: llama-server's spellings, and the embedded engine's parameter behind each.

Source: llama.cpp common/arg.cpp, build 11434. A flag that an embedded engine has no parameter for is in `ABSENT`;
one that no model may set is in `REFUSED`; one with an `owner` is decided by that key of models.yaml.
"""

from __future__ import annotations

from typing import NamedTuple

from corral.engines import flag_stores as to
from corral.engines import flag_values as v


class Flag(NamedTuple):
    """One option in all its spellings."""

    names: tuple[str, ...]
    value: v.Reader | None  # None: a switch
    store: to.Store
    parameter: str  # of the embedded engine, in words for the docs
    off: tuple[str, ...] = ()  # spellings that turn it off
    owner: str = ""  # what decides it where `args` may not


def _flag(
    spelling: str, value: v.Reader | None, parameter: str, store: to.Store | None = None, off: str = "", owner: str = ""
) -> Flag:
    put = to.put_not if parameter.startswith("not ") else to.put
    store = store or put(*parameter.removeprefix("not ").split(", "))
    return Flag(tuple(spelling.split()), value, store, parameter, tuple(off.split()), owner)


def _sampling(spelling: str, value: v.Reader, name: str, mark: str) -> Flag:
    """A sampling default that the model's own metadata would otherwise replace."""
    return _flag(spelling, value, f"sampling.{name}", to.put_chosen(f"sampling.{name}", mark))


def _cpus(spelling: str, value: v.Reader, parameter: str) -> Flag:
    owner = parameter.rpartition(".")[0]
    return _flag(spelling, value, parameter, to.both(to.put(parameter), to.fixed(f"{owner}.mask_valid", True)))


def _upper(names: str) -> dict[str, str]:
    return {name: name.upper().replace("-", "_") for name in names.split()}


_CACHE = v.choice("ggml_type", "GGML_TYPE_", _upper("f32 f16 bf16 q8_0 q4_0 q4_1 iq4_nl q5_0 q5_1"))
_PRIORITY = v.choice(
    "ggml_sched_priority", "GGML_SCHED_PRIO_", {"-1": "LOW", "0": "NORMAL", "1": "MEDIUM", "2": "HIGH", "3": "REALTIME"}
)
_POOLING = v.choice("llama_pooling_type", "LLAMA_POOLING_TYPE_", _upper("none mean cls last rank"))
_ROPE = v.choice("llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_", _upper("none linear yarn"))
_SPLIT = v.choice("llama_split_mode", "LLAMA_SPLIT_MODE_", _upper("none layer row tensor"))
_LOAD = v.choice(
    "llama_load_mode",
    "LLAMA_LOAD_MODE_",
    {**_upper("auto none mmap mlock"), "mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"},
)
_LAZY = v.choice("llama_lazy_mode", "LLAMA_LAZY_MODE_", _upper("on auto off"))
_NUMA = v.choice("ggml_numa_strategy", "GGML_NUMA_STRATEGY_", _upper("distribute isolate numactl"))
_FLASH = v.choice(
    "llama_flash_attn_type",
    "LLAMA_FLASH_ATTN_TYPE_",
    {
        **dict.fromkeys(("on", "enabled", "true", "1"), "ENABLED"),
        **dict.fromkeys(("off", "disabled", "false", "0"), "DISABLED"),
        **dict.fromkeys(("auto", "-1"), "AUTO"),
    },
)
_THOUGHTS = v.choice(
    "common_reasoning_format", "COMMON_REASONING_FORMAT_", _upper("none auto deepseek deepseek-legacy")
)
_SPECULATIVE = v.choices(
    "common_speculative_type",
    "COMMON_SPECULATIVE_TYPE_",
    _upper(
        "none draft-simple draft-eagle3 draft-mtp draft-dflash draft-dspark"
        " ngram-simple ngram-map-k ngram-map-k4v ngram-mod ngram-cache"
    ),
)
_RANK = to.both(
    to.fixed("embedding", True), to.fixed("pooling_type", v.Symbol("llama_pooling_type", "LLAMA_POOLING_TYPE_RANK"))
)
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_DENSE = r"\.ffn_(up|down|gate)\."
_NGRAM = v.at_least(1, 1024)
_SOURCE = "source"
_DRAFT = "speculative.draft"

# fmt: off
FLAGS: tuple[Flag, ...] = (
    # What Corral itself decides
    _flag("-m --model", v.words, "model.path", owner=_SOURCE),
    _flag("-a --alias", v.names, "model_alias", to.add_names("model_alias"), owner="name"),
    _flag("--host", v.names, "hostnames", owner="port"),
    _flag("--port", v.at_least(0, 65535), "port", owner="port"),
    _flag("-c --ctx-size", v.integer, "n_ctx", to.context_size, owner="context"),
    _flag("-np --parallel", v.at_least(1), "n_parallel", owner="parallel"),
    _flag("-ngl --gpu-layers --n-gpu-layers", v.layers, "n_gpu_layers", owner="gpu_layers"),
    _flag("--api-key", v.names, "api_keys", to.add("api_keys"), owner="require_keys"),
    _flag("--api-key-file", v.file_lines, "api_keys", to.add("api_keys"), owner="require_keys"),
    _flag("--ui --webui", None, "ui", off="--no-ui --no-webui", owner="listen"),

    # Threads and memory
    _flag("-t --threads", v.integer, "cpuparams.n_threads", to.thread_count("cpuparams.n_threads")),
    _cpus("-C --cpu-mask", v.cpu_mask, "cpuparams.cpumask"),
    _cpus("-Cr --cpu-range", v.cpu_range, "cpuparams.cpumask"),
    _flag("--cpu-strict", v.flag01, "cpuparams.strict_cpu"),
    _flag("--prio", _PRIORITY, "cpuparams.priority"),
    _flag("--poll", v.at_least(0, 100), "cpuparams.poll"),
    _flag("-tb --threads-batch", v.integer, "cpuparams_batch.n_threads", to.thread_count("cpuparams_batch.n_threads")),
    _cpus("-Cb --cpu-mask-batch", v.cpu_mask, "cpuparams_batch.cpumask"),
    _cpus("-Crb --cpu-range-batch", v.cpu_range, "cpuparams_batch.cpumask"),
    _flag("--cpu-strict-batch", v.flag01, "cpuparams_batch.strict_cpu"),
    _flag("--prio-batch", _PRIORITY, "cpuparams_batch.priority"),
    _flag("--poll-batch", v.at_least(0, 100), "cpuparams_batch.poll"),
    _flag("--numa", _NUMA, "numa"),
    _flag("-lm --load-mode", _LOAD, "load_mode"),
    _flag("-lzm --lazy-mode", _LAZY, "lazy_mode"),
    _flag("--check-tensors", None, "check_tensors"),
    _flag("--repack", None, "not no_extra_bufts", off="-nr --no-repack"),
    _flag("--no-host", None, "no_host"),
    _flag("--perf", None, "not no_perf, sampling.no_perf", off="--no-perf"),

    # Devices
    _flag("-sm --split-mode", _SPLIT, "split_mode"),
    _flag("-ts --tensor-split", v.listed(v.number, ",/"), "tensor_split", to.padded("tensor_split")),
    _flag("-mg --main-gpu", v.at_least(0), "main_gpu"),
    _flag("-fit --fit", v.on_off, "fit_params"),
    _flag("-fitt --fit-target", v.listed(v.at_least(0), ",/"), "fit_params_target", to.fit_margin),
    _flag("-fitc --fit-ctx", v.integer, "fit_params_min_ctx"),
    _flag("-kvo --kv-offload", None, "not no_kv_offload", off="-nkvo --no-kv-offload"),
    _flag("--op-offload", None, "not no_op_offload", off="--no-op-offload"),
    _flag("-ot --override-tensor", v.tensor_buffers, "tensor_buft_overrides", to.add_text("tensor_buft_overrides")),
    _flag("-cmoe --cpu-moe", None, "tensor_buft_overrides", to.all_on_cpu("tensor_buft_overrides", _EXPERTS)),
    _flag("-ncmoe --n-cpu-moe", v.at_least(0), "tensor_buft_overrides",
          to.first_layers_on_cpu("tensor_buft_overrides", _EXPERTS)),
    _flag("-ncffn --n-cpu-ffn", v.at_least(0), "tensor_buft_overrides",
          to.first_layers_on_cpu("tensor_buft_overrides", _DENSE)),

    # Context and cache
    _flag("-n --predict --n-predict", v.integer, "n_predict"),
    _flag("-b --batch-size", v.at_least(1), "n_batch"),
    _flag("-ub --ubatch-size", v.at_least(1), "n_ubatch"),
    _flag("--keep", v.integer, "n_keep"),
    _flag("--swa-full", None, "swa_full"),
    _flag("-fa --flash-attn", _FLASH, "flash_attn_type"),
    _flag("-ctk --cache-type-k", _CACHE, "cache_type_k"),
    _flag("-ctv --cache-type-v", _CACHE, "cache_type_v"),
    _flag("-kvu --kv-unified", None, "kv_unified", off="-no-kvu --no-kv-unified"),
    _flag("--kv-unified-per-slot", v.integer, "kv_unified_per_slot"),
    _flag("-ctxcp --ctx-checkpoints --swa-checkpoints", v.integer, "n_ctx_checkpoints"),
    _flag("-cms --checkpoint-min-step", v.at_least(0), "checkpoint_min_step"),
    _flag("-cram --cache-ram", v.at_least(-1), "cache_ram_mib"),
    _flag("--cache-idle-slots", None, "cache_idle_slots", off="--no-cache-idle-slots"),
    _flag("--cache-prompt", None, "cache_prompt", off="--no-cache-prompt"),
    _flag("--cache-reuse", v.integer, "n_cache_reuse"),
    _flag("--context-shift", None, "ctx_shift", off="--no-context-shift"),
    _flag("-cb --cont-batching", None, "cont_batching", off="-nocb --no-cont-batching"),
    _flag("-sps --slot-prompt-similarity", v.number, "slot_prompt_similarity"),
    _flag("--slot-save-path", v.folder, "slot_save_path"),
    _flag("--warmup", None, "warmup", off="--no-warmup"),
    _flag("--sleep-idle-seconds", v.sleep_seconds, "sleep_idle_seconds"),
    _flag("--rope-scaling", _ROPE, "rope_scaling_type"),
    _flag("--rope-scale", v.reciprocal, "rope_freq_scale"),
    _flag("--rope-freq-base", v.number, "rope_freq_base"),
    _flag("--rope-freq-scale", v.number, "rope_freq_scale"),
    _flag("--yarn-orig-ctx", v.integer, "yarn_orig_ctx"),
    _flag("--yarn-ext-factor", v.number, "yarn_ext_factor"),
    _flag("--yarn-attn-factor", v.number, "yarn_attn_factor"),
    _flag("--yarn-beta-slow", v.number, "yarn_beta_slow"),
    _flag("--yarn-beta-fast", v.number, "yarn_beta_fast"),

    # What else is loaded
    _flag("--lora", v.plain_files, "lora_adapters", to.adapters),
    _flag("--lora-scaled", v.scaled_files, "lora_adapters", to.adapters),
    _flag("--lora-init-without-apply", None, "lora_init_without_apply"),
    _flag("-mm --mmproj", v.words, "mmproj.path"),
    _flag("--mmproj-auto", None, "not no_mmproj", off="--no-mmproj --no-mmproj-auto"),
    _flag("--mmproj-offload", None, "mmproj_use_gpu", off="--no-mmproj-offload"),
    _flag("-mmdev --mmproj-device", v.words, "mmproj_device"),
    _flag("--image-min-tokens", v.integer, "image_min_tokens"),
    _flag("--image-max-tokens", v.integer, "image_max_tokens"),
    _flag("--mtmd-batch-max-tokens", v.integer, "mtmd_batch_max_tokens"),
    _flag("--video-fps", v.number, "video_fps"),
    _flag("--video-timestamp-interval", v.integer, "video_timestamp_interval_ms"),
    _flag("--video-ffmpeg-dir", v.words, "video_ffmpeg_bin_dir"),
    _flag("--media-path", v.folder, "media_path"),
    _flag("--offline", None, "offline"),

    # What is served
    _flag("--embedding --embeddings", None, "embedding"),
    _flag("--rerank --reranking", None, "embedding and pooling_type", _RANK),
    _flag("--pooling", _POOLING, "pooling_type"),
    _flag("--embd-normalize", v.integer, "embd_normalize"),
    _flag("--metrics", None, "endpoint_metrics"),
    _flag("--props", None, "endpoint_props"),
    _flag("--slots", None, "endpoint_slots", off="--no-slots"),
    _flag("-to --timeout", v.at_least(0), "timeout_read, timeout_write"),
    _flag("--sse-ping-interval", v.at_least(-1), "sse_ping_interval"),
    _flag("--threads-http", v.integer, "n_threads_http"),
    _flag("--tags", v.names, "model_tags", to.add_names("model_tags")),

    # Chat
    _flag("--jinja", None, "use_jinja", off="--no-jinja"),
    _flag("--chat-template", v.words, "chat_template"),
    _flag("--chat-template-file", v.file_text, "chat_template"),
    _flag("--chat-template-kwargs", v.template_kwargs, "default_template_kwargs", to.kwargs),
    _flag("--reasoning-format", _THOUGHTS, "reasoning_format"),
    _flag("-rea --reasoning", v.on_off_auto, "enable_reasoning", to.reasoning),
    _flag("--reasoning-effort", v.words, "default_template_kwargs", to.effort),
    _flag("--reasoning-budget", v.at_least(-1), "sampling.reasoning_budget_tokens"),
    _flag("--reasoning-budget-message", v.words, "sampling.reasoning_budget_message"),
    _flag("--reasoning-preserve", None, "default_template_kwargs", to.keep_reasoning, off="--no-reasoning-preserve"),
    _flag("--skip-chat-parsing", None, "force_pure_content_parser", off="--no-skip-chat-parsing"),
    _flag("--prefill-assistant", None, "prefill_assistant", off="--no-prefill-assistant"),
    _flag("-r --reverse-prompt", v.unescaped, "antiprompt", to.add("antiprompt")),
    _flag("-sp --special", None, "special"),

    # Sampling, where a request does not say
    _flag("-s --seed", v.seed, "sampling.seed"),
    _sampling("--samplers", v.samplers, "samplers", "SAMPLERS"),
    _flag("--sampler-seq --sampling-seq", v.sampler_letters, "sampling.samplers"),
    _flag("--ignore-eos", None, "sampling.ignore_eos"),
    _sampling("--temp --temperature", v.not_negative, "temp", "TEMP"),
    _sampling("--top-k", v.integer, "top_k", "TOP_K"),
    _sampling("--top-p", v.number, "top_p", "TOP_P"),
    _sampling("--min-p", v.number, "min_p", "MIN_P"),
    _sampling("--xtc-probability", v.number, "xtc_probability", "XTC_PROBABILITY"),
    _sampling("--xtc-threshold", v.number, "xtc_threshold", "XTC_THRESHOLD"),
    _flag("--typical --typical-p", v.number, "sampling.typ_p"),
    _flag("--repeat-last-n", v.at_least(0), "sampling.penalty_last_n", to.repeat_window),
    _sampling("--repeat-penalty", v.positive, "penalty_repeat", "PENALTY_REPEAT"),
    _flag("--presence-penalty", v.number, "sampling.penalty_present"),
    _flag("--frequency-penalty", v.number, "sampling.penalty_freq"),
    _flag("--dry-multiplier", v.number, "sampling.dry_multiplier"),
    _flag("--dry-base", v.number, "sampling.dry_base", to.dry_base),
    _flag("--dry-allowed-length", v.integer, "sampling.dry_allowed_length"),
    _flag("--dry-penalty-last-n", v.at_least(0), "sampling.dry_penalty_last_n"),
    _flag("--adaptive-target", v.number, "sampling.adaptive_target"),
    _flag("--adaptive-decay", v.number, "sampling.adaptive_decay"),
    _flag("--dynatemp-range", v.number, "sampling.dynatemp_range"),
    _flag("--dynatemp-exp", v.number, "sampling.dynatemp_exponent"),
    _sampling("--mirostat", v.at_least(0, 2), "mirostat", "MIROSTAT"),
    _sampling("--mirostat-lr", v.number, "mirostat_eta", "MIROSTAT_ETA"),
    _sampling("--mirostat-ent", v.number, "mirostat_tau", "MIROSTAT_TAU"),
    _flag("--grammar", v.words, "sampling.grammar", to.user_grammar),
    _flag("--grammar-file", v.file_text, "sampling.grammar", to.user_grammar),
    _flag("-j --json-schema", v.json_text, "sampling.grammar", to.schema_grammar),
    _flag("-jf --json-schema-file", v.json_file, "sampling.grammar", to.schema_grammar),
    _flag("-bs --backend-sampling", None, "sampling.backend_sampling"),

    # Speculative decoding
    _flag("--spec-draft-model -md --model-draft", v.words, f"{_DRAFT}.mparams.path"),
    _flag("--spec-draft-ngl -ngld --gpu-layers-draft --n-gpu-layers-draft", v.layers, f"{_DRAFT}.n_gpu_layers"),
    _flag("--spec-draft-device -devd --device-draft", v.words, f"{_DRAFT}.devices"),
    _flag("--spec-draft-threads -td --threads-draft", v.integer, f"{_DRAFT}.cpuparams.n_threads",
          to.thread_count(f"{_DRAFT}.cpuparams.n_threads")),
    _flag("--spec-draft-threads-batch -tbd --threads-batch-draft", v.integer, f"{_DRAFT}.cpuparams_batch.n_threads",
          to.thread_count(f"{_DRAFT}.cpuparams_batch.n_threads")),
    _cpus("--spec-draft-cpu-mask -Cd --cpu-mask-draft", v.cpu_mask, f"{_DRAFT}.cpuparams.cpumask"),
    _cpus("--spec-draft-cpu-range -Crd --cpu-range-draft", v.cpu_range, f"{_DRAFT}.cpuparams.cpumask"),
    _flag("--spec-draft-cpu-strict --cpu-strict-draft", v.flag01, f"{_DRAFT}.cpuparams.strict_cpu"),
    _flag("--spec-draft-prio --prio-draft", _PRIORITY, f"{_DRAFT}.cpuparams.priority"),
    _flag("--spec-draft-poll --poll-draft", v.at_least(0, 100), f"{_DRAFT}.cpuparams.poll"),
    _cpus("--spec-draft-cpu-mask-batch -Cbd --cpu-mask-batch-draft", v.cpu_mask, f"{_DRAFT}.cpuparams_batch.cpumask"),
    _flag("--spec-draft-cpu-strict-batch --cpu-strict-batch-draft", v.flag01, f"{_DRAFT}.cpuparams_batch.strict_cpu"),
    _flag("--spec-draft-prio-batch --prio-batch-draft", _PRIORITY, f"{_DRAFT}.cpuparams_batch.priority"),
    _flag("--spec-draft-poll-batch --poll-batch-draft", v.at_least(0, 100), f"{_DRAFT}.cpuparams_batch.poll"),
    _flag("--spec-draft-type-k -ctkd --cache-type-k-draft", _CACHE, f"{_DRAFT}.cache_type_k"),
    _flag("--spec-draft-type-v -ctvd --cache-type-v-draft", _CACHE, f"{_DRAFT}.cache_type_v"),
    _flag("--spec-draft-override-tensor -otd --override-tensor-draft", v.tensor_buffers,
          f"{_DRAFT}.tensor_buft_overrides", to.add_text(f"{_DRAFT}.tensor_buft_overrides")),
    _flag("--spec-draft-cpu-moe -cmoed --cpu-moe-draft", None, f"{_DRAFT}.tensor_buft_overrides",
          to.all_on_cpu(f"{_DRAFT}.tensor_buft_overrides", _EXPERTS)),
    _flag("--spec-draft-n-cpu-moe --spec-draft-ncmoe -ncmoed --n-cpu-moe-draft", v.at_least(0),
          f"{_DRAFT}.tensor_buft_overrides", to.first_layers_on_cpu(f"{_DRAFT}.tensor_buft_overrides", _EXPERTS)),
    _flag("--spec-draft-n-max", v.at_least(0), f"{_DRAFT}.n_max"),
    _flag("--spec-draft-n-min", v.at_least(0), f"{_DRAFT}.n_min"),
    _flag("--spec-draft-p-split --draft-p-split", v.number, f"{_DRAFT}.p_split"),
    _flag("--spec-draft-p-min --draft-p-min", v.number, f"{_DRAFT}.p_min"),
    _flag("--spec-draft-backend-sampling", None, f"{_DRAFT}.backend_sampling", off="--no-spec-draft-backend-sampling"),
    _flag("--spec-draft-sampling", v.draft_sampling, f"{_DRAFT}.probabilistic"),
    _flag("--spec-type", _SPECULATIVE, "speculative.types", to.add("speculative.types")),
    _flag("--spec-default", None, "speculative.types", to.ngram_defaults),
    _flag("--spec-synth-len", v.number, "speculative.synth_len"),
    _flag("--spec-synth-rates", v.listed(v.number), "speculative.synth_rates"),
    _flag("--spec-ngram-mod-n-min", v.at_least(0, 1024), "speculative.ngram_mod.n_min"),
    _flag("--spec-ngram-mod-n-max", v.at_least(0, 1024), "speculative.ngram_mod.n_max"),
    _flag("--spec-ngram-mod-n-match", _NGRAM, "speculative.ngram_mod.n_match"),
    _flag("--spec-ngram-simple-size-n", _NGRAM, "speculative.ngram_simple.size_n"),
    _flag("--spec-ngram-simple-size-m", _NGRAM, "speculative.ngram_simple.size_m"),
    _flag("--spec-ngram-simple-min-hits", v.at_least(1), "speculative.ngram_simple.min_hits"),
    _flag("--spec-ngram-map-k-size-n", _NGRAM, "speculative.ngram_map_k.size_n"),
    _flag("--spec-ngram-map-k-size-m", _NGRAM, "speculative.ngram_map_k.size_m"),
    _flag("--spec-ngram-map-k-min-hits", v.at_least(1), "speculative.ngram_map_k.min_hits"),
    _flag("--spec-ngram-map-k4v-size-n", _NGRAM, "speculative.ngram_map_k4v.size_n"),
    _flag("--spec-ngram-map-k4v-size-m", _NGRAM, "speculative.ngram_map_k4v.size_m"),
    _flag("--spec-ngram-map-k4v-min-hits", v.at_least(1), "speculative.ngram_map_k4v.min_hits"),
    _flag("-lcs --lookup-cache-static", v.words, "speculative.ngram_cache.lookup_cache_static"),
    _flag("-lcd --lookup-cache-dynamic", v.words, "speculative.ngram_cache.lookup_cache_dynamic"),

    # The log
    _flag("-lv --verbosity --log-verbosity", v.integer, "verbosity"),
    _flag("-v --verbose --log-verbose", None, "verbosity", to.fixed("verbosity", 0x7FFFFFFF)),
    _flag("--log-prompts-dir", v.words, "path_prompts_log_dir"),
)
# fmt: on

ABSENT: frozenset[str] = frozenset(
    """
    -e --escape --no-escape -dev --device --rpc --override-kv --control-vector --control-vector-scaled
    --control-vector-layer-range --top-nsigma --top-n-sigma --dry-sequence-breaker --spm-infill --log-colors
    --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps -dt --defrag-thold
    -l --logit-bias
    """.split()  # noqa: SIM905 - a list of 21 strings would be a column of its own
)
"""Flags that only `llama-server` has: the embedded engine has no parameter for them."""

_PRINTS = "makes the engine print something and end"
_NETWORK = "makes the engine fetch a model from the network; `source` names a file"
_ROUTER = "is for llama.cpp's own router; Corral starts one engine per model"
_TOOLS = "lets whoever reaches the model run programs or read files here"
_FRONT = "is about who may reach the engine and where; clients talk to Corral, which listens by `listen` and `port`"
_LOG = "would move the engine's output away from where `corral logs` finds it"
_GONE = "was removed from llama.cpp: see --spec-draft-n-max, --spec-draft-n-min and --spec-ngram-…"
REFUSED: dict[str, str] = {
    name: reason
    for names, reason in {
        "-h --help --usage --version -cl --cache-list --completion-bash --list-devices": _PRINTS,
        "-mu --model-url -dr --docker-repo -hf -hfr --hf-repo -hff --hf-file -hft --hf-token -mmu --mmproj-url"
        " --spec-draft-hf -hfd -hfrd --hf-repo-draft --embd-gemma-default --fim-qwen-1.5b-default"
        " --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec --fim-qwen-14b-spec --fim-qwen-30b-default"
        " --gpt-oss-20b-default --gpt-oss-120b-default --vision-gemma-4b-default --vision-gemma-12b-default": _NETWORK,
        "--models-dir --models-preset --models-max --models-autoload --no-models-autoload": _ROUTER,
        "--tools --tools-runtime --mcp-servers-config --mcp-servers-json -ag --agent -no-ag --no-agent --ui-mcp-proxy"
        " --webui-mcp-proxy --no-ui-mcp-proxy --no-webui-mcp-proxy": _TOOLS,
        "--reuse-port --path --cors-origins --cors-methods --cors-headers --cors-credentials --no-cors-credentials"
        " --api-prefix --ssl-key-file --ssl-cert-file --ui-config --webui-config --ui-config-file"
        " --webui-config-file": _FRONT,
        "--log-disable --log-file --log-jsonl --no-log-jsonl": _LOG,
        "--draft --draft-n --draft-max --draft-min --draft-n-min --spec-ngram-size-n --spec-ngram-size-m"
        " --spec-ngram-min-hits": _GONE,
    }.items()
    for name in names.split()
}
"""Flags that `args` may not have with any executable, and why."""
