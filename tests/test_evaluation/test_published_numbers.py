"""Numbers of papers, typed a second time: published scores, statistics, default places, and what makes runs comparable."""

import inspect
from pathlib import Path

import pytest
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from utils import constants
from utils.command_line import check_paths, parse_args
from utils.evaluation import tables
from utils.evaluation.emotion_metrics import BINS
from utils.evaluation.report import V1_TEST_IMAGES
from utils.evaluation.tables import aggregate, data_set_of
from utils.evaluation.text_metrics import max_lcs

# ACC, BLEU-1 .. 4, METEOR, ROUGE-L
PUBLISHED = {
    ("v1.0", "NLX-GPT"): (63.6, 53.8, 29.9, 16.3, 9.3, 13.8, 30.3),
    ("v1.0", "SEVLM"): (65.6, 54.2, 30.3, 16.4, 9.2, 13.9, 30.4),
    ("v1.0", "LLaVA-OV"): (69.8, 49.9, 27.2, 15.0, 8.4, 14.3, 28.8),
    ("v1.0", "SAEA"): (70.5, 56.3, 32.2, 17.8, 10.3, 14.8, 31.2),
    ("test_all", "SEVLM"): (44.2, 51.8, 30.4, 17.2, 10.1, 13.9, 30.4),
    ("test_all", "LLaVA-OV"): (53.7, 50.7, 29.8, 17.6, 10.7, 14.9, 29.9),
    ("test_all", "SAEA"): (56.2, 54.7, 33.4, 19.9, 12.2, 15.2, 32.0),
    ("affection", "SEVLM"): (69.4, 62.0, 36.3, 21.0, 12.3, 15.5, 30.9),
    ("affection", "LLaVA-OV"): (76.6, 61.2, 36.0, 21.4, 12.9, 16.5, 30.8),
    ("affection", "SAEA"): (78.2, 64.5, 38.9, 23.1, 13.7, 16.6, 32.3),
}


@pytest.mark.parametrize(("test_set", "name"), PUBLISHED)
def test_scores_of_the_papers(test_set, name):
    rows = [values for title, values in tables.PUBLISHED[test_set].items() if title.startswith(name)]
    assert rows == [PUBLISHED[test_set, name]]
    order = ("sub_acc", "Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L")
    assert order == tables.PUBLISHED_SCORES and V1_TEST_IMAGES == 7933


def test_data_sets():
    sets = {"v1.0": "v1.0", "test_all": "v2.0", "test_40": "v2.0", "affection": "affection", None: None}
    assert {test_set: data_set_of(test_set) for test_set in sets} == sets


def test_statistics_of_images():
    """The paper normalises by ImageNet's; --image_normalization own by CLIP's."""
    assert (constants.IMAGENET_MEAN, constants.IMAGENET_STD) == (
        tuple(IMAGENET_DEFAULT_MEAN),
        tuple(IMAGENET_DEFAULT_STD),
    )
    assert (constants.CLIP_MEAN, constants.CLIP_STD) == (tuple(OPENAI_CLIP_MEAN), tuple(OPENAI_CLIP_STD))


def test_sizes_of_the_paper():
    assert (constants.EMOTION_SPAN, constants.MAX_NEW_TOKENS, constants.IGNORED_LABEL) == (6, 25, -100)
    assert constants.ADDED_TOKENS == ("<pad>", "<prefix>", "<emotion>", "<explanation>")
    emotions = "amusement, awe, contentment, excitement, anger, disgust, fear, sadness, something else"
    assert constants.EMOTIONS == tuple(emotions.split(", "))
    assert [constants.EMOTION_INDEX[emotion] for emotion in constants.EMOTIONS] == list(range(9))


def test_samples_and_bins():
    defaults = {name: parameter.default for name, parameter in inspect.signature(max_lcs).parameters.items()}
    assert (defaults["sample"], defaults["seed"], BINS) == (5000, 2021, 15)


@pytest.mark.parametrize("fact", ["data_set", "test_set", "images", "references_per_image", "lexicon_sha256", "judge"])
def test_runs_that_differ_in_a_fact_are_not_averaged(fact):
    one = {"scores": {"sub_acc": 0.5}, "seed": 1, "data_set": "v1.0", "test_set": "v1.0", "images": 10, "judge": "a"}
    runs = {"a": one, "b": one | {"seed": 2}, "c": one | {"seed": 3, fact: "another"}}
    assert [summary["runs"] for summary in aggregate(runs)] == [2, 1]


# ---- where files are looked for --------------------------------------------------------------------------------------


def made(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}") if path.suffix else path.mkdir(exist_ok=True)


def found(folder: Path) -> tuple[str, str]:
    """Lexicon and image folder that a bare command takes for the JSON files in `folder`/json."""
    made(folder, "json/val.json", "json/train.json", "annotations.json")
    flags = {"val_path": "json/val.json", "train_path": "json/train.json"}
    argv = [text for flag, name in flags.items() for text in (f"--nle_data_{flag}", str(folder / name))]
    places = ("ckpt_path", "caption_save_path", "cache_dir")
    argv += [text for flag in places for text in (f"--{flag}", str(folder / "out"))]
    args = parse_args([*argv, "--annFileExp", str(folder / "annotations.json")])
    check_paths(args)
    return tuple(str(path.relative_to(folder)) for path in (args.vad_lexicon, args.image_root))


def test_first_beside_the_json_files_then_one_folder_up(tmp_path):
    """v1 of the lexicon, the paper's, before v2.1; the folder of shrunk images before images/."""
    shrunk = "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    made(tmp_path, "NRC-VAD-Lexicon-v2.1.txt", "images")
    assert found(tmp_path) == ("NRC-VAD-Lexicon-v2.1.txt", "images")
    made(tmp_path, "NRC-VAD-Lexicon.txt", shrunk)
    assert found(tmp_path) == ("NRC-VAD-Lexicon.txt", shrunk)
    made(tmp_path / "json", "NRC-VAD-Lexicon-v2.1.txt", "images")
    assert found(tmp_path) == ("json/NRC-VAD-Lexicon-v2.1.txt", "json/images")
    made(tmp_path / "json", "NRC-VAD-Lexicon.txt", shrunk)
    assert found(tmp_path) == ("json/NRC-VAD-Lexicon.txt", f"json/{shrunk}")
