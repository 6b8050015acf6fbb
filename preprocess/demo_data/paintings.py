"""Paint the demo's images. The emotion sets the palette and the composition, the art style sets the rendering.

A painting is a scene with a ground colour, the composition of an emotion, and a subject in an accent colour. A style
then renders the scene with flat bands, strokes, facets, dabs, dots or smooth shading.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from preprocess.demo_data.subjects import SUBJECTS, Shape

# ---- colours: the grounds and accents of each emotion ----------------------------------------------------------------

RGB = tuple[int, int, int]

# The ground colours of each emotion, with their probabilities. The tone of a colour depends on the emotion.
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


def _to_rgb(color: np.ndarray, factor: float = 1.0, toward: float = 0.0) -> RGB:
    """Scale `color` by `factor`, then mix it with white (`toward` is white's weight, 0..1); integers 0..255."""
    value = color * factor
    return tuple(int(part) for part in np.clip(value + (255 - value) * toward, 0, 255))


def _to_rgbs(colors: np.ndarray) -> list[RGB]:
    """Convert rows of colours to integers 0..255, all at once, because an image has a thousand dabs."""
    return [tuple(color) for color in np.clip(colors, 0, 255).astype(int).tolist()]


# ---- art styles: functions that repaint a finished scene -------------------------------------------------------------


def _strokes(image: Image.Image, mood: str, ground: np.ndarray, accent: np.ndarray, rng: np.random.Generator) -> None:
    """Draw broad brush strokes, calm or wild depending on the mood, and splashes of the accent colour."""
    draw = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    unit = min(width, height)
    spread = 0.25 if mood in ("contentment", "sadness", "awe") else 1.3
    for _ in range(16):
        angle, length = rng.normal(0.5, spread), unit * rng.uniform(0.25, 0.6)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        bend = rng.normal(0, 0.12) * unit
        dx, dy = np.cos(angle) * length, np.sin(angle) * length
        color = _to_rgb(ground, rng.uniform(0.5, 1.5)) if rng.random() < 0.85 else _to_rgb(accent)
        points = [(x, y), (x + dx / 2 - bend, y + dy / 2 + bend), (x + dx, y + dy)]
        draw.line(points, (*color, 190), int(unit * rng.uniform(0.04, 0.11)), joint="curve")
    for x, y in rng.uniform(0, 1, (14, 2)) * (width, height):
        r = unit * rng.uniform(0.004, 0.018)
        draw.ellipse((x - r, y - r, x + r, y + r), _to_rgb(accent))


def _facets(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut the image along straight lines into facets; shift each a little and change its brightness."""
    pixels = np.asarray(image, float)
    height, width = pixels.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    facet = np.zeros((height, width), int)
    for bit in range(5):
        angle, x, y = rng.uniform(0, 3.14), rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        facet |= ((xs - x) * np.sin(angle) > (ys - y) * np.cos(angle)).astype(int) << bit
    shift = (rng.uniform(-0.045, 0.045, (32, 2)) * (height, width)).astype(int)[facet]
    light = rng.uniform(0.6, 1.35, 32)[facet][..., None]
    rows = np.clip(ys.astype(int) + shift[..., 0], 0, height - 1)
    columns = np.clip(xs.astype(int) + shift[..., 1], 0, width - 1)
    return Image.fromarray(np.clip(pixels[rows, columns] * light, 0, 255).astype(np.uint8))


def _dabs(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Repaint the image with short slanted strokes of its own colours, slightly varied."""
    width, height = image.size
    canvas = image.filter(ImageFilter.GaussianBlur(6))
    draw = ImageDraw.Draw(canvas)
    source = np.asarray(image, float)
    points = rng.uniform(0, 1, (900, 2)) * (width - 1, height - 1)
    colors = source[points[:, 1].astype(int), points[:, 0].astype(int)] + rng.normal(0, 22, (900, 1))
    slants = rng.normal(0.6, 0.5, 900)
    reach = 0.03 * min(width, height)
    steps = reach * np.stack((np.cos(slants), np.sin(slants)), 1)
    ends = np.concatenate((points - steps, points + steps), 1)
    for end, color in zip(ends.tolist(), _to_rgbs(colors), strict=True):
        draw.line(end, color, 6)
    return canvas


def _dots(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Repaint the image with dots of its own colours on a pale canvas of its mean colour."""
    width, height = image.size
    source = np.asarray(image, float)
    canvas = Image.new("RGB", image.size, _to_rgb(source.mean((0, 1)), 1, 0.45))
    draw = ImageDraw.Draw(canvas)
    step = min(width, height) / 28
    ys, xs = np.mgrid[step / 2 : height : step, step / 2 : width : step]
    r = 0.45 * step
    xs, ys = (np.clip(axis + rng.normal(0, step * 0.15, axis.shape), 0, None).ravel() for axis in (xs, ys))
    colors = source[np.minimum(ys.astype(int), height - 1), np.minimum(xs.astype(int), width - 1)]
    colors = colors + rng.normal(0, 18, colors.shape)
    boxes = np.stack((xs - r, ys - r, xs + r, ys + r), 1)
    for box, color in zip(boxes.tolist(), _to_rgbs(colors), strict=True):
        draw.ellipse(box, color)
    return canvas


STYLES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image] | None] = {
    "Abstract_Expressionism": None,
    "Color_Field_Painting": None,
    "Cubism": _facets,
    "Impressionism": _dabs,
    "Pointillism": _dots,
    "Realism": None,
}


# ---- painting --------------------------------------------------------------------------------------------------------

TINT_NOISE = 6  # standard deviation, in 0..255, of each image's shift in colour
GRAIN = 5  # standard deviation, in 0..255, of the noise of each pixel
SIDE_RANGE = (96, 160)  # pixels
SUPERSAMPLING = 2

POSITIONS = {"left": 0.25, "middle": 0.5, "right": 0.75}


@dataclass(frozen=True)
class Painting:
    """What one painting shows. `mood` and `undertone` are emotions; `undertone_weight` is in 0..1."""

    style: str
    mood: str
    undertone: str
    undertone_weight: float
    ground: str
    accent: str
    subject: str
    count: int
    position: str


def paint(painting: Painting, rng: np.random.Generator) -> Image.Image:
    """Render `painting` as an RGB image with sides in `SIDE_RANGE`. Equal generator states give equal pixels."""
    width, height = (int(side) * SUPERSAMPLING for side in rng.integers(SIDE_RANGE[0], SIDE_RANGE[1] + 1, 2))
    tint = rng.normal(0, TINT_NOISE, 3) * 0.5 + rng.normal(0, TINT_NOISE)
    ground = np.array(GROUNDS[painting.mood][painting.ground][0], float)
    under = np.array(next(iter(GROUNDS[painting.undertone].values()))[0], float)
    ground = np.clip(ground * (1 - painting.undertone_weight) + under * painting.undertone_weight + tint, 4, 250)
    accent = np.clip(np.array(ACCENT_RGB[painting.accent], float) + tint * 0.4, 0, 255)

    image = _sky(painting, ground, width, height, rng)
    if rng.random() < painting.undertone_weight:
        _compose(image, painting.undertone, ground, accent, painting.position, rng)
    _compose(image, painting.mood, ground, accent, painting.position, rng)
    if painting.style == "Abstract_Expressionism":
        _strokes(image, painting.mood, ground, accent, rng)
    _subjects(image, painting, accent, rng)
    if repaint := STYLES[painting.style]:
        image = repaint(image, rng)

    image = image.resize((width // SUPERSAMPLING, height // SUPERSAMPLING), Image.Resampling.LANCZOS)
    pixels = np.asarray(image, float)
    return Image.fromarray(np.clip(pixels + rng.normal(0, GRAIN, (*pixels.shape[:2], 1)), 0, 255).astype(np.uint8))


def _sky(painting: Painting, ground: np.ndarray, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Paint the ground colour as a vertical gradient, for some styles with land below a horizon or as blurred bands."""
    ramp = np.linspace(1.18, 0.88, height)[:, None, None]
    pixels = np.broadcast_to(ground * ramp, (height, width, 3)).copy()
    if painting.style == "Color_Field_Painting":
        edges = np.sort(rng.uniform(0.12, 0.88, 2)) * height
        for top, bottom, factor in zip((0, *edges), (*edges, height), rng.permutation([0.7, 1.0, 1.3]), strict=True):
            pixels[int(top) : int(bottom)] = ground * factor
        border = int(0.08 * min(width, height))
        frame = pixels.mean((0, 1)) * 0.45
        pixels[:border], pixels[-border:], pixels[:, :border], pixels[:, -border:] = frame, frame, frame, frame
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if painting.style == "Color_Field_Painting":
        return image.filter(ImageFilter.GaussianBlur(0.02 * height))
    if painting.style in ("Impressionism", "Realism", "Pointillism"):
        xs = np.linspace(0, width, 24)
        for level, factor in ((0.68, 0.85), (0.82, 0.68)):
            phase, waves = rng.uniform(0, 6.3), rng.uniform(1, 3)
            ys = (level + 0.04 * np.sin(phase + waves * 6.3 * xs / width)) * height
            outline = [*zip(xs, ys, strict=True), (width, height), (0, height)]
            ImageDraw.Draw(image).polygon(outline, _to_rgb(ground, factor))
    return image


def _compose(
    image: Image.Image, mood: str, ground: np.ndarray, accent: np.ndarray, position: str, rng: np.random.Generator
) -> None:
    """Draw the composition of an emotion onto `image`: what its images have in common besides the palette."""
    draw = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    unit = min(width, height)
    center = (POSITIONS[position] * width, rng.uniform(0.4, 0.55) * height)
    if mood == "amusement":  # confetti in all colours
        colors = [ACCENT_RGB[name] for name in ("red", "blue", "green", "orange", "purple", "white")]
        for _ in range(26):
            x, y, r = rng.uniform(0, width), rng.uniform(0, height), unit * rng.uniform(0.015, 0.045)
            draw.ellipse((x - r, y - r, x + r, y + r), (*colors[rng.integers(len(colors))], 225))
    elif mood == "awe":  # light around the subject, and stars
        for r in np.linspace(0.62, 0.16, 6) * unit:
            draw.ellipse((center[0] - r, center[1] - r, center[0] + r, center[1] + r), (255, 236, 170, 46))
        for x, y in rng.uniform(0, 1, (16, 2)) * (width, 0.6 * height):
            r = unit * rng.uniform(0.006, 0.014)
            draw.ellipse((x - r, y - r, x + r, y + r), (255, 250, 225, 230))
    elif mood == "contentment":  # a low pale sun and round hills
        x, y, r = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.25) * height, 0.1 * unit
        draw.ellipse((x - r, y - r, x + r, y + r), (255, 247, 205, 230))
        for level, factor in ((0.72, 0.9), (0.84, 0.76)):
            x = rng.uniform(0.1, 0.9) * width
            draw.ellipse((x - width, level * height, x + width, 2 * height), (*_to_rgb(ground, factor), 200))
    elif mood == "excitement":  # a burst of rays
        start = rng.uniform(0, 6.3)
        for angle in start + np.arange(12) * 6.283 / 12:
            sides = angle + np.array((-0.11, 0.11))
            ends = np.stack((2 * width * np.cos(sides), 2 * height * np.sin(sides)), 1) + center
            draw.polygon([center, *map(tuple, ends)], (255, 232, 90, 120))
    elif mood == "anger":  # jagged slashes
        for index in range(7):
            x, step = rng.uniform(-0.1, 1.0) * width, unit * rng.uniform(0.1, 0.2)
            points = [(x + step * (i * 0.45 + i % 2), i * height / 5) for i in range(6)]
            color = (10, 5, 5, 235) if index % 2 else (*_to_rgb(np.array((240.0, 60, 25))), 220)
            draw.line(points, color, max(2, int(unit * rng.uniform(0.015, 0.04))))
    elif mood == "disgust":  # drips and blisters
        for x in rng.uniform(0, width, 8):
            r, bottom = unit * rng.uniform(0.02, 0.05), rng.uniform(0.25, 0.75) * height
            color = (*_to_rgb(ground, 0.62), 235)
            draw.rectangle((x - r, 0, x + r, bottom), color)
            draw.ellipse((x - 1.3 * r, bottom - 1.3 * r, x + 1.3 * r, bottom + 1.3 * r), color)
        for x, y in rng.uniform(0, 1, (10, 2)) * (width, height):
            r = unit * rng.uniform(0.02, 0.05)
            draw.ellipse((x - r, y - r, x + r, y + r), (195, 190, 80, 215), (60, 45, 15, 255), 2)
    elif mood == "fear":  # bare branches from the edges, dark corners
        for _ in range(9):
            x, y = rng.choice([0.0, 1.0]) * width, rng.uniform(0, 1) * height
            points, angle = [(x, y)], rng.uniform(-0.6, 0.6) + (0 if x == 0 else 3.14)
            for _ in range(4):
                angle += rng.normal(0, 0.45)
                x, y = x + 0.1 * width * np.cos(angle), y + 0.1 * height * np.sin(angle)
                points.append((x, y))
            draw.line(points, (120, 128, 120, 200) if rng.random() < 0.4 else (2, 2, 4, 255), max(2, int(unit * 0.018)))
        for inset in np.linspace(0, 0.2, 5) * unit:
            draw.rectangle((0, 0, width, height), None, (0, 0, 0, 70), int(inset) + 1)
    elif mood == "sadness":  # rain, a dark cloud
        for x, y in rng.uniform(0, 1, (38, 2)) * (width, height):
            draw.line((x, y, x - 0.02 * width, y + 0.13 * height), (222, 230, 240, 150), max(1, int(0.008 * unit)))
        for x in rng.uniform(0, width, 6):
            draw.ellipse((x - 0.2 * unit, -0.14 * unit, x + 0.2 * unit, 0.14 * unit), (62, 66, 76, 170))
    else:  # something else: a grid that follows no rule
        for x in rng.uniform(0, width, 4):
            draw.line((x, 0, x, height), (45, 45, 50, 200), max(1, int(0.012 * unit)))
        for y in rng.uniform(0, height, 3):
            draw.line((0, y, width, y), (45, 45, 50, 200), max(1, int(0.012 * unit)))
        x, y = rng.uniform(0, 0.8, 2) * (width, height)
        draw.rectangle((x, y, x + 0.2 * unit, y + 0.14 * unit), (*_to_rgb(accent, 1, 0.35), 200))


def _subjects(image: Image.Image, painting: Painting, accent: np.ndarray, rng: np.random.Generator) -> None:
    """Draw the subject `painting.count` times around its position."""
    width, height = image.size
    size = min(width, height) * {1: 0.3, 2: 0.2, 3: 0.15}[painting.count] * rng.uniform(0.9, 1.15)
    x = POSITIONS[painting.position] * width + rng.normal(0, 0.02) * width
    y = rng.uniform(0.48, 0.58) * height
    offsets = {1: ((0, 0),), 2: ((-0.85, 0.2), (0.85, -0.2)), 3: ((-1.1, 0.75), (1.1, 0.6), (0, -1.0))}[painting.count]
    draw = ImageDraw.Draw(image)
    for dx, dy in offsets:
        _shapes(draw, SUBJECTS[painting.subject], (x + dx * size, y + dy * size), size, accent, rng)


def _shapes(
    draw: ImageDraw.ImageDraw,
    shapes: list[Shape],
    center: tuple[float, float],
    size: float,
    color: np.ndarray,
    rng: np.random.Generator,
) -> None:
    tones = {
        "c": _to_rgb(color),
        "d": _to_rgb(color, 0.72, 0.08),
        "l": _to_rgb(color, 1, 0.5),
        "k": (22, 20, 24),
        "w": (246, 244, 238),
    }
    stretch = size * rng.uniform(0.9, 1.1, 2) * (rng.choice([-1, 1]), 1)
    for kind, tone, coordinates in shapes:
        points = [tuple(point) for point in np.array(coordinates).reshape(-1, 2) * stretch + center]
        if kind == "poly":
            draw.polygon(points, tones[tone])
        elif kind == "oval":
            (x0, y0), (x1, y1) = points
            draw.ellipse((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), tones[tone])
        else:
            draw.line(points, tones[tone], max(2, int(size * (0.3 if kind == "fat" else 0.11))), joint="curve")
