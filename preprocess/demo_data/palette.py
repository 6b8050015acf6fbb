"""The colours of the demo's pictures: grounds and accents of each emotion."""

import numpy as np

RGB = tuple[int, int, int]

# The ground colours of each emotion, with their shares. One colour name can have different tones in different emotions.
GROUNDS: dict[str, dict[str, tuple[RGB, float]]] = {
    "amusement": {
        "yellow": ((252, 214, 70), 0.45),
        "pink": ((250, 165, 200), 0.35),
        "blue": ((105, 205, 245), 0.2),
    },
    "awe": {"blue": ((30, 60, 165), 0.5), "purple": ((95, 45, 155), 0.3), "orange": ((225, 150, 60), 0.2)},
    "contentment": {
        "green": ((140, 195, 105), 0.5),
        "blue": ((165, 210, 235), 0.3),
        "yellow": ((240, 225, 165), 0.2),
    },
    "excitement": {"orange": ((252, 125, 25), 0.4), "red": ((238, 65, 60), 0.25), "pink": ((240, 60, 155), 0.35)},
    "anger": {"red": ((150, 14, 20), 0.65), "black": ((48, 14, 16), 0.35)},
    "disgust": {"green": ((118, 128, 35), 0.45), "brown": ((108, 80, 42), 0.35), "yellow": ((168, 152, 55), 0.2)},
    "fear": {"black": ((16, 17, 26), 0.45), "blue": ((16, 30, 66), 0.3), "purple": ((48, 20, 60), 0.25)},
    "sadness": {"gray": ((125, 130, 140), 0.55), "blue": ((92, 115, 150), 0.45)},
    "something else": {
        "white": ((234, 230, 220), 0.45),
        "gray": ((186, 184, 176), 0.25),
        "brown": ((192, 160, 122), 0.3),
    },
}

# Accent colours, and the ones that each emotion's subjects can have.
ACCENT_RGB: dict[str, RGB] = {
    "red": (215, 38, 40),
    "orange": (246, 140, 36),
    "yellow": (252, 222, 60),
    "green": (52, 150, 70),
    "blue": (40, 90, 205),
    "purple": (130, 60, 165),
    "pink": (248, 130, 180),
    "brown": (112, 72, 38),
    "black": (18, 18, 20),
    "gray": (135, 136, 140),
    "white": (247, 246, 240),
}
ACCENTS: dict[str, tuple[str, ...]] = {
    "amusement": ("red", "blue", "purple", "green"),
    "awe": ("white", "yellow", "orange", "pink"),
    "contentment": ("white", "red", "brown", "green"),
    "excitement": ("yellow", "white", "blue", "purple"),
    "anger": ("black", "orange", "red", "white"),
    "disgust": ("purple", "black", "pink", "yellow"),
    "fear": ("white", "red", "green", "gray"),
    "sadness": ("black", "blue", "white", "brown"),
    "something else": ("blue", "black", "red", "green"),
}


def to_rgb(color: np.ndarray, factor: float = 1.0, toward: float = 0.0) -> RGB:
    """Scale `color` by `factor`, then mix it with white (`toward` is white's share, 0..1); integers 0..255."""
    value = color * factor
    return tuple(int(part) for part in np.clip(value + (255 - value) * toward, 0, 255))


def to_rgbs(colors: np.ndarray) -> list[RGB]:
    """Convert rows of colours to integers 0..255, all at once, because a picture has a thousand dabs."""
    return [tuple(color) for color in np.clip(colors, 0, 255).astype(int).tolist()]
