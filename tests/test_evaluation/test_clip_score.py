"""CLIPScore and RefCLIPScore against transformers' own CLIP: a tiny model with random weights."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from tests.test_evaluation.tiny import CLIP_LENGTH, CLIP_SIDE
from utils import report as report_module
from utils.constants import IMAGE_FOLDERS
from utils.errors import InputError
from utils.evaluation.clip_score import ClipScorer, clip_pixels, load_clip_scorer
from utils.files import read_json, write_json

TEXTS = {1: "a dark  sea", 2: "Two birds, it's 1890!", 3: "the sky " * 30, 4: "a dark  sea"}
REFERENCES = {1: ["a bright sea", "the sea"], 2: ["birds"], 3: ["the sky", "a dark  sea", "blue"], 4: ["nothing"]}


@pytest.fixture(scope="module")
def scorer(clip, workspace) -> ClipScorer:
    return load_clip_scorer(str(clip), workspace.data / IMAGE_FOLDERS[0])


@pytest.fixture(scope="module")
def names(workspace) -> dict[int, str]:
    """Image -> its name."""
    records = read_json(workspace.data / "artEmisX_val.json").values()
    return dict(enumerate((record["image_name"] for record in records), 1))


@pytest.mark.parametrize("size", [(101, 40), (33, 90), (64, 64), (CLIP_SIDE, CLIP_SIDE)])
def test_images_are_prepared_as_clip_prepares_them(size):
    image, square = Image.effect_noise(size, 100).convert("RGB"), {"height": CLIP_SIDE, "width": CLIP_SIDE}
    processor = CLIPImageProcessorPil(size={"shortest_edge": CLIP_SIDE}, crop_size=square)
    expected = processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(clip_pixels(image, CLIP_SIDE), expected, atol=1e-5)


@torch.no_grad()
def test_scores_are_those_of_the_definition(clip, scorer, names):
    """One image and one text at a time, through transformers' own forward."""
    found = scorer.scores(TEXTS, REFERENCES, names)
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)

    def vector(text: str):
        tokens = tokenizer([f"A photo depicts {text}"], truncation=True, max_length=CLIP_LENGTH, return_tensors="pt")
        return model.get_text_features(**tokens).pooler_output[0]

    def similarity(one, other) -> float:
        return max(torch.cosine_similarity(one, other, dim=0).item(), 0)

    for image, text in TEXTS.items():
        pixels = clip_pixels(scorer.open(names[image]), CLIP_SIDE)[None]
        clip_score = 2.5 * similarity(vector(text), model.get_image_features(pixels).pooler_output[0])
        nearest = max(similarity(vector(text), vector(other)) for other in REFERENCES[image])
        both = 2 * clip_score * nearest / (clip_score + nearest) if clip_score + nearest else 0
        assert found["CLIPScore"][image] == pytest.approx(clip_score, abs=1e-5)
        assert found["RefCLIPScore"][image] == pytest.approx(both, abs=1e-5)
    assert len({round(score, 4) for score in found["CLIPScore"].values()}) > 2


def test_a_reference_of_the_opposite_direction_counts_as_0(monkeypatch):
    """Text and image agree; the cosine to the only reference is -1."""
    right, left = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    monkeypatch.setattr(ClipScorer, "_texts", lambda self, texts: torch.cat([right, left]))
    monkeypatch.setattr(ClipScorer, "_images", lambda self, names: [right])
    found = ClipScorer("", None, None, None).scores({1: "a"}, {1: ["b"]}, {1: "c"})
    assert found == {"CLIPScore": {1: 2.5}, "RefCLIPScore": {1: 0.0}}


def test_similarities_that_choose_the_best_sample_are_those_of_the_score(scorer, names):
    texts = {1: ["a dark sea", "birds", "the sky"], 2: ["birds", "nothing", "a dark sea"]}
    found = scorer.similarities([scorer.open(names[image]) for image in texts], list(texts.values()))
    for row, image in zip(found, texts, strict=True):
        scores = [scorer.scores({1: text}, {1: ["x"]}, {1: names[image]})["CLIPScore"][1] for text in texts[image]]
        assert (2.5 * row).clamp(min=0).tolist() == pytest.approx(scores, abs=1e-5)


def test_report_of_predictions(clip, workspace, tmp_path):
    """The report names the model; an image's scores are among those of single images, and have an interval."""
    val = workspace.data / "artEmisX_val.json"
    rows = [{"image_id": int(image), "caption": "awe because the sea is dark"} for image in read_json(val)]
    write_json(tmp_path / "captions.json", rows)
    argv = ["--predictions", str(tmp_path / "captions.json"), "--records", str(val), "--metrics", "bleu"]
    argv += ["--annFileExp", str(workspace.data / "annotations" / "artEmisX_val_annot_exp.json")]
    ours = ["--clip_score", str(clip)], ["--image_root", str(workspace.data / IMAGE_FOLDERS[0])]
    report_module.main([*argv, *ours[0], *ours[1]])
    report = read_json(tmp_path / "captions_report.json")
    of_images = read_json(tmp_path / "captions_report_images.json")["values"]
    assert report["clip_score"] == str(clip)
    for name in ("CLIPScore", "RefCLIPScore"):
        assert report["scores"][name] == pytest.approx(np.mean(of_images[name])) and name in report["intervals"]
    for half in ours:
        with pytest.raises(InputError, match="pass both"):
            report_module.main([*argv, *half])


def removed(name: str):
    return lambda folder: (folder / name).unlink()


def config(**fields):
    return lambda folder: write_json(folder / "config.json", read_json(folder / "config.json") | fields)


SPOILED = {
    "no config.json in this folder": removed("config.json"),
    "clip_vision_model": config(model_type="clip_vision_model"),
    "no text_config": config(text_config=None),
    "hidden_size": config(text_config={"hidden_size": "wide"}),
    "tokenizer": removed("tokenizer.json"),
}


@pytest.mark.parametrize(("message", "spoil"), SPOILED.items())
def test_bad_models(clip, tmp_path, message, spoil):
    spoil(shutil.copytree(clip, tmp_path / "spoiled"))
    with pytest.raises(InputError, match=message) as caught:
        load_clip_scorer(str(tmp_path / "spoiled"), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_image(scorer):
    with pytest.raises(InputError, match="no image style/7.png"):
        scorer.open("style/7.png")
