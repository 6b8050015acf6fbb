"""A checkpoint folder as the authors' code writes it, scored by the script; written anew in our files, it says the same."""

import json
import shutil

import pytest

import artEmisX_train
from models.config_fields import gpt2_config
from models.decoder import Explainer
from models.sevlm import SEVLM
from models.vad_encoder import VADEncoder
from tests.conftest import GOLDEN
from utils.data.text_codec import load_tokenizer
from utils.training.named_checkpoints import load_named, save_named

pytestmark = pytest.mark.slow


def score(workspace, out, checkpoints):
    flags = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(checkpoints))
    assert artEmisX_train.main(workspace.argv(out, *flags)) == 0
    return json.loads((out / "results" / "unf_captions_full_best-res_0_step.json").read_text())


def test_authors_checkpoint_and_ours_say_the_same(workspace, tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    shutil.copytree(GOLDEN / "checkpoint", theirs)
    captions = score(workspace, tmp_path / "a", theirs)
    assert len({caption["caption"] for caption in captions}) > 1

    checkpoint = load_named(theirs, "best-res")
    model = SEVLM(None, Explainer(gpt2_config(checkpoint.config)), VADEncoder())
    assert checkpoint.restore(model) == []
    tokenizer = load_tokenizer(str(theirs / "nle_gpt2_tokenizer_0"))
    stats = {name: checkpoint.stats[name] for name in ("epoch", "best_acc", "best_res")}
    save_named(ours, "best-res", model, tokenizer, {}, stats)
    assert not (ours / "nle_model_best-res" / "pytorch_model.bin").exists()
    assert score(workspace, tmp_path / "b", ours) == captions
