"""Small pictures inside a page."""

import base64
import io
from pathlib import Path

from PIL import Image

from utils.data.images import find_image, open_image
from utils.errors import InputError
from utils.evaluation.page import Card

SIDE = 400  # pixels of the longer side
MOST_BYTES = 45_000  # of one JPEG: with 200 of them a page stays under 15 MB
QUALITIES = (84, 70, 55, 40, 25)


def add_thumbnail(card: Card, folder: Path | None) -> None:
    """Give a card its picture, or the reason why it has none."""
    if folder is None:
        card.missing = "no image folder was named"
        return
    try:
        path = find_image(folder, card.name)
        if path is None:
            card.missing = f"no image file {card.name}"
            return
        image = open_image(path, SIDE)
    except InputError as error:
        card.missing = str(error)
        return
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    card.width, card.height = image.size
    card.thumbnail = f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image)).decode()}"


def _jpeg(image: Image.Image) -> bytes:
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MOST_BYTES:
            break
    return buffer.getvalue()
