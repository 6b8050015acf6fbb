"""Ask a trained model about images: emotion, distribution over the nine emotions, explanation, and where it looked.

python -m utils.explain painting.jpg photos/ --ckpt runs/demo/ckpts
"""

import argparse
import re
import sys
from pathlib import Path

from tqdm import tqdm

from utils.command_line import find_model, is_export
from utils.constants import EMOTIONS, MAX_NEW_TOKENS
from utils.data.images import list_images
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place, check_regular, check_writable, read_json, write_json, write_rows
from utils.hub import folder_or_id

MOST_TEXTS_OF_PNG = 20


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.explain",
        description="Ask a trained model about images: emotion, distribution over the nine emotions, explanation.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("pictures", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="images, and folders of them")
    add(
        "--ckpt",
        type=folder_or_id,
        required=True,
        help="checkpoint folder, the --ckpt_path of the training; or an exported model's folder or Hugging Face id (also "
        "id@revision)",
    )
    add(
        "--name",
        help="which of its checkpoints: best-res (default), best-acc or an epoch; an exported model has one only",
    )
    add("--vad_lexicon", type=Path, help="VAD lexicon, where the training's is no longer at its place")
    add("--clip_model", help="image encoder, where the training's is no longer at its place")
    add("--batch_size", type=number(int, 1, 4096), default=32, help="images that are explained together (default: 32)")
    add("--device", help="cpu, cuda, cuda:1, mps, ... (default: an accelerator if there is one)")

    add = parser.add_argument_group(
        "what to say (greedy texts, as in the evaluation, unless told otherwise)"
    ).add_argument
    add(
        "--emotion",
        choices=(*EMOTIONS, "all"),
        metavar="EMOTION",
        help=f"explain this emotion instead of the model's own: {', '.join(EMOTIONS)}; or all nine",
    )
    add(
        "--num_beams",
        type=number(int, 1, 64),
        help="beam search (default: as in the checkpoint's evaluation, 1: greedy)",
    )
    add("--num_samples", type=number(int, 1, 1000), help="draw so many texts instead")
    add("--temperature", type=number(float, 0.01, 100), help="of samples: below 1 surer, above 1 wilder (default: 1)")
    add(
        "--top_p",
        type=number(float, 1e-6, 1),
        help="samples are drawn from the most probable tokens up to this mass (default: 0.9)",
    )
    add(
        "--min_new_tokens",
        type=number(int, 0, MAX_NEW_TOKENS),
        help="samples do not end before so many tokens (default: 0)",
    )
    add(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        help="of samples; they depend on it and the image alone (default: 0)",
    )

    add = parser.add_argument_group("files to write").add_argument
    add("--json", type=Path, help="all that is said, in full precision")
    add("--csv", type=Path, help="the same as a table, a row per text")
    add("--heat", type=Path, metavar="FILE.png|.html", help="where the model looked, word by word (.png: one image)")
    add(
        "--heat_blocks",
        type=number(int, 1),
        nargs="+",
        metavar="N",
        help="decoder blocks whose cross-attention is averaged, counted from 1 (default: all)",
    )
    return parser


def check_args(args: argparse.Namespace) -> list[Path]:
    """What can be refused before anything heavy starts (InputError); returns the images."""
    sampling = {"--temperature": args.temperature, "--top_p": args.top_p, "--seed": args.seed}
    for flag, value in (sampling | {"--min_new_tokens": args.min_new_tokens}).items():
        if value is not None and args.num_samples is None:
            raise InputError(f"{flag} is about samples: give --num_samples N as well, or leave it out")
    if args.num_samples is not None and args.num_beams is not None:
        raise InputError("--num_samples draws texts, --num_beams searches for one: give one of them")
    if args.heat_blocks and args.heat is None:
        raise InputError("--heat_blocks is about heat maps: give --heat FILE as well, or leave it out")

    pictures = list_images(args.pictures)
    targets = [path for path in (args.json, args.csv, args.heat) if path is not None]
    for path in targets:
        check_place(path)
        check_writable(path)
        if path.resolve() in {picture.resolve() for picture in pictures}:
            raise InputError(f"{path}: is one of the images; give another name")
    if len({path.resolve() for path in targets}) < len(targets):
        raise InputError("--json, --csv and --heat name the same file: give each its own")
    if args.heat is not None:
        _check_heat(args, len(pictures))
    if args.vad_lexicon is not None:
        check_regular(args.vad_lexicon, "name the lexicon's file")
    _check_checkpoint(args)
    return pictures


