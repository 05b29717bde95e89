"""Models that other tools hold on this machine, read where they lie and never changed.

peer
    a tool with models of its own: Ollama, Docker Model Runner, the Hugging Face cache, LM Studio, llama.cpp's cache.
place
    a directory in which a peer keeps them; there may be several, such as the user's and the service's.
outside model
    what a place was found to hold: files, what each is for, the name it would have in the store, and why it cannot be
    imported if it cannot.

`known.PEERS` names the peers; a peer's `places` come from the environment; its `read(place)` gives `OutsideModel`s,
which `models/importing.py` brings into the store and `models/roots.py` serves as they are.
"""
