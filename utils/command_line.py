"""The command line of `artEmisX_train.py`: parse and check it, find the input files, and what --demo changes.

No torch here: wrong flags are refused at once.
"""

import argparse
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from utils.constants import EXPORT_TYPE, IMAGE_FOLDERS, LEXICON_FILES
from utils.errors import InputError
from utils.files import check_append_to, check_place, present, read_json
from utils.hub import fetch_folder, split_id
from utils.layout import BEST, CKPTS, LOG_FILE, STATES_FOLDER, TOKENIZER_FOLDER, list_names, model_folder, stats_name
from utils.opts import TRACKERS, get_parser
from utils.run_record import compare_to_checkpoint, flags_of, read_record, recorded_argv

LEXICON_PAGE = "the NRC VAD Lexicon is at https://saifmohammad.com/WebPages/nrc-vad.html"
EXPORT_NAME = "shared"  # in place of a checkpoint's name: the model of an exported folder


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; the settings of a checkpoint that is used are the defaults.

    Raises:
        InputError: unknown flags, wrong values, flags that contradict each other or the checkpoint.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = get_parser()
    if "--tiny" in argv:
        parser.set_defaults(**TINY_DEFAULTS)
    if "--demo" in argv:
        parser.set_defaults(**DEMO_DEFAULTS)
    args = parser.parse_args(argv)
    if args.split and not args.demo:
        raise InputError(
            "--split names a split of the demo's data: pass --demo, or another split's files with --nle_data_val_path and "
            "--annFileExp"
        )
    if args.split == "test":
        parser.set_defaults(**DEMO_TEST)
    if args.demo and args.eval_only:
        parser.set_defaults(load_from_epoch="best-res")
    if args.eval_only:
        parser.set_defaults(nle_data_train_path=None)  # its checkpoint's record names them
    folder = find_model(args.ckpt_path) if args.eval_only else args.ckpt_path
    if is_export(folder):
        if args.load_from_epoch or not args.eval_only:
            raise InputError(
                f"--ckpt_path {args.ckpt_path}: is one exported model, which can only be scored: pass --eval_only without "
                "--load_from_epoch; a training needs another --ckpt_path"
            )
        argv = [*argv, f"--load_from_epoch={EXPORT_NAME}"]
    if folder != args.ckpt_path:
        argv = [*argv, f"--ckpt_path={folder}"]
    args = parser.parse_args(argv)
    check_flags(args)
    record = recorded_settings(args)
    if record is not None:
        source = checkpoint_config(args)
        recorded = recorded_argv(record, args.eval_only, source)
        if args.rerank:  # samples take the place of the beams that the training was scored with
            recorded = [word for word in recorded if not word.startswith("--num_beams=")]
        try:
            parser.parse_args(recorded)
        except InputError as error:
            raise InputError(f"{source}: its settings are damaged ({error}); use another checkpoint") from None
        args = parser.parse_args([*recorded, *argv])
        check_flags(args)
        compare_to_checkpoint(record, {"flags": flags_of(args)}, args.eval_only, source)
    return args


def checkpoint_config(args: argparse.Namespace) -> Path:
    """The config.json of the checkpoint that --load_from_epoch names."""
    if args.load_from_epoch == EXPORT_NAME:
        return args.ckpt_path / "config.json"
    return present(model_folder(args.ckpt_path, args.load_from_epoch)) / "config.json"


def find_model(source: Path) -> Path:
    """The folder of a model: `source` itself, ckpts/ in the folder of a run, or the download of a Hugging Face id.

    An id is spelled owner/name. A path below an existing folder (`ckpts/x`) is not an id, unless it has a revision
    (`ckpts/x@main`).

    Raises:
        InputError: the download fails.
    """
    if list_names(source / CKPTS):
        return source / CKPTS
    parts = split_id(str(source))
    if source.is_dir() or parts is None or (parts[1] is None and source.parent.is_dir()):
        return source
    return fetch_folder(str(source), ["*.json", "*.txt", "*.safetensors", "*.bin", "*.tar", "*.md"])


