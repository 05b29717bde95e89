"""Memory: the bytes that a model will take on each device, from its header alone.

run
    the settings of one engine that matter here: context, slots, cache types, batch, devices.
layout
    what a header says about the model's layers.
graph
    the steps that llama.cpp reserves scratch memory for, as shapes without data: `whole.build`.
prediction
    weights, cache and scratch by device: `predict.predict`.

`shape.read_layout(header)` and a `Run` go into `whole.build`, which makes the graph of `blocks` and `recurrent`
parts; `assign` says where each step is computed, `allocate.scratch` plays the engine's allocator through, `cache`
counts keys, values and states, and `predict` adds it all up. Nothing here reads a file or asks a device.
"""
