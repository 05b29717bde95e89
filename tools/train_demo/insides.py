"""What the demo model knows about the parts of Corral, its surroundings and its manners; see `facts`."""

from __future__ import annotations

INSIDES: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "(what is|what's|who is|explain) (a|the) warden",
            "what does the warden do",
            "why is there a warden",
            "tell me about the warden",
            "warden",
        ),
        "The warden is a tiny process that owns every engine. It outlives the server, so no engine is ever lost or "
        "left behind.",
    ),
    (
        (
            "(what is|what's) a unit",
            "what does unit mean",
            "explain (units|what a unit is)",
            "tell me about units",
        ),
        "A unit is one supervised engine with one model. It has a state and a generation number.",
    ),
    (
        (
            "(what are the|which) [unit] states (are there|does a unit have|can a unit have|exist)",
            "(what are|explain|list|name) the [unit] states [of a unit]",
            "what states (does|can) a unit (have|be in)",
            "unit states",
        ),
        "A unit goes from stopped to starting, loading and ready. Later it drains, stops, and is stopped again. After "
        "an error it may back off or fail.",
    ),
    (
        (
            "(what is|what's) an engine",
            "what does engine mean",
            "(which|what) engine[s] (does corral use|are there|do you use|can corral use|are supported)",
            "explain engines",
            "tell me about (engines|the engine)",
        ),
        "An engine is the program that serves a model. Corral uses llama.cpp, either the embedded one or a llama- "
        "server found on your machine.",
    ),
    (
        (
            "(what is|what's|explain) (llama.cpp|llama cpp|xllamacpp|llama-server)",
            "tell me about (llama.cpp|llama-server)",
            "does corral use llama.cpp",
        ),
        "It is the engine that Corral uses: a fast program that runs language models on ordinary computers. Corral "
        "comes with it built in.",
    ),
    (
        (
            "(what is|what's|explain) (a gguf|gguf|a gguf file)",
            "(which|what) (file format|format|files) (do models have|does corral use|can corral read)",
            "tell me about gguf",
        ),
        "GGUF is the file format of llama.cpp. One file holds the weights, the vocabulary and the chat template of a "
        "model.",
    ),
    (
        (
            "what happens when (an engine|a model|the engine) (crashes|dies|breaks)",
            "what if (an engine|a model|the engine) (crashes|dies)",
            "why are engines separate processes",
            "(does|will) a crash stop (corral|everything|the server)",
        ),
        "Every engine is a process of its own, so a crash takes one model and not the server. Corral tells you the "
        "reason and starts the engine again when it is needed.",
    ),
    (
        (
            "how (do|can) i (see|read|follow|find|show) the logs",
            "how to (see|read|follow) [the] logs",
            "where are the logs",
            "what does corral logs do",
            "(show|give) me the logs",
            "where (can|do) i (see|find) the (log|logs|log file) of (a|my) model",
            "how (do|can) i (look at|see|read) the logs of (a|my) model",
        ),
        "Type corral logs and the name of the model. Add -f to follow the log while the engine writes it.",
    ),
    (
        (
            "what does corral doctor do",
            "(what is|what's) (corral doctor|the doctor) [for]",
            "how (do|can) i (check|inspect) my (hardware|machine|computer|installation)",
            "what is (missing|wrong) on my (machine|computer)",
            "something is (wrong|broken)",
            "doctor",
        ),
        "Type corral doctor. It shows which hardware, engines and tools are here, what is missing, and the exact "
        "command that fixes it.",
    ),
    (
        (
            "(what does corral status do|what is corral status)",
            "how (do|can) i see the status [of corral]",
            "(show me the|what is the) status",
            "is corral (running|up|alive|ok|healthy)",
        ),
        "Type corral status to see whether Corral is running and how it does. Programs can ask /health and /ready.",
    ),
    (
        (
            "(what|which) version (is this|are you|of corral is this|do i have)",
            "how (do|can) i see the version",
            "what does corral version do",
            "version",
        ),
        "Type corral version to see which version of Corral you have.",
    ),
    (
        (
            "(where|on which address|on which port|at which address) does corral listen",
            "(what is|which is) the (port|address|default port|url)",
            "which port (does corral use|is used|is it)",
            "what is the (port|address|url) of corral",
            "which address (do|should) i (use|open)",
            "what is 8642",
        ),
        "Corral listens on 127.0.0.1, port 8642. That is your own machine only, so nobody else can reach it.",
    ),
    (
        (
            "(is corral|is it) (safe|secure|private)",
            "can (others|other people|somebody|anyone) (reach|use|see) my (models|corral|server)",
            "what is loopback",
            "why does corral (only|just) listen on (loopback|127.0.0.1|localhost)",
            "is corral reachable from (outside|the network|the internet)",
        ),
        "By default Corral listens on loopback only, which means that only programs on your own machine can reach it.",
    ),
    (
        (
            "(does corral|do you) (have|send|collect|use) (telemetry|my data|data|statistics)",
            "is there [any] telemetry",
            "what about (telemetry|privacy|my data)",
            "(does|will) my data (leave|stay on) (my|the) (machine|computer)",
            "(do you|does corral) (spy|track) [on] me",
            "where does my data go",
            "telemetry",
        ),
        "There is no telemetry in Corral. Your prompts and answers stay on your own machine.",
    ),
    (
        (
            "(what is|what's|which is) (the|your|its) (license|licence) [of corral]",
            "(which|what) (license|licence) (does corral have|has corral|is it)",
            "is corral (free|open source|free software)",
            "under which (license|licence) is corral",
            "how much does corral cost",
            "(license|licence)",
        ),
        "Corral is free software under the Apache License, version 2.0.",
    ),
    (
        (
            "do i need a gpu",
            "(does corral|do you) need a (gpu|graphics card)",
            "can i (use|run) (corral|it|this) without [a] (gpu|graphics card)",
            "does corral (run|work) (on a cpu|without a gpu|on my laptop)",
            "(is a gpu|is a graphics card) (needed|required|necessary)",
            "do you run on a (gpu|cpu)",
        ),
        "No, you do not need a GPU. Corral works on an ordinary computer, and it uses a graphics card when there is "
        "one.",
    ),
    (
        (
            "(what do i need|what is needed) (for|to run|to use|to install) corral",
            "what are the requirements [of corral]",
            "do i need (a compiler|root|an account|docker|root rights)",
            "which python (version|versions) (does corral need|do i need)",
            "does corral need (root|an account|a compiler)",
        ),
        "You need Python 3.11 or newer, make and git. No root rights, no compiler, no GPU and no account are needed.",
    ),
    (
        (
            "how (do|can) i (install|try|get|set up) corral",
            "how to (install|try|get|set up) corral",
            "(install|try) corral",
            "what does make run do",
            "how (do|can) i (begin|get started)",
            "getting started",
        ),
        "Clone the repository and type make run. It installs Corral, starts the demo model and prints a first answer "
        "token by token.",
    ),
    (
        (
            "how (do|can) i run the tests",
            "how to run the tests",
            "what does make test do",
            "(run|start) the tests",
            "how is corral tested",
        ),
        "Type make test. The tests use real engines on tiny models, and they take a few minutes on two cores.",
    ),
    (
        (
            "(which|what) (operating system|operating systems|systems|platforms) (does corral support|are supported)",
            "does corral (run|work) on (linux|a mac|macos|windows|wsl)",
            "can i use corral on (linux|a mac|macos|windows|wsl)",
            "is there corral for (linux|mac|macos|windows)",
        ),
        "Corral runs on Linux first. WSL2 and macOS work too, with engines as plain processes.",
    ),
    (
        (
            "(which|what) (api|apis) (does corral have|does corral offer|does corral speak|are there|can i use)",
            "is there an (api|openai api|open ai api)",
            "does corral (speak|have|support|offer) (the openai api|an openai api|openai)",
            "can i use (the openai client|openai clients|my openai client|an openai client)",
            "how (do|can) i (use|call) (the api|corral from python|corral from a program)",
            "is corral (compatible with openai|openai compatible)",
            "tell me about the api",
        ),
        "Corral speaks the OpenAI API. Point your client at http://127.0.0.1:8642/v1 and use the name of your model.",
    ),
    (
        (
            "(what is|what's|explain) the control api",
            "(what|which) (is|calls are) (under|in) [the] (/control|control api)",
            "how can (a program|programs) control corral",
            "what is under /control",
        ),
        "The control API lives under /control. Programs can start, stop and watch models there, and read logs and "
        "events.",
    ),
    (
        (
            "(what is|what's|explain) streaming",
            "(can|does) corral stream [answers]",
            "how (do|can) i stream (an answer|answers)",
            "does corral support streaming",
            "what are tokens",
            "what is a token",
        ),
        "Corral streams an answer token by token, and a token is a small piece of text. If a stream breaks, you get a "
        "clear error and never a silent cut.",
    ),
    (
        (
            "(what is|what's|explain) (the context|context length|the context length|a context window)",
            "how (do|can) i (set|change) the context [length]",
            "what does context mean",
        ),
        "The context is the number of tokens that a model can look back on. You set it with the key context in "
        "models.yaml.",
    ),
    (
        (
            "what (are|is) an alias",
            "what are aliases",
            "can a model have (two names|several names|another name|more names)",
            "how (do|can) i give a model (another|a second) name",
        ),
        "An alias is another name for a model. Requests for the alias go to the same model.",
    ),
    (
        (
            "(what does|what is) (preload|pin) [do|mean]",
            "how (do|can) i preload a model",
            "can corral start a model at (startup|the start|start)",
        ),
        "With preload a model is started together with Corral. With pin it is not stopped to make room for another "
        "one.",
    ),
    (
        (
            "what happens (if|when) (the model|a model) is unknown",
            "what (if|happens when) i (mistype|misspell) (the name|a name|a model)",
            "what happens with an unknown model",
        ),
        "Corral answers 404 and names the nearest model that it knows.",
    ),
    (
        (
            "what happens (if|when) (the file|a model file|a file) is (broken|corrupt|missing|damaged)",
            "what (if|about) (a broken|a missing|a corrupt) (file|model file)",
        ),
        "Corral reads the header of a model file before anything starts. A broken file gives one clear error with a "
        "hint, and nothing that runs is disturbed.",
    ),
    (
        (
            "why is (it|corral) called corral",
            "(why the name|where does the name come from|what does the name mean|what does corral mean)",
            "what does the word corral mean",
        ),
        "A corral is a fenced place where horses are kept safe. Corral keeps models in the same way, with llamas "
        "instead of horses.",
    ),
    (
        (
            "(what is|what's|explain) (a language model|an ai model|a model|an llm|ai)",
            "what does model mean",
            "how does a language model work",
        ),
        "A language model is a program that has learned from text to guess the next word. It writes an answer one "
        "small piece at a time.",
    ),
)
