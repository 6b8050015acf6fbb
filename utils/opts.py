"""Every setting of `artEmisX_train.py`, as flags. No torch here: `--help` and wrong flags answer at once."""

import argparse
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from utils.constants import (
    DEFAULT_METRICS,
    EMOTION_FROM,
    EMOTION_POOLINGS,
    IMAGE_FOLDERS,
    LEMMATIZERS,
    LEXICON_FILES,
    METEOR_GIB,
    METRICS,
    NORMALIZATIONS,
    PROMPT_TEXT,
    SHARED_TYPE,
    TEST_SETS,
)
from utils.csv_rows import check_append_to
from utils.errors import MOST_PROCESSES, InputError, OneLineParser, brief, number
from utils.files import check_place, read_json
from utils.settings import SETTINGS_KEY, compare_flags, recorded_argv

CONFIGS = Path(__file__).resolve().parents[1] / "models" / "configs"
DEMO = Path("runs/demo")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # of a Hugging Face repository: owner/name
SHARED_NAME = "shared"  # stands for the one model of a shared folder, where others name one of several checkpoints
TRACKERS = ("tensorboard", "wandb", "trackio")  # names of their packages, too

# What --demo changes: paths under runs/demo/, the same model classes in small sizes, from random weights.
DEMO_DEFAULTS = {
    "nle_data_train_path": DEMO / "data" / "artEmisX_cl_train.json",
    "nle_data_val_path": DEMO / "data" / "artEmisX_val.json",
    "annFileExp": DEMO / "data" / "annotations" / "artEmisX_val_annot_exp.json",
    "image_root": DEMO / "data" / IMAGE_FOLDERS[0],
    "vad_lexicon": DEMO / "data" / "demo-VAD-Lexicon.txt",
    "ckpt_path": DEMO / "ckpts",
    "caption_save_path": DEMO / "results",
    "cache_dir": DEMO / "cache",
    "clip_model": str(CONFIGS / "demo-clip-vit"),
    "gpt2_model": str(CONFIGS / "demo-gpt2"),
    "from_scratch": True,
    "fixed_encoder": False,
    "lemmatizer": "simplemma",
    "num_train_epochs": 5,
    "use_emotion_loss": True,  # without pretrained weights the image encoder learns emotions faster from votes than from words
    "emotion_loss_weight": 3.0,
    "cl_Loss_weight": 0.1,
    "batch_size": 8,
    "num_workers": 0,
    "learning_rate": 2e-3,
    "en_LR": 1e-3,
    "emo_en_LR": 2e-3,
}
# What --demo --split test changes besides.
DEMO_TEST = {
    "nle_data_val_path": DEMO / "data" / "artEmisX_test.json",
    "annFileExp": DEMO / "data" / "annotations" / "artEmisX_test_annot_exp.json",
    "caption_save_path": DEMO / "results" / "test",
}


def boolean(text: str) -> bool:
    """`--use_VAD False` as the published command line has it."""
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"True or False was expected, not {text!r}")


class Boolean(argparse.Action):
    """A flag that takes `--flag`, `--no-flag` and `--flag False`, and perhaps one of some words: `--flag word`."""

    def __init__(self, option_strings, dest, words: tuple[str, ...] = (), **options):
        negative = [f"--no-{option[2:]}" for option in option_strings]

        def convert(text: str) -> bool | str:
            return text if text in words else boolean(text)

        metavar = "|".join(("True", "False", *words))
        super().__init__([*option_strings, *negative], dest, nargs="?", type=convert, metavar=metavar, **options)

    def __call__(self, parser, namespace, value, option_string=None):
        negative = option_string.startswith("--no-")
        if negative and value is not None:
            parser.error(f"{option_string} takes no value")
        setattr(namespace, self.dest, not negative if value is None else value)


