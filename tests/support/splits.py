"""Splitting a GGUF file as llama.cpp's `gguf-split` does."""

from __future__ import annotations

from pathlib import Path

from gguf import GGUFReader, GGUFValueType, GGUFWriter


def split(path: Path, into: Path, count: int) -> list[Path]:
    """Writes the model at `path` as `count` files into the directory `into`: the first one has the metadata."""
    into.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(path)
    per_file = -(-len(reader.tensors) // count)
    paths = []
    for number in range(count):
        file = into / f"{path.stem}-{number + 1:05}-of-{count:05}.gguf"
        writer = GGUFWriter(file, "llama")
        if number == 0:
            for key, item in reader.fields.items():
                if not key.startswith("GGUF.") and key != "general.architecture":
                    inner = item.types[1] if item.types[0] == GGUFValueType.ARRAY else None
                    writer.add_key_value(key, item.contents(), item.types[0], inner)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[number * per_file : (number + 1) * per_file]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        paths.append(file)
    return paths
