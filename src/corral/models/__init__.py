"""Models: what is known of one before any engine runs, and how it gets into the store and out of it.

header
    what a GGUF file says about itself: `gguf.read_header`, one file, bounded, no array of tokens ever kept.
tensor
    one matrix of weights: name, shape, type, and where its bytes lie.
shard
    one of the files of a model that is split over several: `shards.read_model` joins their headers into one.
estimate
    the memory a header, a context and a number of slots come to: weights, KV cache and compute buffers.

content
    a stored model's artifact, and what its small layers say: template, system prompt, parameters, licences.
placed
    the same model's files under their real names in a directory, as an engine opens them: `unpack.place`.
card
    all of this told to people, and whether it fits here.

download
    the making of a stored model from a reference, by threads of its own, recorded as a job so that a later process
    can go on with it: `downloads` owns all of them, `pull` does one, `fetch` one of its blobs.
chunk
    a part of a blob that is on record once it is written; a *span* is a run of them that one connection fetches.

A path goes in; `shards.read_model` gives a `Header`; `footprint.estimate` turns that into bytes; the engine's adapter
makes a `Footprint` by device from it. Anything wrong with a file is a `ModelFileError` here, before anything starts.
"""
