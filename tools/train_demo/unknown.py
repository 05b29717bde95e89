"""Questions that the demo model cannot answer, in endless variety, so that it learns to say so."""

from __future__ import annotations

import random

from phrases import say

ANSWER = (
    "I am only a small demo model, so I do not know that. Ask me about Corral, or add a bigger model to models.yaml "
    "and ask it instead."
)

_PATTERNS = (
    "what is [the] [best] {noun}",
    "what is a {noun}",
    "who (invented|wrote|made|discovered|painted|won) the {noun}",
    "how (do|can) i (cook|build|repair|draw|sell|buy|paint|clean|grow|wash|plant) a {noun}",
    "why is the {noun} (so|too|very) {quality}",
    "write a (letter|song|program|function|test|recipe|review|speech) (about|for|with) a {noun}",
    "(explain|describe|summarise|define|compare|draw) [the] {noun} [and the {noun}]",
    "where (is|can i find|can i buy|was) the [nearest|oldest|next] {noun}",
    "how (far|high|deep|old|heavy|fast|expensive|many) is the {noun}",
    "when was the {quality} {noun} (built|born|found|invented)",
    "translate {noun} (into|to) (german|french|spanish|latin)",
    "what do you think (of|about) {noun}",
    "tell me about (the|a) {noun}",
    "who is {name}",
    "who was {name} {name}",
    "what is the (capital|population|president|history|currency|language) of {name}",
    "do you know {name}",
    "is a {noun} {quality}",
    "can a {noun} be {quality}",
    "should i (buy|eat|read|learn|visit) a {noun}",
    "what is the {quality} {noun} in the world",
    "{noun}",
    "{noun} {noun} {name}",
    "my {noun} is {quality}",
    "i (want|need|have|like|lost) a {quality} {noun}",
    "what is the difference between a {noun} and a {noun}",
    "how does a {noun} work",
    "give me (a list of|three|some|ten) {noun}s",
    "what (is|are) {name}",
    "which {noun} is the {quality} one",
    "write a python (script|function|program) that (sorts|reads|prints|counts) a {noun}",
    "please (read|answer|repeat|copy) (this|the) {noun}",
    "explain {noun} like i am five",
)
_NOUNS = """
house car tree river mountain bridge book film song planet star moon engineer doctor lawyer teacher king queen
castle garden flower rose apple cake bread soup pizza cheese wine coffee tea sugar salt horse dog cat bird fish
whale lion tiger elephant mouse spider snake bee wolf sheep cow pig train plane ship bicycle truck rocket motor
phone camera clock lamp window door roof wall floor table chair bed knife spoon plate cup bottle box bag shirt
shoe hat coat ring gold silver iron copper stone sand glass paper wood plastic oil gas water fire wind storm
island desert forest lake ocean beach city village street market school hospital museum church theatre bank
poem novel letter newspaper picture statue violin piano guitar drum opera football tennis chess game puzzle
number equation theorem triangle circle virus cell gene atom electron proton magnet battery robot satellite
telescope microscope volcano earthquake glacier tax law contract election war treaty revolution democracy
philosophy religion dream memory emotion language grammar dictionary recipe medicine vaccine tooth heart brain
kidney bone muscle stock bond loan mortgage budget inflation quantum relativity gravity photosynthesis algebra
database compiler keyboard printer browser spreadsheet holiday ticket hotel passport mushroom dinosaur pyramid
"""
_QUALITIES = """
big small old new red green blue heavy light fast slow expensive cheap famous beautiful dangerous important tall
deep strange happy sad clever strong weak hot cold dry wet sharp soft hard modern ancient healthy rich poor
"""
_SYLLABLES = """
ka lo mi ren tor sha bel qui zan dor fe gra hin jo kel lum mar nev ol pri rus sel tan ul vor wen xi yor zed ab
cro dun eth fal gon ib lar mon nor pel ril sam tir ur vash
"""


def unknown(rng: random.Random) -> tuple[str, str]:
    """A question about something outside the model's small world, and the one answer to all of them."""
    question = say(rng.choice(_PATTERNS), rng)
    while "{" in question:
        question = question.replace("{noun}", _noun(rng), 1).replace("{name}", _invented(rng).title(), 1)
        question = question.replace("{quality}", rng.choice(_QUALITIES.split()), 1)
    return question, ANSWER


def _noun(rng: random.Random) -> str:
    return rng.choice(_NOUNS.split()) if rng.random() < 0.75 else _invented(rng)


def _invented(rng: random.Random) -> str:
    return "".join(rng.choice(_SYLLABLES.split()) for _ in range(rng.randint(1, 4)))
