"""A checkpoint folder as the authors' code writes it: scored, written again by save_named, and exported; always the same captions."""

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


def test_authors_checkpoint(workspace, tmp_path):
    published, rewritten, exported = (tmp_path / name for name in ("published", "rewritten", "exported"))
    shutil.copytree(GOLDEN / "checkpoint", published)
    load_image_encoder(str(workspace.root / "vit"), from_scratch=True).vision.save_pretrained(tmp_path / "vit")

    def captions_of(checkpoints) -> list[dict]:
        out = tmp_path / f"scored_{checkpoints.name}"
        flags = ("--eval_only", "--load_from_epoch", "best-res", "--ckpt_path", str(checkpoints))
        encoder = ("--no-from_scratch", "--clip_model", str(tmp_path / "vit"))
        assert artEmisX_train.main(workspace.argv(out, *flags, *encoder)) == 0
        return json.loads((out / "results" / "unf_captions_full_best-res_0_step.json").read_text())

    captions = captions_of(published)
    assert len({caption["caption"] for caption in captions}) > 1

    checkpoint = load_named(published, "best-res")
    config = SEVLMConfig.from_fields(checkpoint.config)
    model = SEVLM(config, Explainer(gpt2_config(checkpoint.config), config))
    assert checkpoint.restore(model) == []
    tokenizer = load_tokenizer(str(published / "nle_gpt2_tokenizer_0"))
    stats = {name: checkpoint.stats[name] for name in ("epoch", "best_acc", "best_res")}
    save_named(rewritten, "best-res", model, tokenizer, {}, stats)
    files = list((rewritten / "nle_model_best-res").iterdir())
    assert "pytorch_model.bin" not in {path.name for path in files}
    assert len({path.stat().st_mode for path in files}) == 1  # whoever may read one may read all
    assert captions_of(rewritten) == captions

    # pickled files become one folder without any, whose card says where its settings are from
    share.main([str(published), str(exported), "--clip_model", str(tmp_path / "vit")])
    assert {path.suffix for path in exported.iterdir()} == {".json", ".safetensors", ".md"}
    assert "Its checkpoint recorded no settings" in (exported / "README.md").read_text()
    assert scored(workspace, exported, tmp_path / "scored_export")[0] == captions