def is_export(folder: Path) -> bool:
    """Whether a folder is an exported model (utils/share.py), not a --ckpt_path with named checkpoints."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    fields = read_json(path)
    return isinstance(fields, dict) and fields.get("model_type") == EXPORT_TYPE


def recorded_settings(args: argparse.Namespace) -> dict | None:
    """The settings recorded in the checkpoint that is scored or continued.

    None if no checkpoint is named, or for one of the authors', or a missing one (which loading reports).
    """
    if not args.load_from_epoch or args.resume or not checkpoint_config(args).is_file():
        return None
    return read_record(checkpoint_config(args))


def check_flags(args: argparse.Namespace) -> None:
    """InputError where flags contradict each other."""
    if args.resume and args.load_from_epoch:
        raise InputError("--resume continues exactly, --load_from_epoch at the next epoch: give one of them")
    if args.eval_only and not args.load_from_epoch:
        raise InputError("--eval_only needs --load_from_epoch NAME: best-acc, best-res or an epoch")
    if args.eval_only and args.resume:
        raise InputError("--eval_only scores one checkpoint, --resume continues a training: give one of them")
    if args.load_from_epoch and not re.fullmatch(r"\w[\w.-]*", args.load_from_epoch):
        raise InputError(
            f"--load_from_epoch {args.load_from_epoch}: expected a checkpoint's name such as best-acc, not a path"
        )
    if not args.prompt_text.strip():
        raise InputError("--prompt_text is empty: generation needs words to begin with; leave it out for the default")
    if args.vad_causal and not args.use_VAD:
        raise InputError("--vad_causal changes the VAD encoder, which --no-use_VAD leaves out: give one of them")
    headless = not args.use_emotion_loss and not args.load_from_epoch  # a checkpoint may have the head
    if args.emotion_pooling != "cls" and headless:
        raise InputError("--emotion_pooling changes the head of --use_emotion_loss: pass both")
    if args.emotion_from == "head" and headless:
        raise InputError("--emotion_from head asks the head of --use_emotion_loss: pass both")
    if args.feature_cache and not args.fixed_encoder:
        raise InputError("--feature_cache needs a fixed encoder: not with --fixed_encoder False")
    if args.split == "test" and not args.eval_only:
        raise InputError("--split test is for --eval_only: checkpoints are chosen on the validation split")
    if "none" in args.report_to and len(args.report_to) > 1:
        raise InputError("--report_to none and others: give none, or the others")
    if args.report_to != ["none"] and args.eval_only:
        raise InputError(
            "--report_to reports the curves of a training: not with --eval_only, whose scores are in report.json"
        )
    for tracker in args.report_to:
        if tracker in TRACKERS and not _is_installed(tracker):
            raise InputError(f"--report_to {tracker}: its package is not installed: pip install {tracker}")
    if args.append_to and not args.eval_only:
        raise InputError("--append_to adds the row of an --eval_only run: pass both")
    if args.clip_score and not args.eval_only:
        raise InputError("--clip_score is for the report of --eval_only: pass both")
    if (args.num_samples is None) != (args.rerank is None):
        raise InputError("--num_samples draws texts, --rerank chooses the caption among them: pass both")
    if args.rerank and not args.eval_only:
        raise InputError("--rerank is for --eval_only; a training is scored on greedy texts or those of --num_beams")
    if args.rerank and args.num_beams > 1:
        raise InputError("--num_samples draws texts, --num_beams searches for one: give one of them")
    if args.len_prefix + 8 > args.max_seq_len:
        raise InputError(
            f"--len_prefix {args.len_prefix} leaves no room for a text in --max_seq_len {args.max_seq_len}"
        )
    other_weights = (
        args.use_cl_loss and args.cl_Loss_weight,
        args.use_VAD_loss and args.VAD_Loss_weight,
        args.use_emotion_loss and args.emotion_loss_weight,
        args.use_label_loss and args.label_loss_weight,
    )
    if args.alpha == 0 and not any(other_weights):
        raise InputError("--alpha 0 with no other loss leaves nothing to learn")


def _is_installed(package: str) -> bool:
    """By its metadata: a folder of that name in the working directory, such as wandb's own, can be imported too."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def check_paths(args: argparse.Namespace, early: bool = False) -> None:
    """Find the input files before anything heavy starts; fills in image_root and vad_lexicon.

    Args:
        early: the demo's data may still have to be made.

    Raises:
        InputError: names what is missing, where it was searched, and how to make it.
    """
    if early and args.demo:
        return
    for path in (args.nle_data_val_path, args.nle_data_train_path):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; make it with preprocess/build_splits.py")
    if not args.annFileExp.is_file():
        raise InputError(f"--annFileExp {args.annFileExp}: no such file; make it with preprocess/build_annotations.py")
    folders = data_folders(args)
    needs_images = not args.feature_cache or args.feature_cache == "auto" or args.clip_score or args.rerank == "clip"
    if args.image_root is None and needs_images:
        args.image_root = _find(folders, IMAGE_FOLDERS, "image folder", "--image_root")
    if args.image_root is not None and not args.image_root.is_dir():
        raise InputError(f"--image_root {args.image_root}: no such folder; make it with preprocess/resize_wikiart.py")
    if args.vad_lexicon is None and needs_lexicon(args):
        args.vad_lexicon = _find(folders, LEXICON_FILES, "VAD lexicon", f"--vad_lexicon ({LEXICON_PAGE})")
    if args.vad_lexicon is not None and not args.vad_lexicon.is_file():
        raise InputError(f"--vad_lexicon {args.vad_lexicon}: no such file; {LEXICON_PAGE}")
    for path in (args.text2emotion, args.vocabulary):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file; make a classifier with preprocess/train_text2emotion.py")
    if args.append_to is not None:
        check_append_to(args.append_to)
    for flag in ("ckpt_path", "caption_save_path", "cache_dir"):
        folder = getattr(args, flag)
        if os.path.lexists(folder) and not folder.is_dir():
            kind = "broken link" if folder.is_symlink() and not folder.exists() else "file"
            raise InputError(f"--{flag} {folder}: is a {kind}, a folder was expected; remove it or name another")
        check_place(folder / "file")
    if not args.eval_only:
        _check_outputs(args)


