"""Generate explanations for the demo's images, and a small valence-arousal-dominance lexicon of their words.

The annotator's emotion selects the sentence pattern, and the image fills its placeholders. Words are in lower case
and in American spelling. Most are a single GPT-2 token, so that a sentence fits into 30 tokens.
"""

import numpy as np

from preprocess.demo_data.paintings import Painting

OMISSION = 0.05  # probability that an annotator leaves out the subject's number; the same for its colour

# Each style's phrase for its brushwork.
BRUSHWORK = {
    "Abstract_Expressionism": "wild strokes",
    "Color_Field_Painting": "flat bands",
    "Cubism": "broken shapes",
    "Impressionism": "loose touches",
    "Pointillism": "tiny dots",
    "Realism": "fine details",
}
PLACES = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
NUMBERS = {1: "", 2: "two", 3: "three"}
PLURALS = {"fly": "flies", "woman": "women"}

# Placeholders: {c} ground colour, {t} subject with number and colour, {n} subject only, {p} place, {b} brushwork, {s}
# the verb ending that agrees with the subject ("look{s}"). The first patterns of an emotion are the most frequent.
PATTERN_PROBABILITIES = (0.55, 0.3, 0.1, 0.05)
PATTERNS: dict[str, tuple[str, ...]] = {
    "amusement": (
        "the {t} {p} against bright {c} look{s} so funny that i smile",
        "the bright {c} and the {b} make a silly joke of the {t}",
        "it makes me laugh to see the {t} dancing over cheerful {c}",
        "the {b} turn the {n} into a happy cartoon, all in {c}",
    ),
    "awe": (
        "the deep {c} behind the {t} {p} takes my breath away",
        "the {t} rising from the {c} feel{s} grand, and the {b} glow",
        "i am amazed by the {b} and by the glow around the {t}",
        "such a vast {c} space makes me feel small before the {t}",
    ),
    "contentment": (
        "soft {c} and the {t} resting {p} bring me calm and peace",
        "the {b} of gentle {c} and the {t} remind me of quiet days",
        "i could rest for hours beside the {t} in warm {c}",
        "everything is in balance, the {n} rest{s} softly in the {c} light",
    ),
    "excitement": (
        "the {t} {p} burst{s} out of vivid {c} and fill{s} me with energy",
        "the {b} in hot {c} move so fast around the {t}",
        "i want to run and join the {t}, what a thrill in {c}",
        "there is so much speed in the {c} and in the {t}",
    ),
    "anger": (
        "violent {c} and the {t} attacking {p} look like a furious fight",
        "the {b} cut into {c} as if they hated the {t}",
        "my blood boils over the {t} striking through the {c}",
        "the harsh {c} shouts at me and the {n} want{s} to strike",
    ),
    "disgust": (
        "the dirty {c} around the {t} {p} looks rotten, it makes me sick",
        "the {b} of {c} and the {t} smell of spoiled food",
        "sticky {c} grows like mold over the {t}, how nasty",
        "i turn away from the {b} and from the ugly {n}",
    ),
    "fear": (
        "the {t} hiding {p} in dark {c} scare{s} me",
        "shadows of {c} and the {b} bring a nightmare of the {t}",
        "the {t} could come out of the {c} night at any moment",
        "i would be afraid to walk alone toward the {t}",
    ),
    "sadness": (
        "the {t} left alone {p} seem{s} lonely and lost in cold {c}",
        "dull {c} and the {b} around the {t} speak of grief and loss",
        "someone has died and only the {t} stay{s} in the {c} rain",
        "the {n} want{s} to cry under the heavy {c} sky",
    ),
    "something else": (
        "i wonder why the painter put the {t} {p} on plain {c}",
        "the {b} are strange and the {t} on {c} confuse{s} me",
        "the {t} over {c} leave{s} me curious about its meaning",
        "i do not understand the empty {c} or the {n}",
    ),
}


