"""The art styles of the demo's pictures: functions that repaint a finished scene."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from preprocess.demo_data.palette import to_rgb, to_rgbs


def strokes(image: Image.Image, mood: str, ground: np.ndarray, accent: np.ndarray, rng: np.random.Generator) -> None:
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
        color = to_rgb(ground, rng.uniform(0.5, 1.5)) if rng.random() < 0.85 else to_rgb(accent)
        points = [(x, y), (x + dx / 2 - bend, y + dy / 2 + bend), (x + dx, y + dy)]
        draw.line(points, (*color, 190), int(unit * rng.uniform(0.04, 0.11)), joint="curve")
    for x, y in rng.uniform(0, 1, (14, 2)) * (width, height):
        r = unit * rng.uniform(0.004, 0.018)
        draw.ellipse((x - r, y - r, x + r, y + r), to_rgb(accent))


def _facets(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cut the picture along straight lines into facets; shift each a little and change its brightness."""
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
    """Repaint the picture with short slanted strokes of its own colours, slightly varied."""
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
    for end, color in zip(ends.tolist(), to_rgbs(colors), strict=True):
        draw.line(end, color, 6)
    return canvas


def _dots(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Repaint the picture with dots of its own colours on a pale canvas of its mean colour."""
    width, height = image.size
    source = np.asarray(image, float)
    canvas = Image.new("RGB", image.size, to_rgb(source.mean((0, 1)), 1, 0.45))
    draw = ImageDraw.Draw(canvas)
    step = min(width, height) / 28
    ys, xs = np.mgrid[step / 2 : height : step, step / 2 : width : step]
    r = 0.45 * step
    xs, ys = (np.clip(axis + rng.normal(0, step * 0.15, axis.shape), 0, None).ravel() for axis in (xs, ys))
    colors = source[np.minimum(ys.astype(int), height - 1), np.minimum(xs.astype(int), width - 1)]
    colors = colors + rng.normal(0, 18, colors.shape)
    boxes = np.stack((xs - r, ys - r, xs + r, ys + r), 1)
    for box, color in zip(boxes.tolist(), to_rgbs(colors), strict=True):
        draw.ellipse(box, color)
    return canvas


def _unchanged(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image


STYLES: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "Abstract_Expressionism": _unchanged,
    "Color_Field_Painting": _unchanged,
    "Cubism": _facets,
    "Impressionism": _dabs,
    "Pointillism": _dots,
    "Realism": _unchanged,
}