def _check_outputs(args: argparse.Namespace) -> None:
    """InputError, before a training, for files and folders of the user under the names of its output."""
    ckpts, log = args.ckpt_path, args.caption_save_path / LOG_FILE
    tokenizer, states = ckpts / TOKENIZER_FOLDER, ckpts / STATES_FOLDER
    outputs = [(states, states.is_dir()), (log, log.is_file())]
    outputs += [(tokenizer, (tokenizer / "tokenizer_config.json").is_file())]
    for name in sorted({*BEST} - {args.load_from_epoch}):  # loading that one checks it
        folder, stats = model_folder(ckpts, name), ckpts / stats_name(name)
        outputs += [(folder, (folder / "config.json").is_file()), (stats, stats.is_file())]
    for path, is_output in outputs:
        if os.path.lexists(path) and not is_output:
            raise InputError(f"{path}: is not what a training writes there; remove it or move it away")


def data_folders(args: argparse.Namespace) -> list[Path]:
    """Where images and lexicon are searched: beside the JSON files and one folder up."""
    splits = [args.nle_data_val_path] + ([] if args.eval_only else [args.nle_data_train_path])
    folders = [folder for path in splits for folder in (path.absolute().parent, path.absolute().parent.parent)]
    return list(dict.fromkeys(folders))


def needs_lexicon(args: argparse.Namespace) -> bool:
    """Whether anything reads VAD values: the fusion, or the VAD head's loss in training."""
    return args.use_VAD or (args.use_VAD_loss and not args.eval_only)


def _find(folders: list[Path], names: tuple[str, ...], what: str, flag: str) -> Path:
    for folder in folders:
        for name in names:
            if (folder / name).exists():
                return folder / name
    places = ", ".join(str(folder) for folder in folders)
    raise InputError(f"no {what} found: looked for {' or '.join(names)} in {places}; name it with {flag}")


CONFIGS = Path(__file__).resolve().parents[1] / "models" / "configs"
DEMO = Path("runs/demo")

# What --tiny changes: the same model classes in small sizes, from random weights.
TINY_DEFAULTS = {
    "clip_model": str(CONFIGS / "demo-clip-vit"),
    "gpt2_model": str(CONFIGS / "demo-gpt2"),
    "from_scratch": True,
    "lemmatizer": "simplemma",
    "learning_rate": 2e-3,
    "en_LR": 1e-3,
    "emo_en_LR": 2e-3,
}
# What --demo changes in addition.
DEMO_DEFAULTS = TINY_DEFAULTS | {
    "nle_data_train_path": DEMO / "data" / "artEmisX_cl_train.json",
    "nle_data_val_path": DEMO / "data" / "artEmisX_val.json",
    "annFileExp": DEMO / "data" / "annotations" / "artEmisX_val_annot_exp.json",
    "image_root": DEMO / "data" / IMAGE_FOLDERS[0],
    "vad_lexicon": DEMO / "data" / "demo-VAD-Lexicon.txt",
    "ckpt_path": DEMO / "ckpts",
    "caption_save_path": DEMO / "results",
    "cache_dir": DEMO / "cache",
    "gpt2_model": str(DEMO / "data" / "gpt2"),  # the same sizes, and a tokenizer of the demo's own words
    "fixed_encoder": False,
    "max_seq_len": 24,  # its longest text
    "dropout": 0.0,  # drawing the masks takes time
    "num_train_epochs": 5,
    "use_emotion_loss": True,  # a random image encoder learns emotions faster from votes than from words
    "emotion_loss_weight": 3.0,
    "cl_Loss_weight": 0.1,
    "batch_size": 8,
    "num_workers": 0,
    "cpu_threads": 1,  # tensors are so small that a second thread costs more than it computes
}
# What --demo --split test changes in addition.
DEMO_TEST = {
    "nle_data_val_path": DEMO / "data" / "artEmisX_test.json",
    "annFileExp": DEMO / "data" / "annotations" / "artEmisX_test_annot_exp.json",
    "caption_save_path": DEMO / "results" / "test",
}
