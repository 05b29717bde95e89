"""What the demo model knows about Corral: for each true answer, the ways to ask for it.

Each entry is `(patterns, answer)`; the patterns are in the small grammar of `phrases`.
"""

from __future__ import annotations

FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "(what is|what's|what exactly is) corral",
            "(tell me|say something) about corral",
            "[please] (explain|describe|introduce) corral",
            "what (is|does) this (program|tool|software|project) [do]",
            "(what does corral do|what is corral for|what is corral good for)",
            "explain corral in (one sentence|a sentence|short|brief)",
            "corral",
            "[can you] tell me what corral is",
            "what is a corral",
            "(describe|tell me about) corral in (one sentence|short|a few words)",
            "in (one sentence|short|a few words), what is corral",
            "what is corral [and what does it do]",
            "give me (a fact|some facts|three facts|a short summary) about corral",
        ),
        "Corral is a local AI model runner and control plane. It starts the right engine when a request arrives, keeps "
        "it healthy, and stops it when it is idle.",
    ),
    (
        (
            "(who are you|what are you|who is this|who am i talking to|who am i speaking to)",
            "(introduce yourself|tell me about yourself|tell me who you are)",
            "what (model|kind of model) are you",
            "which model (are you|is this)",
            "are you (a model|an ai|a robot|a bot|a language model|chatgpt|human|a human|real)",
            "what can you tell me about yourself",
        ),
        "I am the Corral demo model, a tiny language model with less than four million parameters. I know a few things "
        "about Corral and some small talk.",
    ),
    (
        (
            "(explain|describe) corral in (detail|depth|full)",
            "tell me (everything|more|a lot) about corral",
            "(explain|describe) in detail (what corral does|how corral works)",
            "how does corral work [in detail]",
            "(write|give me) a (long|longer|detailed) (explanation|description|text) (of|about) corral",
            "(what happens|what does corral do) when (a request arrives|i send a request|a request comes in)",
            "give me the (long|full) (version|story) of corral",
        ),
        "Corral is a home for AI models on your own computer. You name your models in a file called models.yaml. When "
        "a request arrives, Corral looks up the model and starts an engine for it, in a process of its own. A small "
        "process called the warden owns that engine and writes down how it ends. As soon as the engine is ready, "
        "Corral passes your request on and relays the answer token by token. While a model is busy, it is never "
        "stopped. When nobody has used it for five minutes, Corral stops it and the memory is free again. If an "
        "engine crashes, only that one model is gone, and the next request starts it again. Everything stays on your "
        "machine, and there is no telemetry.",
    ),
    (
        (
            "(what is your name|what's your name|your name|do you have a name)",
            "(how should i call you|how are you called)",
            "(tell|give) me your name",
            "what (are you called|do people call you)",
        ),
        "My name is Corral Demo. I am a very small model that comes with Corral.",
    ),
    (
        (
            "(what can you do|what do you know|what are you able to do|how can you help me|what can i ask you)",
            "(what can i ask|what should i ask [you]|what do you do|can you help me|help|help me)",
            "what (questions|topics) (can|do) you (answer|know)",
            "(i need help|i need some help|what are your skills|what are you good at)",
        ),
        "I can answer simple questions about Corral, such as how to start or stop a model. I also know some capitals, "
        "small sums, a joke and a story.",
    ),
    (
        (
            "how (big|large|small) are you",
            "how many parameters do you have",
            "what is your size",
            "how many (parameters|weights) (are there in|has) (you|this model|the demo model)",
        ),
        "I am very small: less than four million parameters in a file of less than four megabytes.",
    ),
    (
        (
            "(who made you|who trained you|who created you|who built you|where do you come from|how were you made)",
            "how (were|was) (you|the demo model|this model) (trained|made|built)",
            "(what|which) data were you trained on",
            "what were you trained on",
        ),
        "I was trained in a few minutes on an ordinary CPU by a script in Corral's own repository, on short sentences "
        "that the script writes itself.",
    ),
    (
        (
            "(what is|what's) the demo model [for]",
            "why is there a demo model",
            "what is (corral-demo|corral demo|builtin:demo)",
            "why are you so (small|tiny|little)",
            "what are you for",
        ),
        "The demo model is a tiny model that comes with Corral, so that you can try a streamed answer without any "
        "download, account or GPU.",
    ),
    (
        (
            "how (do|can) i (start|launch) corral",
            "how (do|can) (i|we) (start|launch|run) the (server|daemon)",
            "how to (start|launch|run) (corral|the server|the corral server)",
            "(start|launch) corral",
            "what (is|does) corral serve [do]",
            "which command starts (corral|the server)",
            "what starts (corral|the server)",
        ),
        "Run corral serve. It listens on 127.0.0.1, port 8642, and starts each model when the first request for it "
        "arrives.",
    ),
    (
        (
            "how (do|can) i (stop|end|quit|shut down) corral",
            "how to (stop|end|quit) (corral|the server)",
            "how (do|can) i (stop|end|quit|shut down) the (server|daemon)",
        ),
        "Press Ctrl-C in the terminal where corral serve runs. Corral finishes the running streams and then ends its "
        "engines, so nothing is left behind.",
    ),
    (
        (
            "how (do|can) i (start|load|run|launch) a model",
            "how to (start|load|run) a model",
            "(start|load) a model",
            "which command (starts|loads) a model",
            "what does corral start do",
            "how (do|does) (models|a model) (start|get started|get loaded)",
            "do i have to start a model [myself|by hand]",
        ),
        "Just send a request and Corral starts the model for you. You can also type corral start and the name of the "
        "model.",
    ),
    (
        (
            "how (do|can) i (stop|unload|end|shut down) a model",
            "how to (stop|unload|end) a model",
            "(stop|unload) a model",
            "which command (stops|unloads) a model",
            "what does corral stop do",
        ),
        "Type corral stop and the name of the model. If you do nothing, Corral stops an idle model by itself after "
        "five minutes.",
    ),
    (
        (
            "how (do|can) i restart a model",
            "how to restart (a|the) model",
            "restart a model",
            "what does corral restart do",
            "which command restarts a model",
        ),
        "Type corral restart and the name of the model. Corral stops its engine and starts a new one.",
    ),
    (
        (
            "how (do|can) i (list|see|show) [all|my] [the] models",
            "how to (list|see|show) [all|my] [the] models",
            "(list|show) [me] [all|my] [the] models",
            "(which|what) models (are there|do i have|do you have|can i use|are available)",
            "what does corral list do",
            "which command lists [the] models",
        ),
        "Type corral list to see every model that Corral knows. Clients can ask for the same list at /v1/models.",
    ),
    (
        (
            "how (do|can) i see (what is running|running models|which models are running|loaded models)",
            "(which|what) models are (running|loaded|active)",
            "what (is running|is loaded) [right now]",
            "what does corral ps (do|show)",
            "(show|list) [me] [the] running models",
        ),
        "Type corral ps. It shows each running model with its engine, state, memory, port and the time until it stops.",
    ),
    (
        (
            "how (do|can) i (chat with|talk to|use|ask) a model",
            "how to (chat with|talk to) a model",
            "what does corral run do",
            "how (do|can) i (chat|chat in the terminal|chat on the command line)",
            "can i chat in the terminal",
        ),
        "Type corral run and the name of a model, and then chat with it in your terminal. Add a prompt in quotes to "
        "get a single answer.",
    ),
    (
        (
            "(what is|what's|what is in) [the] models.yaml [for]",
            "(explain|describe|tell me about) [the] models.yaml",
            "where (do|can) i (name|define|configure|add|list|put) [my|new] models",
            "how (do|can) i (add|define|configure) a [new] model",
            "how to (add|configure|define) a model",
            "(what is|where is|tell me about) the (config|configuration|configuration file|config file)",
            "how (do|can) i configure corral",
            "add a model",
        ),
        "The file models.yaml names your models. Each entry has a name and a source, and it may set the context, the "
        "idle timeout, extra engine flags and more.",
    ),
    (
        (
            "how (do|can) i (check|validate|test) (my|the) (config|configuration|models.yaml)",
            "how to (check|validate) (my|the) (config|configuration|models.yaml)",
            "what does corral config check do",
            "is my (config|configuration|models.yaml) (right|correct|valid)",
        ),
        "Type corral config check. It reports every problem at once, with the line and the nearest valid key.",
    ),
    (
        (
            "how (do|can) i (create|make|write|get) a (config|configuration|models.yaml)",
            "how to (create|write) (a|my) (config|configuration|models.yaml)",
            "what does corral config init do",
            "(is there|give me|show me) an example (config|configuration|models.yaml)",
        ),
        "Type corral config init to write a first models.yaml. With --example it also shows two larger models with "
        "small notes on every key.",
    ),
    (
        (
            "how (do|can) i (reload|apply) the (config|configuration)",
            "how to reload the (config|configuration)",
            "what does corral reload do",
            "what happens when i (edit|change) [the] (config|configuration|models.yaml)",
            "what happens with a (bad|broken|wrong) (config|configuration|models.yaml)",
        ),
        "Type corral reload, or just save the file. A bad configuration is refused as a whole, and the old one stays "
        "in use.",
    ),
    (
        (
            "(what is|what's|explain) the idle timeout",
            "when does corral stop a model",
            "when (is|does) (a model|an idle model) (stopped|stop)",
            "how long does a model stay (loaded|running|ready|in memory)",
            "what happens (to|with) (a model that is idle|an idle model|idle models)",
            "what (is|does) idle_timeout [do]",
            "(why|how) (was|did) my model (stopped|stop)",
        ),
        "A model that nobody has used for five minutes is stopped, and its memory is free again. You can change this "
        "with idle_timeout, or set it to never.",
    ),
    (
        (
            "how (do|can) i keep a model (loaded|running|ready|in memory) [forever|always]",
            "how to keep a model (loaded|running)",
            "can a model stay loaded [forever|always]",
            "how do i (stop|keep) corral from stopping (a|my) model",
        ),
        "Set idle_timeout to never for that model. With preload it is also started together with Corral.",
    ),
    (
        (
            "(what is|what does|explain) max_active [do|mean]",
            "how (do|can) i run (only one|exactly one|one) model at a time",
            "can corral run one model at a time",
            "one model at a time",
            "how (do|can) i limit (the number of models|how many models run)",
            "how many models can run at (once|the same time)",
        ),
        "Set max_active to 1 in models.yaml. Then exactly one model runs at a time, and Corral swaps models when a "
        "request needs another one.",
    ),
    (
        (
            "(will|does) corral (stop|evict|kill|interrupt) a busy model",
            "what happens (to|with) (a busy model|busy models)",
            "are busy models (stopped|evicted)",
            "can a running (answer|request|stream) be (cut|interrupted|stopped)",
        ),
        "A busy model is never stopped to make room. The other request waits in a queue until the running answers are "
        "finished.",
    ),
    (
        (
            "what happens when (the queue is full|there are too many requests|many requests arrive)",
            "what (is|does) the queue [do]",
            "(is there|does corral have) a queue",
            "how long is the queue",
        ),
        "Requests wait in a bounded queue. When the queue is full, Corral answers 503 and says when it makes sense to "
        "try again.",
    ),
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
            "where (can|do) i (see|find) the (log|logs|log file) of a model",
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
            "can i (use|run) corral without a (gpu|graphics card)",
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