def get_parser() -> argparse.ArgumentParser:
    """The command line. Flags of the published script keep their name, meaning and default."""
    parser = OneLineParser(
        prog="artEmisX_train.py",
        description="Train SEVLM on ArtEmis and score it with COCO-caption after every epoch.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    count, natural, rate = number(int, 1), number(int, 0), number(float, 0)
    processes = number(int, 0, MOST_PROCESSES)

    group = parser.add_argument_group("what to do")
    add = group.add_argument
    add(
        "--demo",
        action="store_true",
        help="make a small data set of drawn pictures in runs/demo/ and train a small model on it",
    )
    add(
        "--split",
        choices=("val", "test"),
        help="of the demo's data, the split that --demo --eval_only scores: val unless told otherwise (results of test go to runs/demo/results/test/)",
    )
    add(
        "--load_from_epoch",
        metavar="NAME",
        help="best-acc, best-res or a checkpoint's epoch: continue at the epoch after it (with --eval_only: score it); "
        "settings that are not given are the checkpoint's",
    )
    add(
        "--resume",
        action=Boolean,
        default=False,
        help="continue exactly where the run in --ckpt_path was stopped or killed; takes the flags of that run",
    )
    add(
        "--eval_only",
        action=Boolean,
        default=False,
        help="score the checkpoint of --load_from_epoch on --nle_data_val_path; no training",
    )
    add(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        default=42,
        help="of initial weights, order, choice of texts, negatives and dropout",
    )

    group = parser.add_argument_group("files")
    add = group.add_argument
    add(
        "--nle_data_train_path",
        type=Path,
        default=Path("data/artEmis/artEmisX_cl_train.json"),
        help="training split (with --eval_only: the checkpoint's own, unless given)",
    )
    add("--nle_data_val_path", type=Path, default=Path("data/artEmis/artEmisX_val.json"), help="split to score")
    add(
        "--annFileExp",
        type=Path,
        default=Path("cococaption/annotations/artEmisX_val_annot_exp.json"),
        help="its reference explanations in COCO's format (preprocess/build_annotations.py)",
    )
    add(
        "--image_root",
        type=Path,
        help=f"image folder (default: {' or '.join(IMAGE_FOLDERS)} beside the JSON files or one folder up)",
    )
    add("--vad_lexicon", type=Path, help=f"NRC VAD lexicon (default: {' or '.join(LEXICON_FILES)} at the same places)")
    add("--ckpt_path", type=Path, default=Path("ckpts"), help="checkpoints go here")
    add("--caption_save_path", type=Path, default=Path("results"), help="captions, scores and logs go here")
    add(
        "--cache_dir",
        type=Path,
        default=Path("cache"),
        help="what is computed once and kept: training texts and their VAD, tokenised references, image checks, features",
    )

    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--clip_model",
        default="openai/clip-vit-base-patch16",
        help="image encoder: Hugging Face id or folder of a CLIP, SigLIP, DINO or plain vision transformer, OpenAI's name "
        "(ViT-B/16) or OpenAI's .pt file",
    )
    add("--gpt2_model", default="distilgpt2", help="decoder: Hugging Face id or folder")
    add(
        "--from_scratch",
        action=Boolean,
        words=("decoder", "encoder"),
        default=False,
        help="random weights in the sizes of both models' config.json, or of one: decoder or encoder",
    )
    add("--fixed_encoder", action=Boolean, default=True, help="keep the image encoder as it is")
    add("--prefix_dim", type=count, help="width of the image features (default: the image encoder's; 768 for ViT-B/16)")
    add("--len_prefix", type=natural, default=0, help="image tokens in front of the text (the paper uses none)")
    add("--prompt_text", default=PROMPT_TEXT, help="what every text begins with")
    add("--max_seq_len", type=number(int, 8, 1024), default=30, help="tokens per text")
    add("--use_VAD", action=Boolean, default=True, help="fuse VAD features into the explanation")
    add("--VAD_En_Layers", type=count, default=3, help="layers of the VAD encoder")
    add("--VAD_En_Heads", type=int, choices=(1, 3), default=1, help="its attention heads")
    add(
        "--lemmatizer",
        choices=LEMMATIZERS,
        default="nltk",
        help="before the lexicon look-up: NLTK's tagger and WordNet (the paper's; their data is a download), simplemma, or none",
    )
    add("--dropout", type=number(float, 0, 0.99), default=0.1, help="on embeddings, attention weights and residuals")

    group = parser.add_argument_group("objective")
    add = group.add_argument
    add("--alpha", type=rate, default=1.0, help="weight of the language model loss")
    add("--use_cl_loss", action=Boolean, default=True, help="contrastive loss")
    add("--cl_Loss_weight", type=rate, default=1.0, help="its weight")
    add("--use_VAD_loss", action=Boolean, default=True, help="VAD head's loss")
    add("--VAD_Loss_weight", type=rate, default=1.0, help="its weight")

    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--num_train_epochs", type=count, default=35, help="passes over the training images")
    add("--batch_size", type=count, default=32, help="images per process and step, two texts each")
    add("--gradient_accumulation_steps", type=count, default=1, help="steps per update")
    add("--mixed_precision", choices=("no", "bf16", "fp16"), help="default: what `accelerate launch` is told")
    add("--learning_rate", type=rate, default=2e-5, help="of decoder and heads; falls linearly to 0")
    add("--en_LR", type=rate, default=2e-5, help="of a trained image encoder")
    add("--emo_en_LR", type=rate, default=4e-5, help="of the VAD encoder")
    add("--adam_eps", type=rate, default=1e-6, help="AdamW's epsilon (PyTorch's own default is 1e-8)")
    add("--max_grad_norm", type=rate, default=0.0, help="clip gradients to this norm; 0: do not")
    add(
        "--nan_policy",
        choices=("stop", "skip"),
        default="stop",
        help="on a loss or gradient that is not finite: stop, or leave the update out",
    )
    add(
        "--first_text",
        choices=("walk", "last"),
        default="walk",
        help="first text of a pair: another one every epoch, or always the image's last, as the published code does by accident",
    )
    add("--num_workers", type=processes, default=2, help="loader processes")
    add(
        "--skip_bad_images",
        action=Boolean,
        default=False,
        help="leave out records whose image is missing or unreadable, and count them",
    )
    add(
        "--compile",
        action=Boolean,
        default=False,
        help="torch.compile image encoder and explainer (pays in long runs)",
    )
    add(
        "--feature_cache",
        metavar="DIR|auto",
        help="image features computed once: a folder of preprocess/cache_features.py, or auto to fill one during the first epoch",
    )
    add(
        "--save_steps",
        type=natural,
        default=0,
        help="also save a state to resume from every so many steps (0: every epoch)",
    )
    add("--log_steps", type=count, default=50, help="steps between two lines of the loss log")
    add(
        "--report_to",
        nargs="+",
        choices=(*TRACKERS, "none"),
        default=["none"],
        help="also draw losses, learning rates, scores and sample captions there (packages of their own; several may be given)",
    )
    add(
        "--cpu_threads",
        type=processes,
        default=0,
        help="threads per process on a CPU; 0: all cores, shared among the processes (accelerate's launcher alone would take one)",
    )

    group = parser.add_argument_group("evaluation")
    add = group.add_argument
    add("--eval_steps", type=natural, default=0, help="steps between evaluations; 0: after every epoch")
    add("--eval_batch_size", type=count, default=128, help="images per process that are captioned together")
    add(
        "--stop_after_evals",
        type=natural,
        default=10,
        help="stop once more than so many evaluations in a row brought neither a better accuracy nor a better BLEU-4 (or what "
        "best-res goes by where --metrics leaves BLEU out)",
    )
    add("--metrics", nargs="+", choices=METRICS, default=list(DEFAULT_METRICS), help="caption metrics")
    add(
        "--meteor_jvms",
        type=number(int, 1, 32),
        default=1,
        help=f"Java processes that score METEOR side by side, {METEOR_GIB} GiB each",
    )
    add(
        "--drop_last_token",
        action=Boolean,
        default=False,
        help="as published: a text that meets no end loses its 25th token",
    )
    add(
        "--num_beams",
        type=number(int, 1, 64),
        default=1,
        help="beam search with so many beams; 1: greedy, as published",
    )
    add(
        "--gallery",
        type=natural,
        default=0,
        metavar="N",
        help="at each evaluation also write a page of N pictures with what the model says of them; 0: none",
    )
    add(
        "--test_set",
        choices=TEST_SETS,
        help="name of the scored set, for the report (test_... are of ArtEmis v2.0)",
    )
    add("--append_to", type=Path, help="csv file to which --eval_only adds its row")
    add(
        "--text2emotion",
        type=Path,
        help="text-to-emotion classifier (preprocess/train_text2emotion.py, or ArtEmis' best_model.pt) for emotion alignment",
    )
    add(
        "--vocabulary",
        type=Path,
        help="its vocabulary.pkl (default: two folders above best_model.pt; our own classifiers carry it along)",
    )
    add(
        "--clip_score",
        metavar="MODEL",
        help="whole CLIP model (folder or id, with text half and tokenizer) for CLIPScore in the report of --eval_only",
    )

    group = parser.add_argument_group("beyond the paper (all off by default)")
    add = group.add_argument
    add(
        "--use_emotion_loss",
        action=Boolean,
        default=False,
        help="9-way emotion head on the image, with the annotators' distribution as target",
    )
    add("--emotion_loss_weight", type=rate, default=1.0, help="its weight")
    add(
        "--emotion_pooling",
        choices=EMOTION_POOLINGS,
        default="cls",
        help="what that head reads: the class token, the mean of the patches, or what nine learned queries find in the patches",
    )
    add(
        "--use_label_loss",
        action=Boolean,
        default=False,
        help="soft labels for the text: at the emotion's first token the annotators' distribution takes the place of the one "
        "emotion that the text names",
    )
    add("--label_loss_weight", type=rate, default=1.0, help="its weight")
    add(
        "--emotion_from",
        choices=EMOTION_FROM,
        default="text",
        help="what decides on a caption's emotion: the greedy text (as published), the likelihood of the nine names, or the "
        "head of --use_emotion_loss; the explanation is then written for it. Accuracy, best-acc and the early stop follow",
    )
    add(
        "--vad_causal",
        action=Boolean,
        default=False,
        help="VAD encoder sees no later tokens: no gap between training and generation, and faster decoding",
    )
    add(
        "--masked_pooling",
        action=Boolean,
        default=False,
        help="leave padding out of the contrastive means, end the emotion span at ' because'",
    )
    add(
        "--plain_special_tokens",
        action=Boolean,
        default=False,
        help="explanations that spell a special token (<pad>, <|endoftext|>, ...) hold its letters, not the token",
    )
    add_normalization(add)
    return parser


