"""A Hugging Face Space: the page of utils.app with an exported model and the code that it needs, runnable where it lies."""

import shutil
from pathlib import Path
from typing import Any

from utils.run_record import recorded_lexicon

ROOT = Path(__file__).resolve().parents[1]
CODE = ("models", "utils", "cococaption")
MODEL = "model"  # the exported model's folder in the Space
APP = '''"""The page of a Hugging Face Space. Try it here: python app.py, then open http://127.0.0.1:7860."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from utils.app import main
from utils.errors import run_script

sys.exit(run_script(lambda: main([str(HERE / "model"), *sys.argv[1:]])))
'''
CARD = """---
title: {title}
emoji: 🎨
colorFrom: yellow
colorTo: blue
sdk: gradio
sdk_version: {gradio}
app_file: app.py
license: other
---

# {title}

A small emotional vision-language model (SEVLM, ECCV 2024): given an image, it says which of nine emotions the image evokes, and
why, and shows where it looked. The model and its terms: [model/README.md](model/README.md).

Try it on your own machine: `pip install -r requirements.txt`, then `python app.py`.
{lexicon}"""
LEXICON = """
The model reads the VAD lexicon `{name}`, which may not be passed on and is not included. Get it from its makers
(https://saifmohammad.com/WebPages/nrc-vad.html) and put it into `model/` under this name; in a public Space this would publish
it, so keep the Space private.
"""


def write_space(folder: Path, title: str, flags: dict[str, Any], lexicon: Path | None) -> None:
    """Write app.py, requirements.txt, README.md and the code into a Space's folder, which holds the model in `MODEL`.

    Args:
        flags: of the exported model's record. lexicon: the demo's, which is included; None: it may not be passed on.
    """
    for name in CODE:
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "annotations", "README.md")
        )
    (folder / "app.py").write_text(APP, encoding="utf-8")
    required = [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "requirements-app.txt")]
    (folder / "requirements.txt").write_text("".join(required), encoding="utf-8")
    note = ""
    if lexicon is not None:
        shutil.copy(lexicon, folder / MODEL / lexicon.name)
    elif flags.get("use_VAD"):
        note = LEXICON.format(name=flags.get("vad_lexicon") or "NRC-VAD-Lexicon.txt")
    gradio = required[1].partition("gradio>=")[2].partition(",")[0]
    (folder / "README.md").write_text(CARD.format(title=title, gradio=f"{gradio}.0", lexicon=note), encoding="utf-8")


def run_lexicon(ckpt_path: Path, record: dict[str, Any] | None) -> Path | None:
    """The demo's VAD lexicon, which is of our own making; None for any other run, or where it has gone."""
    flags = {} if record is None else record["flags"]
    return recorded_lexicon(flags, ckpt_path) if flags.get("demo") else None
