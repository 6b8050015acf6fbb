"""What a generated text says: its emotion and its explanation. No torch here."""

from utils.constants import BECAUSE


def split_generated(full: str) -> tuple[str, str]:
    """Split a generated text into (emotion, explanation).

    The emotion is the text before the first "because", the explanation the text after the last; both are stripped.
    Without "because", the emotion is the whole text and the explanation starts at the third word.
    """
    emotion = full.split(BECAUSE)[0].strip()
    if BECAUSE in full:
        return emotion, full.split(BECAUSE)[-1].strip()
    return emotion, " ".join(full.split()[2:])
