"""CLIPScore and RefCLIPScore against transformers' own CLIP: a tiny model with random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from tests.test_evaluation.tiny import CLIP_LENGTH, CLIP_SIDE
from utils import report as report_module
from utils.command_line import parse_args
from utils.constants import IMAGE_FOLDERS
from utils.errors import InputError
from utils.evaluation.clip_score import ClipScorer, clip_pixels, load_clip_scorer

TEXTS = {1: "a dark  sea", 2: "Two birds, it's 1890!", 3: "the sky " * 30, 4: "a dark  sea"}
REFERENCES = {1: ["a bright sea", "the sea"], 2: ["birds"], 3: ["the sky", "a dark  sea", "blue"], 4: ["nothing"]}


def test_images_are_prepared_as_clip_prepares_them(noise):
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": CLIP_SIDE}, crop_size={"height": CLIP_SIDE, "width": CLIP_SIDE}
    )
    for path in sorted(noise.rglob("*.png")):
        image = Image.open(path)
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        assert torch.allclose(clip_pixels(image, CLIP_SIDE), expected, atol=1e-5), path


def test_scores_are_those_of_the_definition(clip, noise, tmp_path):
    """One image and one text at a time, through transformers' own forward; tokenizer.json or vocab.json and merges.txt."""
    folder, names = shutil.copytree(clip, tmp_path / "copy"), {image: f"style/{image}.png" for image in TEXTS}
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, bpe["merges"])) + "\n")
    (folder / "tokenizer.json").unlink()
    found, again = (load_clip_scorer(str(of), noise).scores(TEXTS, REFERENCES, names) for of in (clip, folder))
    assert found == again
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)

    def vector(text: str):
        tokens = tokenizer([f"A photo depicts {text}"], truncation=True, max_length=CLIP_LENGTH, return_tensors="pt")
        return model.get_text_features(**tokens).pooler_output[0]

    values = set()
    with torch.no_grad():
        for image, text in TEXTS.items():
            pixels = clip_pixels(Image.open(noise / names[image]), CLIP_SIDE)[None]
            vector_of_image = model.get_image_features(pixels).pooler_output[0]
            clip_score = 2.5 * max(torch.cosine_similarity(vector(text), vector_of_image, dim=0).item(), 0)
            nearest = max(torch.cosine_similarity(vector(text), vector(other), dim=0) for other in REFERENCES[image])
            nearest = max(nearest.item(), 0)
            both = 2 * clip_score * nearest / (clip_score + nearest) if clip_score + nearest else 0
            assert found["CLIPScore"][image] == pytest.approx(clip_score, abs=1e-5)
            assert found["RefCLIPScore"][image] == pytest.approx(both, abs=1e-5)
            values.add(round(clip_score, 4))
    assert len(values) > 2


def test_report_of_predictions(clip, workspace, tmp_path):
    """The report names the model; an image's scores are among those of single images, and have an interval."""
    records = json.loads((workspace.data / "artEmisX_val.json").read_text())
    rows = [{"image_id": int(image), "caption": "awe because the sea is dark"} for image in records]
    (tmp_path / "captions.json").write_text(json.dumps(rows))
    argv = ["--predictions", str(tmp_path / "captions.json"), "--records", str(workspace.data / "artEmisX_val.json")]
    argv += ["--annFileExp", str(workspace.data / "annotations" / "artEmisX_val_annot_exp.json"), "--metrics", "bleu"]
    ours = ["--clip_score", str(clip)], ["--image_root", str(workspace.data / IMAGE_FOLDERS[0])]
    report_module.main([*argv, *ours[0], *ours[1]])
    report = json.loads((tmp_path / "captions_report.json").read_text())
    of_images = json.loads((tmp_path / "captions_report_images.json").read_text())["values"]
    assert report["clip_score"] == str(clip)
    for name in ("CLIPScore", "RefCLIPScore"):
        assert report["scores"][name] == pytest.approx(np.mean(of_images[name])) and name in report["intervals"]
    for half in ours:
        with pytest.raises(InputError, match="pass both"):
            report_module.main([*argv, *half])


def test_bad_input(clip, noise, tmp_path):
    spoiled = tmp_path / "spoiled"

    def config(**fields):
        path = spoiled / "config.json"
        return lambda: path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    for words, spoil in (
        ("no config.json in this folder", (spoiled / "config.json").unlink),
        ("clip_vision_model", config(model_type="clip_vision_model")),
        ("no text_config", config(text_config=None)),
        ("hidden_size", config(text_config={"hidden_size": "wide"})),
        ("auto_map", config(auto_map={"AutoModel": "theirs.Model"})),
        ("tokenizer", (spoiled / "tokenizer.json").unlink),
        ("no weights", (spoiled / "model.safetensors").unlink),
        ("another shape", config(projection_dim=9)),
    ):
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(clip, spoiled)
        spoil()
        with pytest.raises(InputError, match=words) as caught:
            load_clip_scorer(str(spoiled), noise)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no image style/7.png"):
        load_clip_scorer(str(clip), noise).scores({7: "a"}, {7: ["b"]}, {7: "style/7.png"})
    with pytest.raises(InputError, match="--eval_only"):
        parse_args(["--demo", "--clip_score", str(clip)])


def test_a_reference_of_the_opposite_direction_counts_as_0(monkeypatch):
    """Text and image agree; the cosine to the only reference is -1."""
    right, left = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    monkeypatch.setattr(ClipScorer, "_texts", lambda self, texts: torch.cat([right, left]))
    monkeypatch.setattr(ClipScorer, "_images", lambda self, names: [right])
    found = ClipScorer("", None, None, None).scores({1: "a"}, {1: ["b"]}, {1: "c"})
    assert found == {"CLIPScore": {1: 2.5}, "RefCLIPScore": {1: 0.0}}
