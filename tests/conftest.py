"""What several tests share: a tiny data set with tiny models."""

import json
import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
# tiny models gain nothing from more threads, and suffer when others want the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

pytest_plugins = ["tests.bad_input"]  # its fixtures: a folder of good files to spoil

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY / "tests" / "data" / "golden"

TINY_VIT = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "hidden_act": "quick_gelu",
}
TINY_GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 50257,
    "n_positions": 40,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
}


class Workspace:
    """A folder with the demo's data in small, tiny model configs, and the flags that point at them."""

    def __init__(self, root: Path, images: int = 56):
        from preprocess.make_demo_data import make_demo

        self.root, self.data = root, root / "data"
        make_demo(self.data, images)
        # most runs have the demo's tokenizer: with GPT-2's 50 257 tokens, the output layer takes most of the time
        config = json.loads((shutil.copytree(self.data / "gpt2", root / "decoder") / "config.json").read_text())
        tokens = {name: config[name] for name in ("vocab_size", "bos_token_id", "eos_token_id")}
        for name, config in (("vit", TINY_VIT), ("gpt2", TINY_GPT2), ("decoder", TINY_GPT2 | tokens)):
            (root / name).mkdir(exist_ok=True)
            (root / name / "config.json").write_text(json.dumps(config))
        self.gpt2 = ("--gpt2_model", str(root / "gpt2"))  # GPT-2's vocabulary

    def argv(self, out: Path, *more: str) -> list[str]:
        """Flags of a short run that writes below `out`; BLEU only, so that no Java machine loads METEOR's tables."""
        settings = {
            "nle_data_train_path": self.data / "artEmisX_cl_train.json",
            "nle_data_val_path": self.data / "artEmisX_val.json",
            "annFileExp": self.data / "annotations" / "artEmisX_val_annot_exp.json",
            "vad_lexicon": self.data / "demo-VAD-Lexicon.txt",
            "ckpt_path": out / "ckpts",
            "caption_save_path": out / "results",
            "cache_dir": self.root / "cache",
            "clip_model": self.root / "vit",
            "gpt2_model": self.root / "decoder",
            "prefix_dim": 16,
            "lemmatizer": "simplemma",
            "batch_size": 8,
            "num_train_epochs": 2,
            "num_workers": 0,
            "cpu_threads": 1,
            "learning_rate": 1e-3,
        }
        flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        return [*flags, "--from_scratch", "--metrics", "bleu", *more]


def without(argv: list[str], *names: str) -> list[str]:
    """A command line without some of its flags and their values."""
    kept, skip = [], False
    for word in argv:
        skip = word.removeprefix("--") in names if word.startswith("--") else skip
        if not skip:
            kept.append(word)
    return kept


def logged_losses(out: Path) -> list[dict]:
    """The losses in a run's log, in order; of a step that was done again after a resumption the later ones."""
    lines = map(json.loads, (out / "results" / "log.jsonl").read_text().splitlines())
    losses = [line["losses"] for line in lines if "losses" in line]
    return list({(line["epoch"], line["step"]): line for line in losses}.values())


@pytest.fixture(scope="session")
def workspace(tmp_path_factory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("workspace"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that train the demo, or run the README's commands, come first: a test process is busy with each for minutes."""
    longest = ("test_demo.py", "test_main_road.py", "test_processes.py")
    items.sort(key=lambda item: item.path.name not in longest)


@pytest.fixture(autouse=True)
def fresh_process():
    """accelerate's settings and torch's threads last as long as the process: each test gets them as they were at the start."""
    yield
    if "torch" in sys.modules:
        torch = sys.modules["torch"]
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        # the garbage collector, in whatever test it runs, waits so long (5 s) for each worker of a loop that failed
        torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.1
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)