def explain(painting: Painting, emotion: str, pattern: int, rng: np.random.Generator | None = None) -> str:
    """Fill a sentence pattern of an emotion with the content of a painting.

    Args:
        painting: the painting.
        emotion: the annotator's emotion.
        pattern: index of the pattern, 0 to 3.
        rng: decides whether the subject's number or colour is left out; None: neither is.

    Returns:
        a sentence of 8 to 19 words in lower case, without a full stop; its only punctuation marks are commas.
    """
    words = [NUMBERS[painting.count], painting.accent, noun(painting)]
    if rng is not None:
        named = rng.random(2) >= OMISSION
        words = [word for word, is_named in zip(words, (*named, True), strict=True) if is_named]
    return PATTERNS[emotion][pattern].format(
        c=painting.ground,
        t=" ".join(word for word in words if word),
        n=noun(painting),
        p=PLACES[painting.position],
        b=BRUSHWORK[painting.style],
        s="s" if painting.count == 1 else "",
    )


def noun(painting: Painting) -> str:
    """The noun for the painting's subject, in the singular or the plural."""
    return painting.subject if painting.count == 1 else PLURALS.get(painting.subject, painting.subject + "s")


# word, valence, arousal, dominance, each in -1..1; words are lemmas, because lemmas are looked up
_ENTRIES = """
amusement 0.8 0.4 0.2, awe 0.6 0.5 -0.2, contentment 0.8 -0.6 0.4, excitement 0.8 0.9 0.4,
anger -0.7 0.8 0.3, disgust -0.8 0.4 0.0, fear -0.8 0.8 -0.6, sadness -0.8 -0.4 -0.5,

red 0.1 0.6 0.3, orange 0.4 0.4 0.2, yellow 0.5 0.3 0.1, green 0.4 -0.3 0.1, blue 0.4 -0.4 0.1, purple 0.3 0.0 0.2,
pink 0.5 0.1 -0.1, brown -0.1 -0.4 0.0, black -0.5 0.1 0.3, gray -0.4 -0.5 -0.2, white 0.4 -0.5 0.0,

balloon 0.6 0.2 -0.1, clown 0.3 0.4 -0.3, cat 0.5 -0.1 0.0, mountain 0.6 0.2 0.5, star 0.7 0.3 0.4, tower 0.3 0.1 0.6,
house 0.6 -0.4 0.3, boat 0.5 -0.1 0.2, flower 0.8 -0.3 -0.1, dancer 0.7 0.6 0.3, rocket 0.4 0.8 0.6, kite 0.5 0.2 0.0,
flame 0.0 0.8 0.5, sword -0.4 0.7 0.6, devil -0.8 0.7 0.4, worm -0.5 0.0 -0.6, fly -0.3 0.2 -0.4, stain -0.6 0.0 -0.3,
ghost -0.5 0.6 -0.1, eye 0.2 0.1 0.1, skull -0.7 0.5 0.0, woman 0.6 0.0 0.1, grave -0.8 -0.3 -0.3, tear -0.7 0.2 -0.5,
square 0.1 -0.4 0.1, ladder 0.2 0.0 0.2, clock 0.1 -0.1 0.1,

funny 0.9 0.5 0.3, smile 0.9 0.2 0.3, silly 0.4 0.4 -0.3, joke 0.7 0.5 0.2, laugh 0.9 0.6 0.3, dance 0.7 0.6 0.3,
cheerful 0.9 0.4 0.3, happy 0.9 0.4 0.4, cartoon 0.6 0.3 -0.1, bright 0.7 0.4 0.3, deep 0.2 0.1 0.3,
breath 0.4 -0.1 0.0, rise 0.5 0.3 0.5, grand 0.7 0.4 0.7, light 0.7 0.1 0.2, amaze 0.8 0.7 0.2, glow 0.6 0.2 0.2,
vast 0.4 0.2 0.6, space 0.3 0.1 0.3, small 0.0 -0.4 -0.6, soft 0.6 -0.7 -0.2, softly 0.6 -0.7 -0.2,
calm 0.7 -0.8 0.3, peace 0.9 -0.8 0.3, gentle 0.7 -0.7 0.0, quiet 0.4 -0.9 -0.1, rest 0.6 -0.9 0.0,
warm 0.7 -0.2 0.2, balance 0.5 -0.4 0.4, day 0.5 0.0 0.2, burst 0.1 0.8 0.3, vivid 0.5 0.6 0.4, fill 0.3 0.1 0.2,
energy 0.7 0.8 0.6, hot 0.2 0.7 0.3, move 0.3 0.4 0.2, fast 0.3 0.8 0.3, run 0.3 0.7 0.3, join 0.5 0.2 0.3,
thrill 0.8 0.9 0.4, speed 0.3 0.8 0.5, violent -0.9 0.9 0.4, furious -0.8 0.9 0.4, fight -0.6 0.9 0.4,
cut -0.5 0.5 0.1, hate -0.9 0.7 0.1, blood -0.5 0.7 0.0, boil -0.3 0.7 0.2, attack -0.8 0.9 0.5, harsh -0.7 0.5 0.4,
shout -0.4 0.8 0.3, strike -0.5 0.8 0.5, dirty -0.7 0.1 -0.3, rotten -0.9 0.2 -0.4, sick -0.8 0.1 -0.6,
spoil -0.6 0.1 -0.2, food 0.6 0.1 0.1, smell -0.2 0.2 -0.1, mold -0.6 -0.1 -0.3, sticky -0.4 0.0 -0.3,
nasty -0.7 0.4 -0.1, ugly -0.7 0.2 -0.3, hide -0.3 0.2 -0.4, dark -0.6 0.2 0.0, scare -0.8 0.8 -0.5,
shadow -0.4 0.1 -0.1, nightmare -0.9 0.8 -0.6, night -0.1 -0.2 0.0, afraid -0.8 0.7 -0.8, alone -0.6 -0.3 -0.5,
walk 0.3 -0.1 0.1, lonely -0.8 -0.4 -0.6, lose -0.7 0.1 -0.6, cold -0.4 -0.2 -0.1, dull -0.5 -0.7 -0.4,
grief -0.9 0.2 -0.6, loss -0.8 0.1 -0.6, die -0.9 0.4 -0.5, rain 0.0 -0.3 -0.1, cry -0.8 0.4 -0.6,
heavy -0.3 0.0 0.3, sky 0.6 -0.3 0.2, wonder 0.5 0.3 0.1, plain -0.1 -0.6 -0.2, strange -0.3 0.4 -0.2,
curious 0.4 0.5 0.2, meaning 0.5 0.0 0.3, confuse -0.5 0.4 -0.5, empty -0.6 -0.5 -0.4, understand 0.5 -0.1 0.4,
painter 0.5 -0.1 0.2, wild 0.1 0.8 0.3, flat -0.2 -0.7 -0.3, break -0.5 0.5 -0.1, loose -0.1 -0.1 -0.3,
tiny 0.0 -0.4 -0.6, fine 0.5 -0.3 0.2, stroke 0.0 0.2 0.1, band 0.2 0.2 0.2, shape 0.2 -0.1 0.1, touch 0.5 0.1 0.1,
dot 0.0 -0.3 -0.2, detail 0.3 -0.1 0.2
"""


def lexicon_text() -> str:
    """The lexicon as a file: a header line, then `word<TAB>valence<TAB>arousal<TAB>dominance`, sorted by word."""
    rows = sorted(entry.split() for entry in _ENTRIES.split(","))
    lines = [f"{word}\t{float(v):g}\t{float(a):g}\t{float(d):g}" for word, v, a, d in rows]
    return "\n".join(["term\tvalence\tarousal\tdominance", *lines]) + "\n"
