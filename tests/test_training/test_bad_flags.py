"""Command lines that the training script refuses: one line that names the flag, and nothing written."""

import pytest

from tests.bad_input import TRAIN, check_refused_in_shell, check_training_refused

# flags -> message
FLAGS = {
    # not such a flag, not such a value
    "--use_vad": "--use_vad.*--help",
    "--load_from_epoch": "--load_from_epoch.*--help",
    "--prompt_text ''": "--prompt_text: its value is empty",
    "--cache_dir=": "--cache_dir: its value is empty",
    "--batch_size 0": "--batch_size.*0 is not between",
    "--learning_rate nan": "--learning_rate.*nan",
    "--dropout 1": "--dropout.*1 is not between",
    "--max_seq_len 7": "--max_seq_len.*7 is not between",
    "--seed 4294967296": "--seed.*4294967296 is not between 0 and 4294967295",
    "--metrics wer": "--metrics.*wer",
    # flags that contradict each other
    "--resume --load_from_epoch best-acc": "--resume.*--load_from_epoch.*one of them",
    "--eval_only": "--eval_only needs --load_from_epoch",
    "--eval_only --load_from_epoch ../../x": "--load_from_epoch ../../x: expected a checkpoint's name such as best-acc",
    "--vad_causal --no-use_VAD": "--vad_causal.*--no-use_VAD",
    "--emotion_pooling mean": "--emotion_pooling changes the head of --use_emotion_loss",
    "--emotion_from head": "--emotion_from head asks the head of --use_emotion_loss",
    "--feature_cache auto --fixed_encoder False": "--feature_cache.*--fixed_encoder False",
    "--append_to all.csv": "--append_to.*--eval_only",
    "--clip_score vit": "--clip_score is for the report of --eval_only",
    "--split val": "--split names a split of the demo's data",
    "--split test --demo": "--split test is for --eval_only",
    "--report_to none tensorboard": "--report_to none and others",
    "--report_to tensorboard --eval_only --load_from_epoch best-res": "--report_to .* not with --eval_only",
    "--len_prefix 23": "--len_prefix 23.*--max_seq_len 30",
    "--alpha 0 --cl_Loss_weight 0 --no-use_VAD_loss --use_emotion_loss --emotion_loss_weight 0": "--alpha 0",
    # models that do not fit
    "--max_seq_len 50": "--gpt2_model gpt2: config.json: has only 40 positions, but --max_seq_len.* take 50",
    "--prefix_dim 17": "--clip_model vit.*--prefix_dim 16",
    # files and folders that are not there, or are of the other kind
    "--annFileExp gone.json": "--annFileExp gone.json: no such file; .*build_annotations",
    "--image_root gone": "--image_root gone: no such folder; .*resize_wikiart",
    "--vad_lexicon gone.txt": "--vad_lexicon gone.txt: no such file",
    "--feature_cache gone": "gone.*cache_features",
    "--text2emotion gone.pt": "gone.pt: no such file; .*train_text2emotion",
    "--ckpt_path vit/config.json": "--ckpt_path .*is a file, a folder was",
    "--ckpt_path vit/config.json/ckpts": "vit/config.json",
    f"--cache_dir {TRAIN}": "--cache_dir .*is a file, a folder was",
}


@pytest.mark.parametrize(("flags", "message"), FLAGS.items())
def test_flags(box, flags, message):
    check_training_refused(box, message, flags)


def test_what_is_searched_beside_the_data(box):
    """Images and lexicon lie beside the JSON files, or one folder up; else the message says where they were searched."""
    (box / "data/images").rename(box / "images")
    (box / "data/NRC-VAD-Lexicon.txt").rename(box / "NRC-VAD-Lexicon.txt")
    box.write(TRAIN, "{}")  # is read once both are found
    check_training_refused(box, f"^{TRAIN}: ")
    (box / "NRC-VAD-Lexicon.txt").rename(box / "lexicon.txt")
    check_training_refused(box, rf"no VAD lexicon found: .* in {box.root}/data, {box.root}; name it with --vad_lexicon")
    (box / "images").rename(box / "pictures")
    check_training_refused(box, "no image folder found: .*; name it with --image_root")


def test_in_the_shell(box):
    check_refused_in_shell(box, "artEmisX_train.py --use_VAD maybe", "error: .*--use_VAD.*'maybe'")