def _check_heat(args: argparse.Namespace, pictures: int) -> None:
    kind = args.heat.suffix.lower()
    if kind not in (".png", ".html"):
        raise InputError(f"--heat {args.heat}: is neither .png nor .html; give one of them")
    texts = (args.num_samples or 1) * (len(EMOTIONS) if args.emotion == "all" else 1)
    if kind == ".png" and (pictures > 1 or texts > MOST_TEXTS_OF_PNG):
        raise InputError(
            f"--heat {args.heat}: a .png holds one image and up to {MOST_TEXTS_OF_PNG} texts, here are {pictures} and "
            f"{texts}; give a name that ends in .html"
        )


def _check_checkpoint(args: argparse.Namespace) -> None:
    """A first look; loading it looks at all of it."""
    args.ckpt = find_model(args.ckpt)
    if is_export(args.ckpt):
        if args.name is not None:
            raise InputError(f"--ckpt {args.ckpt}: is one exported model; leave --name out")
        return _check_blocks(args, read_json(args.ckpt / "config.json").get("decoder_config"))
    args.name = args.name or "best-res"
    if not re.fullmatch(r"\w[\w.-]*", args.name):
        raise InputError(f"--name {args.name}: a name as best-res was expected, not a path")
    config = args.ckpt / f"nle_model_{args.name}" / "config.json"
    if not config.is_file():
        there = sorted(path.name.removeprefix("nle_model_") for path in args.ckpt.glob("nle_model_*"))
        problem = f"no checkpoint {args.name!r} in it" if args.ckpt.is_dir() else "no such folder"
        remedy = f"--name {' or '.join(there)}" if there else "the --ckpt_path of a training that has evaluated"
        raise InputError(f"--ckpt {args.ckpt}: {problem}; give {remedy}")
    _check_blocks(args, read_json(config))


def _check_blocks(args: argparse.Namespace, decoder: object) -> None:
    """InputError where --heat_blocks names a block that the decoder, by its config, has not."""
    blocks = decoder.get("n_layer") if isinstance(decoder, dict) else None
    if args.heat_blocks and isinstance(blocks, int) and max(args.heat_blocks) > blocks:
        raise InputError(f"--heat_blocks {max(args.heat_blocks)}: the decoder has {blocks} blocks, counted from 1")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0. See `--help` for the flags.

    Raises:
        InputError: for everything a user can put right; no image could be read.
    """
    args = get_parser().parse_args(argv)
    pictures = check_args(args)
    from utils.visualize.explainer import ImageExplainer  # torch takes seconds to load

    explainer = ImageExplainer(args)
    answered, table, left_out = [], [], 0
    with tqdm(total=len(pictures), unit="picture", disable=None) as progress:
        for start in range(0, len(pictures), args.batch_size):
            batch = pictures[start : start + args.batch_size]
            answers, bad = explainer(batch)
            for message in bad:
                tqdm.write(f"left out: {message}", file=sys.stderr)
            for path, answer in answers:
                text = "\n  ".join([str(path), *answer.lines(explainer.prompt)])
                tqdm.write(printable(text), file=sys.stdout)
                answered.append(answer.as_json(path))
                table += answer.as_rows(path)
            left_out += len(bad)
            progress.update(len(batch))
    if not answered:
        raise InputError(f"none of {left_out} images could be read (see above); give others")
    if args.json is not None:
        write_json(args.json, answered, indent=1)
    if args.csv is not None:
        write_rows(args.csv, list(table[0]), table)
    if args.heat is not None:
        explainer.write_heat(args.heat)
    written = "".join(f"; wrote {path}" for path in (args.json, args.csv, args.heat) if path is not None)
    print(f"{len(answered)} explained, {left_out} left out{written}")
    return 0


def printable(text: str) -> str:
    """Text for a terminal: what would command it is escaped."""
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


if __name__ == "__main__":
    sys.exit(run_script(main))
