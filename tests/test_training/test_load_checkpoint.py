"""A checkpoint loaded for use says what the training's own evaluation said."""

import json

import pytest
import torch

import artEmisX_train
from models.image_encoder import ImageFeatures
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.generation import caption_batch
from utils.training.load_checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    assert artEmisX_train.main(workspace.argv(out, "--num_train_epochs", "1", "--seed", "5")) == 0
    return out


def test_it_says_what_evaluation_said(workspace, trained):
    loaded = load_checkpoint(trained / "ckpts")
    records = read_records(workspace.data / "artEmisX_val.json")
    folder = workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    said = {
        line["image_id"]: line["caption"]
        for line in json.loads((trained / "results" / "unf_captions_full_0_5_step.json").read_text())
    }
    pixels = loaded.read_images([folder / record["image_name"] for record in records.values()])
    with torch.inference_mode():
        image = loaded.model.image_features(pixels, None, None)
        texts = caption_batch(loaded.model, ImageFeatures(*image), loaded.codec, loaded.vad.for_generated)
    assert {int(image_id): full for image_id, (full, _) in zip(records, texts, strict=True)} == said
    assert not loaded.model.training and loaded.args.seed == 5 and loaded.args.lemmatizer == "simplemma"


def test_a_lexicon_that_is_gone(workspace, trained, tmp_path, capsys):
    config = trained / "ckpts" / "nle_model_best-acc" / "config.json"
    fields = json.loads(config.read_text())
    fields["sevlm_settings"]["flags"]["vad_lexicon"] = "gone.txt"
    config.write_text(json.dumps(fields))
    (config.parent / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"gone.txt is not there\); name the file with --vad_lexicon"):
        load_checkpoint(trained / "ckpts", "best-acc")
    other = tmp_path / "other.txt"
    other.write_text("red\t0.1\t0.1\t0.1\n")
    load_checkpoint(trained / "ckpts", "best-acc", ["--vad_lexicon", str(other)])
    assert "--vad_lexicon (lexicon sha256) was" in capsys.readouterr().out
