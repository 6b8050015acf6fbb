"""CLIPScore and RefCLIPScore against transformers' own CLIP: a tiny model with random weights."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from utils import report as report_module
from utils.command_line import parse_args
from utils.constants import IMAGE_FOLDERS
from utils.errors import InputError
from utils.evaluation.clip_score import ClipScorer, clip_pixels, load_clip_scorer

SIZE, LENGTH = 32, 24
HALF = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = {1: "a dark  sea", 2: "Two birds, it's 1890!", 3: "the sky " * 30, 4: "a dark  sea"}
REFERENCES = {1: ["a bright sea", "the sea"], 2: ["birds"], 3: ["the sky", "a dark  sea", "blue"], 4: ["nothing"]}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a whole CLIP model, its tokenizer made of bytes and a few merges."""
    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    letters = list(bytes_to_unicode().values())
    merges = [("s", "e"), ("se", "a</w>"), ("t", "h"), ("th", "e</w>"), ("d", "a"), ("da", "r"), ("dar", "k</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer(vocab={token: place for place, token in enumerate(tokens)}, merges=merges).save_pretrained(folder)
    text = HALF | {"vocab_size": len(tokens), "max_position_embeddings": LENGTH, "projection_dim": 8}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": 1}
    vision = HALF | {"image_size": SIZE, "patch_size": 16, "projection_dim": 8}
    torch.manual_seed(1)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    with torch.no_grad():  # far from the initial weights, so that texts and images differ clearly
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four noisy images, wide, tall, square and of the model's size."""
    folder = tmp_path_factory.mktemp("images")
    draw = np.random.default_rng(0)
    for image, size in enumerate([(101, 40), (33, 90), (64, 64), (SIZE, SIZE)], 1):
        pixels = draw.integers(256, size=(size[1], size[0], 3), dtype=np.uint8)
        (folder / "style").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "style" / f"{image}.png")
    return folder


def test_images_are_prepared_as_clip_prepares_them(images):
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    for path in sorted(images.rglob("*.png")):
        image = Image.open(path)
        expected = processor(image, return_tensors="pt")["pixel_values"][0]
        assert torch.allclose(clip_pixels(image, SIZE), expected, atol=1e-5), path


@pytest.mark.parametrize("whole", [True, False])
def test_scores_are_those_of_the_definition(clip, images, tmp_path, whole):
    """One image and one text at a time, through transformers' own forward; tokenizer.json or vocab.json and merges.txt."""
    folder = tmp_path / "copy"
    shutil.copytree(clip, folder)
    if not whole:
        bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
        (folder / "vocab.json").write_text(json.dumps(bpe["vocab"]))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, bpe["merges"])) + "\n")
        (folder / "tokenizer.json").unlink()
    names = {image: f"style/{image}.png" for image in TEXTS}
    found = load_clip_scorer(str(folder), images).scores(TEXTS, REFERENCES, names)
    model, tokenizer = CLIPModel.from_pretrained(clip).eval(), CLIPTokenizer.from_pretrained(clip)

    def vector(text: str):
        tokens = tokenizer([f"A photo depicts {text}"], truncation=True, max_length=LENGTH, return_tensors="pt")
        return model.get_text_features(**tokens).pooler_output[0]

    values = set()
    with torch.no_grad():
        for image, text in TEXTS.items():
            pixels = clip_pixels(Image.open(images / names[image]), SIZE)[None]
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
    folder = next(folder for name in IMAGE_FOLDERS if (folder := workspace.data / name).is_dir())
    argv = ["--predictions", str(tmp_path / "captions.json"), "--records", str(workspace.data / "artEmisX_val.json")]
    argv += ["--annFileExp", str(workspace.data / "annotations" / "artEmisX_val_annot_exp.json"), "--metrics", "bleu"]
    argv += ["--json", str(tmp_path / "report.json")]
    report_module.main([*argv, "--clip_score", str(clip), "--image_root", str(folder)])
    report = json.loads((tmp_path / "report.json").read_text())
    of_images = json.loads((tmp_path / "report_images.json").read_text())["values"]
    assert report["clip_score"] == str(clip)
    for name in ("CLIPScore", "RefCLIPScore"):
        assert report["scores"][name] == pytest.approx(np.mean(of_images[name])) and name in report["intervals"]
    for half in (["--clip_score", str(clip)], ["--image_root", str(folder)]):
        with pytest.raises(InputError, match="give both"):
            report_module.main([*argv, *half])


def test_bad_input(clip, images, tmp_path):
    spoiled = tmp_path / "spoiled"

    def refused(words: str, spoil) -> None:
        shutil.rmtree(spoiled, ignore_errors=True)
        shutil.copytree(clip, spoiled)
        spoil()
        with pytest.raises(InputError, match=words) as caught:
            load_clip_scorer(str(spoiled), images)
        assert "\n" not in str(caught.value)

    def config(**fields) -> None:
        path = spoiled / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    refused("no config.json in this folder", lambda: (spoiled / "config.json").unlink())
    refused("clip_vision_model", lambda: config(model_type="clip_vision_model"))
    refused("no text_config", lambda: config(text_config=None))
    refused("hidden_size", lambda: config(text_config={"hidden_size": "wide"}))
    refused("auto_map", lambda: config(auto_map={"AutoModel": "theirs.Model"}))
    refused("tokenizer", lambda: (spoiled / "tokenizer.json").unlink())
    refused("no weights", lambda: (spoiled / "model.safetensors").unlink())
    refused("another shape", lambda: config(projection_dim=9))
    with pytest.raises(InputError, match="no image style/7.png"):
        load_clip_scorer(str(clip), images).scores({7: "a"}, {7: ["b"]}, {7: "style/7.png"})
    with pytest.raises(InputError, match="--eval_only"):
        parse_args(["--demo", "--clip_score", str(clip)])


def test_a_reference_of_the_opposite_direction_counts_as_0(monkeypatch):
    """Text and image agree; the cosine to the only reference is -1."""
    right, left = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    monkeypatch.setattr(ClipScorer, "_texts", lambda self, texts: torch.cat([right, left]))
    monkeypatch.setattr(ClipScorer, "_images", lambda self, names: [right])
    found = ClipScorer("", None, None, None).scores({1: "a"}, {1: ["b"]}, {1: "c"})
    assert found == {"CLIPScore": {1: 2.5}, "RefCLIPScore": {1: 0.0}}
