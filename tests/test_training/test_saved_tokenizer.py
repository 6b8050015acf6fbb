"""A --ckpt_path that holds another tokenizer: its new checkpoints would be read with the wrong words."""

import json
import shutil

import pytest

import artEmisX_train
from utils.errors import InputError

pytestmark = pytest.mark.slow


def test_the_tokenizer_of_another_run(workspace, tmp_path):
    flags = workspace.argv(tmp_path, "--num_train_epochs", "1")
    assert artEmisX_train.main(flags) == 0
    path = tmp_path / "ckpts" / "nle_gpt2_tokenizer_0" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["Ġred"], vocabulary["Ġblue"] = vocabulary["Ġblue"], vocabulary["Ġred"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="nle_gpt2_tokenizer_0: is not the tokenizer of --gpt2_model"):
        artEmisX_train.main([*flags, "--resume"])
    shutil.rmtree(tmp_path / "ckpts" / "resume")
    with pytest.raises(InputError, match="nle_gpt2_tokenizer_0: is not the tokenizer of --gpt2_model"):
        artEmisX_train.main(flags)
