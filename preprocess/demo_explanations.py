"""Invented explanations for the demo's pictures.

Sentence patterns follow the annotator's emotion, what fills their gaps the picture. Words are lower case and spelled as
in American English, and most are one GPT-2 token, so that a sentence fits into 30.
"""

import numpy as np

from preprocess.demo_pictures import Picture

OMISSION = 0.12  # share of annotators who leave out the colour or the number of the subject

# What a style's brushwork is called.
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

# Gaps: {c} ground colour, {t} subject with number and colour, {n} subject alone, {p} place, {b} brushwork; {s} ends a
# verb that the subject governs ("look{s}"). The first patterns of an emotion are the most frequent.
PATTERN_SHARES = (0.4, 0.3, 0.2, 0.1)
PATTERNS: dict[str, tuple[str, ...]] = {
    "amusement": (
        "the {t} {p} look{s} so funny that i have to smile",
        "the bright {c} and the {b} feel like a silly joke about the {n}",
        "it makes me laugh to see the {t} playing over the cheerful {c}",
        "the {b} turn the {n} into a happy cartoon, all in {c}",
    ),
    "awe": (
        "the deep {c} behind the {t} takes my breath away",
        "the {t} rising {p} feel{s} grand and holy in the {c} light",
        "i am amazed by the {b} and by the glow around the {t}",
        "such a vast {c} space makes me feel small before the {n}",
    ),
    "contentment": (
        "the soft {c} and the {t} {p} make me feel calm and at peace",
        "the {b} and the gentle {c} remind me of a quiet day near the {n}",
        "i could rest for hours beside the {t} in this warm {c}",
        "everything is in balance, the {n} rest{s} softly in the {c} light",
    ),
    "excitement": (
        "the {t} burst{s} out of the vivid {c} and fill{s} me with energy",
        "the {b} in hot {c} move so fast that my heart jumps",
        "i want to run and join the {t} {p}, what a thrill",
        "there is so much speed in the {c} and in the {t}",
    ),
    "anger": (
        "the violent {c} and the {t} {p} look like a furious fight",
        "the {b} cut into the {c} as if the painter hated the {n}",
        "it makes my blood boil to see the {t} attack in {c}",
        "the harsh {c} shouts at me and the {n} want{s} to strike",
    ),
    "disgust": (
        "the dirty {c} around the {t} looks rotten and makes me sick",
        "the {t} {p} remind{s} me of spoiled food and bad smells",
        "the {b} spread the {c} like mold that grows over the {n}",
        "i want to turn away from the sticky {c} and from the {t}",
    ),
    "fear": (
        "the {t} hiding {p} in the dark {c} scare{s} me",
        "the black shadows and the {b} feel like a nightmare about the {n}",
        "the {t} could come out of the {c} night at any moment",
        "i would be afraid to walk alone toward the {t} {p}",
    ),
    "sadness": (
        "the {t} {p} seem{s} lonely and lost in the cold {c}",
        "the dull {c} and the {b} make me think of grief and loss",
        "someone has died and only the {t} stay{s} behind in the {c} rain",
        "the {n} want{s} to cry under the heavy {c} sky",
    ),
    "something else": (
        "i wonder why the painter put the {t} {p} on plain {c}",
        "the {b} are strange and i do not understand the {n}",
        "the {t} on {c} leave{s} me curious about the meaning of this work",
        "i am confused by the empty {c} and by the {t}",
    ),
}


def explain(picture: Picture, emotion: str, pattern: int, rng: np.random.Generator | None = None) -> str:
    """Fill pattern number `pattern` of `emotion` with what is in `picture`.

    Args:
        rng: an annotator who leaves out the subject's number or colour at times; None: nobody leaves anything out.

    Returns:
        A sentence of 8 to 19 words in lower case without a full stop; its only punctuation are commas.
    """
    words = [NUMBERS[picture.count], picture.accent, noun(picture)]
    if rng is not None:
        kept = rng.random(2) >= OMISSION
        words = [word for word, keep in zip(words, (*kept, True), strict=True) if keep]
    return PATTERNS[emotion][pattern].format(
        c=picture.ground,
        t=" ".join(word for word in words if word),
        n=noun(picture),
        p=PLACES[picture.position],
        b=BRUSHWORK[picture.style],
        s="s" if picture.count == 1 else "",
    )


def noun(picture: Picture) -> str:
    """The picture's subject in the singular or the plural."""
    return picture.subject if picture.count == 1 else PLURALS.get(picture.subject, picture.subject + "s")
