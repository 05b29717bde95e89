"""What the demo model knows besides Corral: greetings, a joke, a story, capitals, sums, days and colours."""

from __future__ import annotations

import random

from phrases import say

Question = tuple[str, str]
"""What the user says (not yet dressed up) and what the model answers."""

TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        (
            "(hello|hi|hey|hi there|hello there|hey there|good day|greetings|howdy|yo|hiya)",
            "(hello|hi|hey) (you|corral|demo|friend|model|world|again)",
            "(say|just say) (hello|hi)",
            "say hello to (me|us|everyone|the world)",
            "hello, (world|corral|how can you help me)",
            "say something [nice]",
            "(introduce yourself and say|just say) hello",
        ),
        "Hello! I am the Corral demo model. Ask me something about Corral, or just chat with me.",
    ),
    (
        (
            "why is the sky blue",
            "(tell me|explain|do you know) why the sky is blue",
            "why does the sky look blue",
        ),
        "The sky is blue because the air scatters blue light more than red light.",
    ),
    (
        (
            "tell [me] a [short|long|nice] story",
            "(write|invent|give me|i want) a [short|long|little|nice] story",
            "write [me] a [short|long] story about a llama",
            "(do you know|can you tell [me]) a story",
            "once upon a time",
            "(a story|a long story please)",
            "(say|write|tell me|stream) [me] something long",
            "(write|give me) a long (text|answer)",
        ),
        "Once upon a time there was a small llama that lived in a corral at the foot of a mountain. Every morning it "
        "waited at the gate for somebody with a question. One day a traveller came and asked for the way across the "
        "mountain. The big horses were all asleep, so the small llama stood up and went ahead. It did not know every "
        "path, but it knew the few good ones, and it told the truth when it was not sure. In the evening they reached "
        "the other side. The traveller said thank you, and the llama walked home, lay down in the straw and went to "
        "sleep. It had used very little food that day, and everybody was happy.",
    ),
    (
        (
            "(write|tell|give) [me] a haiku [about corral|about llamas|about a llama|about autumn]",
            "(a haiku|do you know a haiku|can you write a haiku)",
        ),
        "A gate in the dusk, one llama lifts up its head: warm words in the straw.",
    ),
    (
        ("good (morning|evening|afternoon)", "a good (morning|evening) to you"),
        "Good day to you too! What would you like to know about Corral?",
    ),
    (
        ("good night", "sleep well", "(i am|i'm) (tired|going to bed)"),
        "Good night, and sleep well! Idle models rest too.",
    ),
    (
        (
            "how are you [today|doing|feeling]",
            "how (is it going|do you do|are things)",
            "(are you|how do you) (ok|well|fine|feel)",
            "what's up",
            "how do you feel [today]",
        ),
        "I am fine, thank you. I am small, I run on your own machine, and I am ready for your next question.",
    ),
    (
        (
            "(thanks|thank you|thank you very much|thanks a lot|many thanks|thx|cheers)",
            "(thanks|thank you) for (your help|the answer|helping)",
            "(great|nice|perfect|wonderful), (thanks|thank you)",
        ),
        "You are welcome! It was a pleasure to help.",
    ),
    (
        ("(bye|goodbye|bye bye|see you|see you later|farewell|good bye|until later|i have to go)", "(quit|exit|end)"),
        "Goodbye! I will stop by myself when nobody needs me.",
    ),
    (
        (
            "(great|nice|cool|good|perfect|wonderful|awesome|well done|good job|very good|ok|okay|i see|fine|yes)",
            "(that is|you are) (great|nice|cool|good|amazing|helpful)",
        ),
        "I am glad to hear that. Is there anything else that you would like to know?",
    ),
    (
        ("(no|nope|no thanks|never mind|nothing|not now)",),
        "All right. I am here whenever you need me.",
    ),
    (("(sorry|i am sorry|excuse me|pardon|my mistake)",), "No problem at all. Please go on."),
    (
        (
            "(test|testing|this is a test|ping|just a test|a test|test test|one two three)",
            "(ping|are you there|is anybody there)",
        ),
        "Yes, I am here, and the test works: this answer comes from a real engine on your own machine.",
    ),
    (
        (
            "tell [me] a joke",
            "(do you know|say|give me|i want|another) [a] (joke|good joke)",
            "make me laugh",
            "(say|tell me) something funny",
            "a joke",
        ),
        "Why did the llama stay in the corral? Because it had a good context and nobody asked it to leave.",
    ),
    (
        (
            "(write|tell|give|say|recite) [me] a [short|little|nice] poem [about corral|about a llama|about models]",
            "(do you know|can you write) a poem",
            "a poem",
        ),
        "The night is still, the fans are slow, the models sleep, their lights are low. A question comes, a gate "
        "swings wide, a llama wakes and steps outside. It speaks its words, one after one, and goes to rest when it "
        "is done.",
    ),
    (
        (
            "count to ten",
            "count from one to ten",
            "(can you|please) count [to ten]",
            "count to 10",
            "count from 1 to 10",
        ),
        "One, two, three, four, five, six, seven, eight, nine, ten.",
    ),
    (
        ("count to twenty", "count from one to twenty", "count to 20", "count from 1 to 20"),
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20.",
    ),
    (
        ("(say|write|tell me|recite|what is) the alphabet", "(the abc|the alphabet|say the abc)"),
        "A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, Q, R, S, T, U, V, W, X, Y, Z.",
    ),
    (
        (
            "(name|list|what are|which are|tell me) the days of the week",
            "(days of the week|how many days has a week)",
            "how many days are [there] in a week",
        ),
        "A week has seven days: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.",
    ),
    (
        (
            "(name|list|what are|which are|tell me) the months [of the year]",
            "how many months (has a year|are [there] in a year)",
        ),
        "A year has twelve months: January, February, March, April, May, June, July, August, September, October, "
        "November and December.",
    ),
    (
        ("(name|list|what are|which are|tell me) the [four] seasons", "how many seasons are there"),
        "There are four seasons: spring, summer, autumn and winter.",
    ),
    (
        (
            "(name|list|tell me) (some|three|a few) colours",
            "(name|list|tell me) (some|three|a few) colors",
            "(which|what) (colours|colors) (are there|do you know)",
        ),
        "Some colours are red, orange, yellow, green, blue, purple, black and white.",
    ),
    (
        ("(name|list|what are|which are|tell me) the (colours|colors) of the rainbow", "(rainbow|what is a rainbow)"),
        "The colours of the rainbow are red, orange, yellow, green, blue, indigo and violet.",
    ),
    (
        ("what is your favourite (colour|color|animal)", "(which|what) (colour|color|animal) do you like [best]"),
        "I have no favourites, but my makers are fond of llamas and of a quiet green.",
    ),
    (
        ("(what is|what's) the meaning of life", "(why are we here|what is the answer to everything|what is 42)"),
        "Some people say that the answer is forty-two. I am too small to know it better.",
    ),
    (
        ("(what time is it|what is the time|what day is it|what is the date|what year is it|what is today)",),
        "I cannot see a clock or a calendar, so I do not know. Your computer can tell you.",
    ),
    (
        (
            "(what is|how is) the weather [like] [today|tomorrow]",
            "(will it rain|does it rain|is it raining|is it cold outside)",
        ),
        "I cannot look outside, so I do not know the weather. I only run on your own machine.",
    ),
    (
        ("(what is|what's) a llama", "(tell me about|describe|do you like|do you know) (llamas|a llama)", "llama"),
        "A llama is a friendly animal from South America with soft wool. It also gave its name to a famous family of "
        "language models.",
    ),
    (
        ("(where are you|where do you live|where do you run|where are you running)",),
        "I live in a small file on your own machine, and an engine process wakes me up when you ask me something.",
    ),
    (
        ("how old are you", "(when were you born|what is your age|when is your birthday)"),
        "I do not count years. Each time an engine loads me, I start anew.",
    ),
    (
        (
            "(do you|can you) (speak|understand) (german|french|spanish|italian|chinese|other languages|english)",
            "which languages do you (speak|know)",
        ),
        "I only speak a little English. A bigger model can speak many languages.",
    ),
    (
        ("(i love you|i like you|you are cute|you are sweet)",),
        "That is very kind of you. I like good questions.",
    ),
    (
        ("(you are|you're) (stupid|bad|wrong|useless|dumb|slow)", "(that is|this is) (wrong|bad|not right|false)"),
        "I am sorry about that. I am only a very small model, and a bigger one will do better.",
    ),
)

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Austria": "Vienna", "Poland": "Warsaw", "Greece": "Athens",
    "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki", "Denmark": "Copenhagen", "Japan": "Tokyo",
    "China": "Beijing", "Russia": "Moscow", "Egypt": "Cairo", "Canada": "Ottawa", "Peru": "Lima",
    "Hungary": "Budapest", "Belgium": "Brussels", "Cuba": "Havana", "Kenya": "Nairobi",
}  # fmt: skip

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a banana": "yellow", "blood": "red",
    "a tomato": "red", "a lemon": "yellow", "the sea": "blue", "a carrot": "orange", "milk": "white",
}  # fmt: skip


