"""Generate explanations for the demo's pictures.

The annotator's emotion selects the sentence pattern, and the picture fills its placeholders. Words are in lower case
and in American spelling. Most are a single GPT-2 token, so that a sentence fits into 30 tokens.
"""

import numpy as np

from preprocess.demo_data.pictures import Picture

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
PATTERN_SHARES = (0.55, 0.3, 0.1, 0.05)
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


def explain(picture: Picture, emotion: str, pattern: int, rng: np.random.Generator | None = None) -> str:
    """Fill a sentence pattern of an emotion with the content of a picture.

    Args:
        picture: the picture.
        emotion: the annotator's emotion.
        pattern: index of the pattern, 0 to 3.
        rng: decides whether the subject's number or colour is left out; None: neither is.

    Returns:
        a sentence of 8 to 19 words in lower case, without a full stop; its only punctuation marks are commas.
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
    """The noun for the picture's subject, in the singular or the plural."""
    return picture.subject if picture.count == 1 else PLURALS.get(picture.subject, picture.subject + "s")
