"""What the demo model knows about using Corral: what it is, its commands, its configuration; see `facts`."""

from __future__ import annotations

BASICS: tuple[tuple[tuple[str, ...], str], ...] = (
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
            "(hello|hi|hey), (who|what) are you",
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
            "where (do|can) i (name|define|configure|add|put) [my|new] models",
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
            "how long until (a model|an idle model) (stops|is stopped|gets stopped)",
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
)
