"""Command lines that the training script refuses, and folders it cannot write to."""

import pytest
import torch

import artEmisX_train
from tests.bad_input import TRAIN, check_refused_in_shell, check_training_refused, train_argv
from utils.errors import InputError

# flags -> message
FLAGS = {
    "--use_VAD maybe": "--use_VAD.*True or False was expected, not 'maybe'",
    "--no-use_VAD True": "--no-use_VAD takes no value",
    "--use_vad": "--use_vad.*--help",
    "--learning-rate 1": "--learning-rate.*--help",
    "something": "something.*--help",
    "--load_from_epoch": "--load_from_epoch.*--help",
    "--resume --load_from_epoch best-acc": "--resume.*--load_from_epoch.*one of them",
    "--eval_only": "--eval_only needs --load_from_epoch",
    "--eval_only --resume --load_from_epoch 1": "--resume.*give one of them",
    "--vad_causal --no-use_VAD": "--vad_causal.*--no-use_VAD",
    "--feature_cache auto --fixed_encoder False": "--feature_cache.*--fixed_encoder False",
    "--feature_cache gone": "gone.*cache_features",
    "--append_to all.csv": "--append_to.*--eval_only",
    "--len_prefix 25": "--len_prefix 25.*--max_seq_len 30",
    "--alpha 0 --no-use_cl_loss --no-use_VAD_loss": "--alpha 0",
    "--alpha 0 --cl_Loss_weight 0 --VAD_Loss_weight 0": "--alpha 0",
    "--batch_size 0": "--batch_size.*0 is not between",
    "--batch_size many": "--batch_size.*many",
    "--learning_rate nan": "--learning_rate.*nan",
    "--learning_rate inf": "--learning_rate.*inf",
    "--learning_rate -1": "--learning_rate.*-1",
    "--dropout 1": "--dropout.*1 is not between",
    "--max_seq_len 5": "--max_seq_len.*5 is not between",
    "--max_seq_len 50": "--gpt2_model gpt2: config.json: has only 40 positions, but --max_seq_len.* take 50",
    "--VAD_En_Heads 2": "--VAD_En_Heads.*2",
    "--seed -1": "--seed.*-1",
    "--seed " + "9" * 30: "--seed.*999",
    "--metrics wer": "--metrics.*wer",
    "--lemmatizer porter": "--lemmatizer.*porter",
    "--mixed_precision int8": "--mixed_precision.*int8",
    "--test_set v3": "--test_set.*v3",
    "--prefix_dim 17": "--clip_model vit.*--prefix_dim 16",
    "--num_workers -1": "--num_workers.*-1",
    "--prompt_text ''": "--prompt_text: its value is empty",
    "--cache_dir=": "--cache_dir: its value is empty",
    # files and folders that are not there, or are of the other kind
    "--text2emotion gone.pt": "gone.pt: no such file; .*train_text2emotion",
    "--vocabulary gone.pkl": "gone.pkl: no such file",
    "--ckpt_path vit/config.json": "--ckpt_path .*is a file, a folder was",
    "--ckpt_path vit/config.json/ckpts": "vit/config.json",
    f"--caption_save_path {TRAIN}": "--caption_save_path .*is a file, a folder was",
    f"--cache_dir {TRAIN}": "--cache_dir .*is a file, a folder was",
}


@pytest.mark.parametrize(("flags", "message"), FLAGS.items())
def test_flags(box, flags, message):
    check_training_refused(box, message, flags)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has fp16")
def test_half_precision_without_a_gpu(box):
    check_training_refused(box, "--mixed_precision fp16.*bf16", "--mixed_precision fp16")


def test_refused_training_leaves_no_folder(box):
    box.write(TRAIN, "{}")
    before = box.files()
    with pytest.raises(InputError):
        artEmisX_train.main(train_argv())
    assert box.files() == before


def test_in_the_shell(box):
    check_refused_in_shell(box, "artEmisX_train.py --use_VAD maybe", "error: .*--use_VAD.*'maybe'")
