"""SPICE through pycocoevalcap; off by default, as it needs a download (Stanford CoreNLP 3.6.0) and Java 8 or 11."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

import numpy as np

from utils.errors import InputError

_MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


def check_models() -> None:
    """Raise InputError when a file that SPICE needs is missing. pycocoevalcap would download it, and fail offline."""
    folder = Path(importlib.util.find_spec("pycocoevalcap.spice").origin).parent / "lib"
    for model in _MODELS:
        if not (folder / model).is_file():
            raise InputError(
                f"{folder / model}: SPICE needs this file; leave spice out of the metrics, or, with an internet "
                "connection, run: python -c 'from pycocoevalcap.spice.spice import Spice; Spice()'"
            )


def spice(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """SPICE of I tokenised candidates.

    Returns:
        the corpus score and that of each image, in [0, 1]. An image whose text SPICE cannot parse gets NaN and is left out
        of the corpus score, which pycocoevalcap would make NaN.

    Raises:
        InputError: SPICE's models are missing, or its Java program failed.
    """
    check_models()
    from pycocoevalcap.spice.spice import Spice

    # SPICE returns images sorted by id, so ids are the positions
    try:
        _, tables = Spice().compute_score(
            dict(enumerate(map(list, references))), {index: [text] for index, text in enumerate(candidates)}
        )
    except (CalledProcessError, OSError) as error:
        raise InputError(f"SPICE: its Java program failed ({error}); it needs a java 8 or 11 on the PATH") from None
    values = np.array([table["All"]["f"] for table in tables], np.float64)
    parsed = values[~np.isnan(values)]
    return float(parsed.mean()) if parsed.size else 0.0, values.tolist()
