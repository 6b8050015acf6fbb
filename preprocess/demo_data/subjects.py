"""The subjects of the demo's paintings as shapes, and the subjects of each emotion."""

Shape = tuple[str, str, list[float]]

# A line is a shape in a box from -1 to 1 (y points down): kind, tone, then x and y of its points. Tones: c the accent
# colour, d darker, l lighter, k black, w white. A line without coordinates begins the next subject.
_SHAPES = """
balloon
    line k  0 0.4  -0.12 0.7  0.05 1
    oval c  -0.65 -1  0.65 0.4
    poly d  -0.12 0.5  0.12 0.5  0 0.34
    oval l  -0.38 -0.75  -0.1 -0.35
clown
    oval w  -0.7 -0.4  0.7 1
    poly c  -0.6 -0.25  0.6 -0.25  0 -1.1
    oval k  -0.4 0  -0.16 0.28
    oval k  0.16 0  0.4 0.28
    oval c  -0.2 0.22  0.2 0.6
    oval c  -1 -0.1  -0.5 0.5
    oval c  0.5 -0.1  1 0.5
    poly c  -0.38 0.66  0.38 0.66  0 0.88
cat
    poly d  -0.75 -0.1  -0.65 -1  -0.05 -0.5
    poly d  0.75 -0.1  0.65 -1  0.05 -0.5
    oval c  -0.8 -0.6  0.8 0.75
    oval w  -0.5 -0.25  -0.12 0.15
    oval w  0.12 -0.25  0.5 0.15
    oval k  -0.36 -0.18  -0.24 0.12
    oval k  0.24 -0.18  0.36 0.12
    line k  -1 0.2  -0.3 0.3
    line k  1 0.2  0.3 0.3
mountain
    poly d  -0.3 1  0.4 -0.55  1.3 1
    poly c  -1.3 1  -0.2 -1  0.75 1
    poly l  -0.55 -0.36  -0.2 -1  0.1 -0.36  -0.1 -0.5  -0.25 -0.25
star
    poly c  0 -1  0.24 -0.32  0.95 -0.31  0.38 0.12  0.59 0.81  0 0.4  -0.59 0.81  -0.38 0.12  -0.95 -0.31  -0.24 -0.32
    oval l  -0.2 -0.2  0.2 0.2
tower
    poly c  -0.32 1  -0.25 -0.45  0.25 -0.45  0.32 1
    poly d  -0.42 -0.4  0 -1.15  0.42 -0.4
    oval k  -0.1 -0.25  0.1 0.05
    oval k  -0.1 0.3  0.1 0.6
house
    poly c  -0.7 0.9  -0.7 -0.1  0.7 -0.1  0.7 0.9
    poly d  -0.95 -0.05  0 -0.9  0.95 -0.05
    poly k  -0.15 0.9  -0.15 0.35  0.2 0.35  0.2 0.9
    poly l  -0.5 0.4  -0.5 0.12  -0.28 0.12  -0.28 0.4
boat
    poly d  -1 0.4  1 0.4  0.6 0.9  -0.6 0.9
    line k  0 0.4  0 -1
    poly c  0.06 -0.95  0.06 0.28  0.8 0.28
    poly l  -0.06 -0.7  -0.06 0.28  -0.6 0.28
flower
    line d  0 0  0.05 1
    oval c  -0.32 -1  0.32 -0.3
    oval c  -0.32 -0.2  0.32 0.5
    oval c  -0.8 -0.58  -0.08 0.06
    oval c  0.08 -0.58  0.8 0.06
    oval l  -0.22 -0.48  0.22 -0.04
dancer
    oval k  -0.18 -1.05  0.18 -0.65
    line c  -0.8 -0.9  0 -0.5  0.85 -0.8
    poly c  0 -0.7  0.75 0.4  -0.65 0.25
    line k  -0.1 0.2  -0.6 1
    line k  0.2 0.2  0.9 0.75
rocket
    poly w  -0.2 0.6  0.2 0.6  0 1.15
    poly d  -0.65 0.75  -0.2 0.1  0.2 0.1  0.65 0.75
    poly c  -0.28 0.6  -0.32 -0.3  0 -1.1  0.32 -0.3  0.28 0.6
    oval l  -0.15 -0.4  0.15 -0.1
kite
    line k  0 0.4  -0.3 0.7  0.1 0.8  -0.2 1.1
    poly c  0 -1  0.65 -0.3  0 0.5  -0.65 -0.3
    poly d  0 -1  0.65 -0.3  0 -0.3
    poly d  0 0.5  -0.65 -0.3  0 -0.3
flame
    poly c  -0.6 0.6  -0.6 -0.2  -0.3 0.1  -0.1 -1.1  0.3 -0.2  0.5 -0.6  0.7 0.5  0.3 1  -0.3 1
    poly l  -0.25 0.75  -0.1 -0.1  0.15 0.25  0.3 0.75  0 0.95
sword
    poly c  -0.15 0.4  -0.15 -0.85  0 -1.15  0.15 -0.85  0.15 0.4
    poly d  -0.55 0.38  0.55 0.38  0.55 0.55  -0.55 0.55
    poly k  -0.1 0.55  0.1 0.55  0.1 1  -0.1 1
devil
    poly d  -0.7 -0.2  -0.85 -1.1  -0.15 -0.55
    poly d  0.7 -0.2  0.85 -1.1  0.15 -0.55
    poly c  -0.75 -0.5  0.75 -0.5  0.6 0.4  0 1.05  -0.6 0.4
    poly w  -0.5 -0.2  -0.1 0.05  -0.45 0.1
    poly w  0.5 -0.2  0.1 0.05  0.45 0.1
    poly k  -0.35 0.4  0 0.3  0.35 0.4  0.2 0.6  0 0.45  -0.2 0.6
worm
    fat d  -0.95 0.45  -0.55 -0.2  -0.15 0.4  0.3 -0.3  0.8 0.1
    fat c  -0.95 0.35  -0.55 -0.3  -0.15 0.3  0.3 -0.4  0.8 0
    oval k  0.7 -0.2  0.9 0
fly
    oval l  -1.05 -0.65  -0.1 0.1
    oval l  0.1 -0.65  1.05 0.1
    oval c  -0.32 -0.5  0.32 0.9
    oval d  -0.38 -0.95  0.38 -0.35
    line k  -0.7 0.75  0 0.2  0.7 0.75
stain
    oval c  -0.9 -0.6  0.3 0.3
    oval c  -0.35 -0.75  0.95 0.25
    oval d  -0.45 -0.4  0.5 0.15
    fat c  -0.45 0  -0.45 0.95
    fat c  0.1 0  0.1 0.6
    fat c  0.55 0  0.55 0.85
ghost
    oval c  -0.65 -1  0.65 0.4
    poly c  -0.65 -0.3  0.65 -0.3  0.75 1  0.4 0.7  0.1 1  -0.2 0.7  -0.5 1  -0.75 0.8
    oval k  -0.38 -0.55  -0.1 -0.15
    oval k  0.1 -0.55  0.38 -0.15
    oval k  -0.15 0  0.15 0.4
eye
    poly w  -1.05 0  -0.5 -0.5  0 -0.62  0.5 -0.5  1.05 0  0.5 0.5  0 0.62  -0.5 0.5
    oval c  -0.5 -0.52  0.5 0.52
    oval k  -0.18 -0.45  0.18 0.45
skull
    oval c  -0.8 -1  0.8 0.5
    poly c  -0.45 0.2  0.45 0.2  0.4 1  -0.4 1
    oval k  -0.55 -0.4  -0.1 0.1
    oval k  0.1 -0.4  0.55 0.1
    poly k  0 0.15  0.13 0.4  -0.13 0.4
    line k  -0.18 0.6  -0.18 1
    line k  0.18 0.6  0.18 1
woman
    oval d  -0.5 -1  0 -0.45
    poly c  -0.3 -0.55  0.25 -0.4  0.55 0.3  0.6 1  -0.55 1  -0.15 0.2
    line d  0.15 -0.25  -0.4 0.1  -0.3 -0.4
grave
    poly d  -0.95 1  -0.7 0.7  0.7 0.7  0.95 1
    poly c  -0.16 0.8  -0.16 -1  0.16 -1  0.16 0.8
    poly c  -0.6 -0.25  -0.6 -0.55  0.6 -0.55  0.6 -0.25
tear
    poly c  0 -1.1  0.5 0.15  -0.5 0.15
    oval c  -0.57 -0.2  0.57 0.95
    oval l  -0.3 0.2  -0.05 0.6
square
    poly c  -0.8 -0.8  0.8 -0.8  0.8 0.8  -0.8 0.8
    poly l  -0.4 -0.4  0.4 -0.4  0.4 0.4  -0.4 0.4
ladder
    fat c  -0.5 -1  -0.5 1
    fat c  0.5 -1  0.5 1
    line c  -0.5 -0.65  0.5 -0.65
    line c  -0.5 -0.1  0.5 -0.1
    line c  -0.5 0.45  0.5 0.45
clock
    oval c  -0.95 -0.95  0.95 0.95
    oval w  -0.7 -0.7  0.7 0.7
    line k  0 -0.55  0 0  0.4 0.25
"""


def _parse(lines: list[str]) -> dict[str, list[Shape]]:
    subjects: dict[str, list[Shape]] = {}
    for line in lines:
        if not line.startswith(" "):
            shapes = subjects.setdefault(line, [])
        else:
            kind, tone, *coordinates = line.split()
            shapes.append((kind, tone, [float(number) for number in coordinates]))
    return subjects


SUBJECTS = _parse(_SHAPES.strip().splitlines())

EMOTION_SUBJECTS: dict[str, tuple[str, ...]] = {
    "amusement": ("balloon", "clown", "cat"),
    "awe": ("mountain", "star", "tower"),
    "contentment": ("house", "boat", "flower"),
    "excitement": ("dancer", "rocket", "kite"),
    "anger": ("flame", "sword", "devil"),
    "disgust": ("worm", "fly", "stain"),
    "fear": ("ghost", "eye", "skull"),
    "sadness": ("woman", "grave", "tear"),
    "something else": ("square", "ladder", "clock"),
}