class Normalization(Boolean):
    """Sets "imagenet" or "own". The older spelling `--clip_normalization` is a truth value: True stands for "own"."""

    def __call__(self, parser, namespace, value, option_string=None):
        super().__call__(parser, namespace, value, option_string)
        chosen = getattr(namespace, self.dest)
        setattr(namespace, self.dest, chosen if chosen in NORMALIZATIONS else "own" if chosen else "imagenet")


def add_normalization(add) -> None:
    """Add --image_normalization, with its older spelling, to a parser; `add` is its add_argument."""
    add(
        "--image_normalization",
        "--clip_normalization",
        action=Normalization,
        words=NORMALIZATIONS,
        default="imagenet",
        help="pixel statistics: imagenet (as published), or own: those that the image encoder was trained with; "
        "--clip_normalization is the older spelling of own",
    )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the command line; a checkpoint to be used brings its settings along as defaults.

    Raises:
        InputError: unknown flags, wrong values, flags that contradict each other or the checkpoint.
    """
    argv = sys.argv[1:] if argv is None else argv
    parser = get_parser()
    if "--demo" in argv:
        parser.set_defaults(**DEMO_DEFAULTS)
    args = parser.parse_args(argv)
    if args.split and not args.demo:
        raise InputError(
            "--split names a part of the demo's data: give --demo, or the files of another split with --nle_data_val_path and "
            "--annFileExp"
        )
    if args.split == "test":
        parser.set_defaults(**DEMO_TEST)
    if args.demo and args.eval_only:
        parser.set_defaults(load_from_epoch="best-res")
    if args.eval_only:
        parser.set_defaults(nle_data_train_path=None)  # its checkpoint's record names them
    shared = find_model(args.ckpt_path) if args.eval_only else args.ckpt_path
    if is_shared(shared):
        if args.load_from_epoch or not args.eval_only:
            raise InputError(
                f"--ckpt_path {args.ckpt_path}: is one shared model, to be scored and asked: give --eval_only without "
                "--load_from_epoch; a training needs another --ckpt_path"
            )
        argv = [*argv, f"--load_from_epoch={SHARED_NAME}"]
    if shared != args.ckpt_path:
        argv = [*argv, f"--ckpt_path={shared}"]
    args = parser.parse_args(argv)
    check_flags(args)
    record = recorded_settings(args)
    if record is not None:
        source = checkpoint_config(args)
        recorded = recorded_argv(record, args.eval_only, source)
        try:
            parser.parse_args(recorded)
        except InputError as error:
            raise InputError(f"{source}: its settings are damaged ({error}); take another checkpoint") from None
        args = parser.parse_args([*recorded, *argv])
        check_flags(args)
        compare_flags(record, args, args.eval_only, source)
    return args


def checkpoint_config(args: argparse.Namespace) -> Path:
    """The config.json of the checkpoint that --load_from_epoch names."""
    if args.load_from_epoch == SHARED_NAME:
        return args.ckpt_path / "config.json"
    return args.ckpt_path / f"nle_model_{args.load_from_epoch}" / "config.json"


def find_model(source: Path) -> Path:
    """The folder of a model: `source` itself, or the downloaded copy of the Hugging Face id that it spells.

    Raises:
        InputError: there is no such folder, and no such id can be had.
    """
    if source.is_dir() or not HUB_ID.fullmatch(str(source)):
        return source
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors", "*.bin", "*.tar", "*.md"]
    try:
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except Exception as error:  # requests', httpx' and the hub's own
        raise InputError(
            f"{source}: no such folder, and no Hugging Face model of that name can be had ({brief(error)}); name a folder, "
            "or an id while online (unset HF_HUB_OFFLINE)"
        ) from None


def is_shared(folder: Path) -> bool:
    """Whether a folder is a shared model (utils/share.py), not a --ckpt_path with named checkpoints."""
    path = folder / "config.json"
    if not path.is_file():
        return False
    fields = read_json(path)
    return isinstance(fields, dict) and fields.get("model_type") == SHARED_TYPE


def recorded_settings(args: argparse.Namespace) -> dict | None:
    """The settings recorded in the checkpoint that is scored or continued.

    None where no checkpoint is named, where it is the authors', or where it is missing (loading it says so).
    """
    if not args.load_from_epoch or args.resume or not checkpoint_config(args).is_file():
        return None
    fields = read_json(checkpoint_config(args))
    return fields.get(SETTINGS_KEY) if isinstance(fields, dict) else None


def check_flags(args: argparse.Namespace) -> None:
    """InputError where flags contradict each other."""
    if args.resume and args.load_from_epoch:
        raise InputError("--resume continues exactly, --load_from_epoch at the next epoch: give one of them")
    if args.eval_only and not args.load_from_epoch:
        raise InputError("--eval_only needs --load_from_epoch NAME: best-acc, best-res or an epoch")
    if args.eval_only and args.resume:
        raise InputError("--eval_only scores one checkpoint, --resume continues a training: give one of them")
    if args.load_from_epoch and not re.fullmatch(r"\w[\w.-]*", args.load_from_epoch):
        raise InputError(f"--load_from_epoch {args.load_from_epoch}: a name as best-acc was expected, not a path")
    if not args.prompt_text.strip():
        raise InputError("--prompt_text is empty: generation needs words to begin with; leave it out for the default")
    if args.vad_causal and not args.use_VAD:
        raise InputError("--vad_causal is about the VAD encoder, which --no-use_VAD leaves out: give one of them")
    headless = not args.use_emotion_loss and not args.load_from_epoch  # a checkpoint may bring the head along
    if args.emotion_pooling != "cls" and headless:
        raise InputError("--emotion_pooling is about the head of --use_emotion_loss: give both")
    if args.emotion_from == "head" and headless:
        raise InputError("--emotion_from head asks the head of --use_emotion_loss: give both")
    if args.feature_cache and not args.fixed_encoder:
        raise InputError("--feature_cache keeps what a fixed encoder computes: not with --fixed_encoder False")
    if args.split == "test" and not args.eval_only:
        raise InputError("--split test is for --eval_only: checkpoints are chosen on the validation split")
    if "none" in args.report_to and len(args.report_to) > 1:
        raise InputError("--report_to none and others: give none, or the others")
    if args.report_to != ["none"] and args.eval_only:
        raise InputError(
            "--report_to draws the curves of a training: not with --eval_only, whose scores are in report.json"
        )
    for tracker in args.report_to:
        if tracker in TRACKERS and not _is_installed(tracker):
            raise InputError(f"--report_to {tracker}: its package is not installed: pip install {tracker}")
    if args.append_to and not args.eval_only:
        raise InputError("--append_to adds the row of an --eval_only run: give both")
    if args.clip_score and not args.eval_only:
        raise InputError("--clip_score is for the report of --eval_only: give both")
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
    """By the installed metadata: a folder of that name in the working directory, as wandb leaves one, is no package."""
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
    """Refuse, before a training, what lies where its states and its log go and is neither (InputError)."""
    for path, is_kind, kind in (
        (args.ckpt_path / "resume", Path.is_dir, "folder"),
        (args.caption_save_path / "log.jsonl", Path.is_file, "regular file"),
    ):
        if os.path.lexists(path) and not is_kind(path):
            raise InputError(f"{path}: is no {kind}, which the training needs there; remove it or move it away")


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
