"""Find the input files of a run before anything heavy starts. No torch here."""

import argparse
import os
from pathlib import Path

from utils.constants import IMAGE_FOLDERS, LEXICON_FILES
from utils.csv_rows import check_append_to
from utils.errors import InputError
from utils.files import check_place


def check_paths(args: argparse.Namespace, early: bool = False) -> None:
    """Find the input files before anything heavy starts; fills in image_root and vad_lexicon.

    Args:
        early: the demo's data may still have to be made.

    Raises:
        InputError: naming what is missing, where it was looked for, and how to make it.
    """
    if early and args.demo:
        return
    for path in (args.nle_data_val_path, args.nle_data_train_path):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; make it with preprocess/build_splits.py")
    if not args.annFileExp.is_file():
        raise InputError(f"--annFileExp {args.annFileExp}: no such file; make it with preprocess/build_annotations.py")
    folders = data_folders(args)
    needs_images = not args.feature_cache or args.feature_cache == "auto" or args.clip_score
    if args.image_root is None and needs_images:
        args.image_root = _look_for(folders, IMAGE_FOLDERS, Path.is_dir, "image folder", "--image_root")
    if args.image_root is not None and not args.image_root.is_dir():
        raise InputError(f"--image_root {args.image_root}: no such folder; make it with preprocess/resize_wikiart.py")
    if args.vad_lexicon is None and needs_lexicon(args):
        remedy = "the NRC VAD Lexicon is at https://saifmohammad.com/WebPages/nrc-vad.html"
        args.vad_lexicon = _look_for(folders, LEXICON_FILES, Path.is_file, "VAD lexicon", "--vad_lexicon", remedy)
    if args.vad_lexicon is not None and not args.vad_lexicon.is_file():
        raise InputError(
            f"--vad_lexicon {args.vad_lexicon}: no such file; see https://saifmohammad.com/WebPages/nrc-vad.html"
        )
    for path in (args.text2emotion, args.vocabulary):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; make a classifier with preprocess/train_text2emotion.py")
    if args.append_to is not None:
        check_append_to(args.append_to)
    for flag in ("ckpt_path", "caption_save_path", "cache_dir"):
        folder = getattr(args, flag)
        if os.path.lexists(folder) and not folder.is_dir():
            kind = "link that leads nowhere" if folder.is_symlink() and not folder.exists() else "file"
            raise InputError(f"--{flag} {folder}: is a {kind}, a folder was expected; remove it or name another")
        check_place(folder / "file")
    if not args.eval_only:
        _check_outputs(args)


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before a training, files and folders of the user's own under the names of its output (InputError)."""
    ckpts, log = args.ckpt_path, args.caption_save_path / "log.jsonl"
    tokenizer = ckpts / "nle_gpt2_tokenizer_0"
    outputs = [(ckpts / "resume", (ckpts / "resume").is_dir()), (log, log.is_file())]
    outputs += [(tokenizer, (tokenizer / "tokenizer_config.json").is_file())]
    for name in sorted(
        {"best-acc", "best-res"} - {args.load_from_epoch}
    ):  # loading that one says what is wrong with it
        folder, stats = ckpts / f"nle_model_{name}", ckpts / f"ckpt_stats_{name}.tar"
        outputs += [(folder, (folder / "config.json").is_file()), (stats, stats.is_file())]
    for path, is_output in outputs:
        if os.path.lexists(path) and not is_output:
            raise InputError(f"{path}: is not what a training writes there; remove it or move it away")


def data_folders(args: argparse.Namespace) -> list[Path]:
    """Where images and lexicon are looked for: beside the JSON files and one folder up."""
    splits = [args.nle_data_val_path] + ([] if args.eval_only else [args.nle_data_train_path])
    folders = [folder for path in splits for folder in (path.absolute().parent, path.absolute().parent.parent)]
    return list(dict.fromkeys(folders))


def needs_lexicon(args: argparse.Namespace) -> bool:
    """Whether anything reads VAD values: the fusion, or the VAD head's loss in training."""
    return args.use_VAD or (args.use_VAD_loss and not args.eval_only)


def _look_for(folders: list[Path], names: tuple[str, ...], is_there, what: str, flag: str, remedy: str = "") -> Path:
    for folder in folders:
        for name in names:
            if is_there(folder / name):
                return folder / name
    places = ", ".join(str(folder) for folder in folders)
    remedy = f" ({remedy})" if remedy else ""
    raise InputError(f"no {what} found: looked for {' or '.join(names)} in {places}; name it with {flag}{remedy}")
