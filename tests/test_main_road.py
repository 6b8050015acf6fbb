"""The README's main road with its default flags: from the downloads, in the layouts they have, to the test report.

The commands are the README's own, run in a copy of the repository with invented downloads: an archive in WikiArt's layout,
a release of ArtEmis with more texts than one process tags, a lexicon, NLTK's data as its downloader leaves them, and the two
models' ids on a hub of this machine. Only the number of epochs is cut.
"""

import csv
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from tests.conftest import REPOSITORY, TINY_GPT2, TINY_VIT
from tests.hub_server import Hub
from tests.test_data.test_nltk import write_data
from utils.constants import EMOTIONS
from utils.data.text_codec import SHIPPED_BPE

pytestmark = pytest.mark.slow

STYLES = ("Art_Nouveau_Modern", "Cubism", "Ukiyo_e")
IMAGES, TEXTS = 66, 38  # more training texts than one process tags; ArtEmis drops artworks of more than 40
WORDS = "the sky boat paint red blue water calm storm woman looks is and of a with dark light well".split()


def write_wikiart(folder: Path) -> list[tuple[str, str]]:
    """The archive as it unpacks, with a damaged name as in the real one; returns (style, painting)."""
    draw = np.random.default_rng(0)
    names = []
    for number in range(IMAGES):
        style, painting = STYLES[number % 3], f"artist-{number % 7}_title-{number}"
        stored = painting
        if number == 4:
            painting, stored = f"josé-é_{number}", f"jos#U00e9-#U00e9_{number}"
        names.append((style, painting))
        path = folder / "wikiart" / style / f"{stored}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(256, size=(40 + number, 90, 3), dtype=np.uint8)).save(path)
    (folder / "__MACOSX").mkdir()
    (folder / "wikiart" / "wclasses.csv").write_text("file,class\n")
    return names


def write_release(path: Path, names: list[tuple[str, str]]) -> None:
    draw = random.Random(3)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["art_style", "painting", "emotion", "utterance", "repetition"])
        for style, painting in names:
            emotions = draw.sample(EMOTIONS, 3)
            for _ in range(TEXTS):
                words = draw.choices(WORDS, k=draw.randint(6, 14))
                rows.writerow([style, painting, draw.choice(emotions), " ".join(words).capitalize() + ".", TEXTS])


def write_models(hub: Hub, folder: Path) -> None:
    """The two default models under their ids, tiny, with the files that the real ones have."""
    CLIPVisionModel(CLIPVisionConfig(**TINY_VIT)).save_pretrained(folder / "clip")
    GPT2LMHeadModel(GPT2Config(**TINY_GPT2)).save_pretrained(folder / "gpt2")
    shutil.copytree(SHIPPED_BPE, folder / "gpt2", dirs_exist_ok=True)
    hub.push("openai/clip-vit-base-patch16", folder / "clip")
    hub.push("distilgpt2", folder / "gpt2")


def commands_of_readme() -> list[str]:
    """The commands of the README's main road, in order."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").partition("## From the downloads")[2]
    block = re.search(r"```bash\n(.*?)```", text, re.DOTALL)[1]
    return [line for line in block.splitlines() if line.startswith(("python", "accelerate"))]


def copy_repository(folder: Path) -> None:
    for name in ("models", "utils", "preprocess", "cococaption"):
        ignored = shutil.ignore_patterns("__pycache__", "annotations")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    shutil.copy(REPOSITORY / "artEmisX_train.py", folder)


class Road:
    """A copy of the repository with the downloads in it, prepared as the README says."""

    def __init__(self, folder: Path):
        self.folder = folder
        copy_repository(folder)
        names = write_wikiart(folder / "WikiArt")
        write_release(folder / "artemis_dataset_release_v0.csv", names)
        (folder / "data" / "artEmis").mkdir(parents=True)
        lexicon = "".join(f"{word}\t0.{place}\t0.5\t0.{9 - place % 9}\n" for place, word in enumerate(WORDS[1:9], 1))
        (folder / "data" / "artEmis" / "NRC-VAD-Lexicon.txt").write_text(lexicon)
        write_data(folder / "nltk_data")
        self.hub = Hub()
        write_models(self.hub, folder / "hub")

    def run(self, command: str) -> str:
        """Run a command in the copy; returns what it printed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTEST"))}
        environment |= {
            "HF_HOME": f"{self.folder}/hf",
            "HF_ENDPOINT": self.hub.address,
            "NLTK_DATA": f"{self.folder}/nltk_data",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        streams = {"capture_output": True, "text": True}
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=environment, timeout=600, **streams)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr
        return done.stdout


def test_the_road(tmp_path):
    """Every step in order, on one process and on two, without and with cached features."""
    road = Road(tmp_path / "SEVLM")
    _nltk, resize, prepare, splits, annotations, cache, train, score, report = commands_of_readme()
    assert f"{IMAGES} images: {IMAGES} without a problem" in road.run(resize)
    road.run(prepare)
    assert f"{IMAGES} images: {IMAGES} without a problem" in road.run(splits)
    paths = [road.folder / f"data/artEmis/artEmisX_{split}.json" for split in ("train", "cl_train", "val", "test")]
    records = [json.loads(path.read_text()) for path in paths]
    assert [len(split) for split in records] == [56, 56, 3, 7]
    assert sum(len(record["explanations"]) for record in records[1].values()) > 2000
    road.run(annotations)

    train += " --num_train_epochs 1"
    uncached = re.sub(r"--feature_cache \S+", "", train)
    printed = road.run(f"{uncached} --ckpt_path uncached/ --caption_save_path uncached/ --metrics bleu")
    assert "best-res is of epoch 0: ACC" in printed
    assert sum("model.safetensors" in line for line in road.hub.asked if line.startswith("GET")) == 2

    assert f"{IMAGES} images in data/features, {IMAGES} of them new" in road.run(cache)
    printed = road.run(train.replace("accelerate launch", "torchrun --nproc_per_node 2"))
    assert "processes: 2, images per update: 64" in printed
    assert "best-res is of epoch 0: ACC" in printed and "METEOR" in printed

    printed = road.run(score)
    assert "best-res: ACC" in printed and "(7 images)" in printed
    table = road.run(report)
    assert "SEVLM (published)" in table and "test set: v1.0" in table
