"""What is known of a model's content before any engine runs.

header
    what a GGUF file says about itself: `gguf.read_header`, one file, bounded, no array of tokens ever kept.
tensor
    one matrix of weights: name, shape, type, and where its bytes lie.
shard
    one of the files of a model that is split over several: `shards.read_model` joins their headers into one.
estimate
    the memory a header, a context and a number of slots come to: weights, KV cache and compute buffers.

A path goes in; `shards.read_model` gives a `Header`; `footprint.estimate` turns that into bytes; the engine's adapter
makes a `Footprint` by device from it. Anything wrong with a file is a `ModelFileError` here, before anything starts.
"""
