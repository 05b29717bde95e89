"""Writing the trained network as a GGUF file: matrices in Q8_0, norms in F32."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
from corpus import END, SPECIAL, START, TEXT
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from network import Llama
from tokenizers import Tokenizer

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    f"{{{{- '{START}' + message['role'] + '\\n' + message['content'] + '{END}' + '\\n' -}}}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    f"{{{{- '{START}assistant\\n' -}}}}"
    "{%- endif -%}"
)


def write(path: Path, model: Llama, tokenizer: Tokenizer, *, story: str) -> None:
    """Write `model` to `path`; `story` says in the file how it was trained."""
    shape = model.shape
    writer = GGUFWriter(path, "llama")
    writer.add_name("Corral Demo")
    writer.add_author("The Corral authors")
    writer.add_license("Apache-2.0")
    writer.add_description(story)
    writer.add_sampling_temp(0.0)  # a model this small answers beside the point when asked to be creative
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    _add_tokenizer(writer, tokenizer, shape.vocabulary)
    for name, parameter in model.named_parameters():
        array = parameter.detach().numpy()
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            packed = gguf.quantize(array, GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, size: int) -> None:
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    merges = [
        pair if isinstance(pair, str) else " ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in SPECIAL else TokenType.NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.token_to_id(TEXT))
    writer.add_eos_token_id(tokenizer.token_to_id(END))
    writer.add_eot_token_id(tokenizer.token_to_id(END))
    writer.add_pad_token_id(tokenizer.token_to_id(TEXT))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)
