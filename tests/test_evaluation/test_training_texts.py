"""Files that no flag names: the training texts that novelty is measured against, lexicon and image folder."""

import json

import pytest

from utils.command_line import check_paths, parse_args
from utils.data.records import whole_training_split
from utils.evaluation.report import training_texts
from utils.files import sha256, write_json
from utils.run_record import flags_of


def split(text: str) -> dict:
    record = {"emotions": ["awe"], "explanations": [text], "image_name": "a/b.jpg"}
    return {"1": record | {"origin_emotion_distribution": [0.0, 1.0, *[0.0] * 7]}}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a checkpoint trained on data of its own; other data lie at the default path."""
    monkeypatch.chdir(tmp_path)
    for folder, text in (("data/artEmis", "by default"), ("mine", "trained on"), ("other", "of others")):
        for name in ("train", "cl_train"):
            write_json(tmp_path / folder / f"artEmisX_{name}.json", split(f"{text}, {name}"))
    record("mine/artEmisX_cl_train.json")
    return tmp_path


def record(train: str) -> None:
    """The checkpoint's record of a training on this file."""
    args = parse_args(["--nle_data_train_path", train])
    texts = whole_training_split(args.nle_data_train_path)
    fingerprints = {"training_texts": texts.name, "training_texts_sha256": sha256(texts)}
    settings = {"flags": flags_of(args), "fingerprints": fingerprints}
    write_json("ckpts/nle_model_best-res/config.json", {"sevlm_settings": settings})


def found(*flags: str) -> tuple[str | None, str | None, str | None]:
    """Path, first explanation and note."""
    argv = ["--eval_only", "--load_from_epoch", "best-res", "--nle_data_val_path", "test/artEmisX_test.json", *flags]
    texts = training_texts(parse_args(argv))
    first = None if texts.records is None else texts.records["1"]["explanations"][0]
    return None if texts.path is None else str(texts.path), first, texts.note


def test_the_checkpoints_texts_without_the_flag(here):
    assert found() == ("mine/artEmisX_train.json", "trained on, train", None)
    (here / "mine").rename(here / "test")  # moved, together with the scored split
    assert found() == ("test/artEmisX_train.json", "trained on, train", None)


def test_the_training_file_where_there_is_no_whole_one(here):
    (here / "mine" / "artEmisX_train.json").rename(here / "mine" / "artEmisX_old_train.json")
    record("mine/artEmisX_cl_train.json")
    assert found() == ("mine/artEmisX_cl_train.json", "trained on, cl_train", None)


def test_missing_or_changed_texts_are_not_replaced(here):
    """Neither by the default path's, nor by those of images with several emotions."""
    path = here / "mine" / "artEmisX_train.json"
    for change, words in ((lambda: path.write_text(json.dumps(split("edited"))), "changed"), (path.unlink, "gone")):
        change()
        file, first, note = found()
        assert file is first is None
        assert f"mine/artEmisX_train.json: the training texts of ckpts/nle_model_best-res have {words}: max-LCS" in note


def test_a_checkpoint_that_records_none(here):
    write_json(here / "ckpts" / "nle_model_best-res" / "config.json", {"n_layer": 6})
    note = found()[2]
    assert found()[:2] == (None, None) and "best-res does not record its training texts: max-LCS is left out" in note


def test_the_flag_wins_with_a_warning(here):
    assert found("--nle_data_train_path", "mine/artEmisX_train.json")[1:] == ("trained on, train", None)
    path, first, note = found("--nle_data_train_path", "other/artEmisX_cl_train.json")
    assert (path, first) == ("other/artEmisX_train.json", "of others, train")
    assert note.startswith("other/artEmisX_train.json: not what ckpts/nle_model_best-res was trained on; max-LCS")


# ---- lexicon and images ----------------------------------------------------------------------------------------------


def test_lexicon_and_images_are_first_looked_for_beside_the_json_files_then_one_folder_up(tmp_path):
    """v1 of the lexicon, the paper's, before v2.1; the folder of shrunk images before images/."""
    argv, shrunk = [], "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    for flag in ("nle_data_val_path", "nle_data_train_path", "annFileExp"):
        argv += [f"--{flag}", str(tmp_path / "json" / f"{flag}.json")]
        write_json(argv[-1], {})
    for flag in ("ckpt_path", "caption_save_path", "cache_dir"):
        argv += [f"--{flag}", str(tmp_path / "out")]
    for lexicon, images in (  # each is preferred to those before it
        ("NRC-VAD-Lexicon-v2.1.txt", "images"),
        ("NRC-VAD-Lexicon.txt", shrunk),
        ("json/NRC-VAD-Lexicon-v2.1.txt", "json/images"),
        ("json/NRC-VAD-Lexicon.txt", f"json/{shrunk}"),
    ):
        (tmp_path / lexicon).write_text("a\t0\t0\t0\n")
        (tmp_path / images).mkdir()
        args = parse_args(argv)
        check_paths(args)
        assert (args.vad_lexicon, args.image_root) == (tmp_path / lexicon, tmp_path / images)