def capital(rng: random.Random) -> Question:
    country, city = rng.choice(list(CAPITALS.items()))
    asked = (
        "(what is the|what's the|tell me the|name the|do you know the|which city is the|and the|the|) capital [city] of"
    )
    return say(f"{asked} {country}", rng), f"The capital of {country} is {city}."


def total(rng: random.Random) -> Question:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.5:
        sign, word, result = "+", "plus", a + b
    else:
        a, b = max(a, b), min(a, b)
        sign, word, result = "-", "minus", a - b
    spelled = rng.random() < 0.3
    if spelled:
        sum_ = f"{_NUMBERS[a]} {word} {_NUMBERS[b]}"
    else:
        sum_ = rng.choice((f"{a} {sign} {b}", f"{a}{sign}{b}", f"{a} {word} {b}", f"{a} {sign} {b} ="))
    question = say(f"[what is|what's|how much is|calculate|compute|tell me|and] {sum_}", rng)
    return question, f"{a} {word} {b} is {result}."


def day(rng: random.Random) -> Question:
    at = rng.randrange(7)
    if rng.random() < 0.5:
        question = say(f"(what|which) day (comes after|is after|follows) {_DAYS[at]}", rng)
        return question, f"The day after {_DAYS[at]} is {_DAYS[(at + 1) % 7]}."
    question = say(f"(what|which) day (comes|is) before {_DAYS[at]}", rng)
    return question, f"The day before {_DAYS[at]} is {_DAYS[at - 1]}."


def colour(rng: random.Random) -> Question:
    thing, shade = rng.choice(list(_COLOURS.items()))
    question = say(f"(what|which) (colour|color) (is|has) {thing}", rng)
    return question, f"{thing[:1].upper()}{thing[1:]} is {shade}."
