"""A checkpoint folder as the authors' code writes it, scored by the script; written again by save_named, it gives the same captions."""

import json
import shutil

import pytest

import artEmisX_train
from models.config import SEVLMConfig, gpt2_config
from models.decoder import Explainer
from models.sevlm import SEVLM
from tests.conftest import GOLDEN
from tests.test_training.test_share import scored
from utils import share
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.text_codec import load_tokenizer
from utils.training.checkpoints import load_named, save_named

pytestmark = pytest.mark.slow


def score(workspace, out, checkpoints, *more):
    flags = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(checkpoints), *map(str, more))
    assert artEmisX_train.main(workspace.argv(out, *flags)) == 0
    return json.loads((out / "results" / "unf_captions_full_best-res_0_step.json").read_text())


def test_authors_checkpoint_written_again_gives_the_same_captions(workspace, tmp_path):
    published, rewritten = tmp_path / "published", tmp_path / "rewritten"
    shutil.copytree(GOLDEN / "checkpoint", published)
    captions = score(workspace, tmp_path / "a", published)
    assert len({caption["caption"] for caption in captions}) > 1

    checkpoint = load_named(published, "best-res")
    config = SEVLMConfig.from_fields(checkpoint.config)
    model = SEVLM(config, Explainer(gpt2_config(checkpoint.config), config))
    assert checkpoint.restore(model) == []
    tokenizer = load_tokenizer(str(published / "nle_gpt2_tokenizer_0"))
    stats = {name: checkpoint.stats[name] for name in ("epoch", "best_acc", "best_res")}
    save_named(rewritten, "best-res", model, tokenizer, {}, stats)
    assert not (rewritten / "nle_model_best-res" / "pytorch_model.bin").exists()
    assert score(workspace, tmp_path / "b", rewritten) == captions


def test_authors_checkpoint_as_one_shared_folder(workspace, tmp_path):
    """Pickled files become one folder without any; it gives the same captions, and its card says where settings are from."""
    shutil.copytree(GOLDEN / "checkpoint", tmp_path / "published")
    encoder = load_image_encoder(str(workspace.root / "vit"), from_scratch=True)
    encoder.vision.save_pretrained(tmp_path / "vit")
    captions = score(
        workspace, tmp_path / "a", tmp_path / "published", "--no-from_scratch", "--clip_model", tmp_path / "vit"
    )
    share.main([str(tmp_path / "published"), str(tmp_path / "out"), "--clip_model", str(tmp_path / "vit")])
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors", ".md"}
    assert "Its checkpoint recorded no settings" in (tmp_path / "out" / "README.md").read_text()
    assert scored(workspace, tmp_path / "out", tmp_path / "b")[0] == captions
