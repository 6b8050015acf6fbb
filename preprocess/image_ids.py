"""The ids of pictures in the JSON files."""

import hashlib
import unicodedata


def image_id(art_style: str, painting: str) -> str:
    """The image id of an artwork: a positive 63-bit integer as a string, equal for all Unicode spellings of the name.

    It is the first 8 bytes (big-endian) of the SHA-256 of "art_style/painting" in NFC and UTF-8, shifted right by one
    bit.
    """
    name = unicodedata.normalize("NFC", f"{art_style}/{painting}").encode()
    return str(int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1)
