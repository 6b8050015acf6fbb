"""Ask a trained model about images: emotion, distribution over the nine emotions, explanation, and where it looked.

python -m utils.explain painting.jpg photos/ --ckpt runs/demo/ckpts
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from utils.command_line import find_model, is_export
from utils.constants import EMOTIONS, MAX_NEW_TOKENS, RERANK_MODEL, RERANKERS
from utils.data.images import list_images, open_image
from utils.errors import InputError, OneLineParser, escaped, number, run_script
from utils.files import check_place, check_regular, check_writable, read_json, write_json, write_rows
from utils.hub import folder_or_id
from utils.layout import list_names, model_folder

if TYPE_CHECKING:  # it imports torch
    from utils.visualize.explainer import ImageExplainer

# flags that say how the texts are generated
ANSWER_FLAGS = (
    *("emotion", "num_beams", "num_samples", "temperature", "top_p", "min_new_tokens", "seed"),
    *("rerank", "rerank_model"),
)


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.explain",
        description="Ask a trained model about images: emotion, distribution over the nine emotions, explanation.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="images, and folders of them")
    add(
        "--ckpt",
        type=folder_or_id,
        required=True,
        metavar="RUN",
        help="folder of a run, e.g. runs/demo, or of its checkpoints; or an exported model's folder or Hugging Face id (also "
        "id@revision)",
    )
    add(
        "--name",
        help="which of its checkpoints: best-res (default), best-acc or an epoch; an exported model has only one",
    )
    add("--vad_lexicon", type=Path, help="VAD lexicon, if the training's is no longer in its place")
    add("--clip_model", help="image encoder, if the training's is no longer in its place")
    add("--batch_size", type=number(int, 1, 4096), default=32, help="images that are explained together (default: 32)")
    add("--device", help="cpu, cuda, cuda:1, mps, ... (default: an accelerator if there is one)")

    add = parser.add_argument_group("texts (default: greedy, as in the evaluation)").add_argument
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
    add("--num_samples", type=number(int, 1, 1000), help="draw this number of texts instead")
    add(
        "--rerank",
        choices=RERANKERS,
        help="of the samples keep the most similar to the image by a CLIP model, or the one the model itself finds likeliest",
    )
    add("--rerank_model", metavar="MODEL", help=f"that CLIP model, with text encoder (default: {RERANK_MODEL})")
    add(
        "--temperature",
        type=number(float, 0.01, 100),
        help="of samples: below 1 less varied, above 1 more (default: 1)",
    )
    add(
        "--top_p",
        type=number(float, 1e-6, 1),
        help="samples are drawn from the most probable tokens up to this mass (default: 0.9)",
    )
    add(
        "--min_new_tokens",
        type=number(int, 0, MAX_NEW_TOKENS),
        help="samples do not end before this number of tokens (default: 0)",
    )
    add(
        "--seed",
        type=number(int, 0, 2**32 - 1),
        help="of samples, which depend only on it and the image (default: 0)",
    )

    add = parser.add_argument_group("files to write").add_argument
    add("--json", type=Path, help="all answers, in full precision")
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
    """Refuse wrong arguments before the model is loaded (InputError); returns the images."""
    sampling = ("temperature", "top_p", "seed", "min_new_tokens", "rerank")
    for flag in (flag for flag in sampling if getattr(args, flag) is not None):
        if args.num_samples is None:
            raise InputError(f"--{flag} is about samples: pass --num_samples N as well, or leave it out")
    if args.rerank_model is not None and args.rerank != "clip":
        raise InputError("--rerank_model is the CLIP model of --rerank clip: pass both, or leave it out")
    if args.num_samples is not None and args.num_beams is not None:
        raise InputError("--num_samples draws texts, --num_beams searches for one: give one of them")
    if args.heat_blocks and args.heat is None:
        raise InputError("--heat_blocks is about heat maps: pass --heat FILE as well, or leave it out")

    images = list_images(args.images)
    outputs = [path for path in (args.json, args.csv, args.heat) if path is not None]
    for path in outputs:
        check_place(path)
        check_writable(path)
        if path.resolve() in {image.resolve() for image in images}:
            raise InputError(f"{path}: is one of the images; give another name")
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise InputError("--json, --csv and --heat name the same file: give each its own")
    if args.heat is not None:
        if args.heat.suffix.lower() not in (".png", ".html"):
            raise InputError(f"--heat {args.heat}: is neither .png nor .html; give one of them")
        if args.heat.suffix.lower() == ".png" and len(images) > 1:
            raise InputError(
                f"--heat {args.heat}: a .png shows one image, not {len(images)}; give a name that ends in .html"
            )
    if args.vad_lexicon is not None:
        check_regular(args.vad_lexicon, "name the lexicon's file")
    args.ckpt, args.name, blocks = find_checkpoint(args.ckpt, args.name)
    if args.heat_blocks and blocks is not None and max(args.heat_blocks) > blocks:
        raise InputError(f"--heat_blocks {max(args.heat_blocks)}: the decoder has {blocks} blocks, counted from 1")
    return images


def find_checkpoint(run: Path, name: str | None) -> tuple[Path, str | None, int | None]:
    """The folder of a run's checkpoints, or of an exported model; the checkpoint's name, None for an export; its blocks.

    Raises:
        InputError: there is no such checkpoint.
    """
    folder = find_model(run)
    if is_export(folder):
        if name is not None:
            raise InputError(f"{run}: is one exported model; leave the checkpoint's name ({name}) out")
        return folder, None, read_json(folder / "config.json").get("decoder_config", {}).get("n_layer")
    name = name or "best-res"
    config = model_folder(folder, name) / "config.json"
    if not config.is_file():
        names = list_names(folder)
        problem = f"no checkpoint {name!r} in it" if folder.is_dir() else "no such folder"
        remedy = f"--name {' or '.join(names)}" if names else "the --ckpt_path of a training that has evaluated"
        raise InputError(f"{run}: {problem}; give {remedy}")
    return folder, name, read_json(config).get("n_layer")


def load(
    run: str | Path,
    name: str | None = None,
    *,
    vad_lexicon: str | Path | None = None,
    clip_model: str | None = None,
    device: str | None = None,
) -> "ImageExplainer":
    """A trained model to ask about images in Python.

        model = load("runs/demo")
        answer = model("painting.jpg")          # a path, a PIL image, or a list of them
        answer.emotion, answer.explanation, answer.probabilities["likelihood"]["awe"], answer.heat_image("sky")

    Args:
        run: folder of a run, or of its checkpoints, or of an exported model; or a Hugging Face id, also id@revision.
        name: which checkpoint: best-res (default), best-acc or an epoch; an exported model has only one.
        vad_lexicon, clip_model: the VAD lexicon and the image encoder, if the training's are no longer in their places.
        device: cpu, cuda, cuda:1, mps, ...; by default an accelerator, if there is one.

    Raises:
        InputError: the checkpoint, the lexicon or the device does not exist, or a file is damaged.
    """
    from utils.visualize.explainer import ImageExplainer  # torch takes seconds to load

    folder, name, _ = find_checkpoint(folder_or_id(str(run)), name)
    if vad_lexicon is not None:
        check_regular(vad_lexicon, "name the lexicon's file")
    return ImageExplainer(folder, name, vad_lexicon, clip_model, device)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns 0. See `--help` for the flags.

    Raises:
        InputError: for everything a user can put right; no image could be read.
    """
    args = get_parser().parse_args(argv)
    images = check_args(args)
    from utils.visualize.heat_map import write_html, write_png  # torch takes seconds to load

    model = load(args.ckpt, args.name, vad_lexicon=args.vad_lexicon, clip_model=args.clip_model, device=args.device)
    options = {name: getattr(args, name) for name in ANSWER_FLAGS if getattr(args, name) is not None}
    answered, table, heats, left_out = [], [], [], 0
    with tqdm(total=len(images), unit="image", disable=None) as progress:
        for start in range(0, len(images), args.batch_size):
            batch = images[start : start + args.batch_size]
            opened = {}
            for path in batch:
                try:
                    str(path).encode()
                    opened[path] = open_image(path)
                except UnicodeEncodeError:
                    tqdm.write(escaped(f"left out: {path}: its name is not UTF-8; rename it"), file=sys.stderr)
                except InputError as error:
                    tqdm.write(f"left out: {error}", file=sys.stderr)
            answers = model(list(opened.values()), **options)
            for path, answer in zip(opened, answers, strict=True):
                text = "\n  ".join([str(path), *answer.lines(model.prompt)])
                tqdm.write(escaped(text, keep="\n"), file=sys.stdout)
                answered.append(answer.as_json(path))
                table += answer.as_rows(path)
            if args.heat is not None and answers:
                heats += model.heats(list(map(str, opened)), answers, args.heat_blocks or ())
            left_out += len(batch) - len(opened)
            progress.update(len(batch))
    if not answered:
        raise InputError(f"none of {left_out} images could be read (see above); give others")
    if args.json is not None:
        write_json(args.json, answered, indent=1)
    if args.csv is not None:
        write_rows(args.csv, list(table[0]), table)
    if args.heat is not None:
        blocks = f"block {', '.join(map(str, args.heat_blocks))}" if args.heat_blocks else "all blocks"
        if args.heat.suffix.lower() == ".png":
            write_png(args.heat, heats[0], blocks)
        else:
            write_html(args.heat, heats, blocks)
    written = "".join(f"; wrote {path}" for path in (args.json, args.csv, args.heat) if path is not None)
    print(f"{len(answered)} explained, {left_out} left out{written}")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
