"""Export a trained model as one folder: weights, tokenizer, settings and a model card; no pickles.

python -m utils.share runs/demo shared/demo --report runs/demo/results/test/report.json
python -m utils.share runs/demo spaces/demo --space
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from utils.command_line import checkpoint_config, find_model, is_export, parse_args, recorded_settings
from utils.constants import DEFAULT_METRICS
from utils.errors import InputError, OneLineParser, brief, escaped, run_script
from utils.evaluation.report import checkpoint_sha256
from utils.evaluation.tables import CAPTION_SCORES, HEADINGS, format_report, read_report
from utils.files import atomic_path, check_place
from utils.flags import IGNORE, PARTS, TRAINING
from utils.flags import MODEL as OF_MODEL
from utils.hub import OWNED_ID, folder_or_id
from utils.opts import declared
from utils.run_record import RECORD_KEY, compare_to_checkpoint, flags_of, found_by_path
from utils.space import MODEL, run_lexicon, write_space

# Fingerprints of the run record that an export keeps.
FINGERPRINTS = (
    "image_encoder_sha256",
    "decoder_sha256",
    "lexicon_sha256",
    "lexicon",
    "training_texts",
    "training_texts_sha256",
    "precision",
    "images",
)
# Flags that the model card lists, besides those of the training with another value than the default.
OBJECTIVE_FLAGS = (
    "use_VAD",
    "use_VAD_loss",
    "use_cl_loss",
    "use_emotion_loss",
    "emotion_pooling",
    "use_label_loss",
    "vad_causal",
    "lemmatizer",
)
TRAINING_FLAGS = (
    "num_train_epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "en_LR",
    "emo_en_LR",
    "seed",
)
NAMED_ELSEWHERE = {
    *OBJECTIVE_FLAGS,
    *TRAINING_FLAGS,
    "clip_model",
    "gpt2_model",
    "prefix_dim",
    "from_scratch",
    "metrics",
}
NAMED_ELSEWHERE |= {"nle_data_train_path", "nle_data_val_path", "annFileExp"}
GENERATION_FLAGS = ("prompt_text", "max_seq_len", "num_beams", "drop_last_token", "emotion_from")
INTENDED_USE = (
    "It describes what an image may evoke in the words of annotators, with their culture and their prejudices. It is made "
    "for research on art and emotion. It must not be used to judge, sort or advertise to people, to tell what a person "
    "feels, in medical or legal matters, or to pass its sentences off as what a person said."
)
LICENCES = (
    "The code is under the MIT licence. The weights derive from the image encoder and the decoder named above and from the "
    "training data; the terms of each hold. ArtEmis and the NRC VAD Lexicon are for research and may not be passed on; "
    "neither is included."
)


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m utils.share",
        description="Export a trained model as one folder: config, safetensors, tokenizer, settings, model card.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "run",
        type=folder_or_id,
        metavar="RUN",
        help="folder of a run, e.g. runs/demo, or of its checkpoints, or the authors' checkpoints; or a hub id (also id@revision)",
    )
    add("out", type=Path, metavar="OUT", help="the new folder")
    add("--name", default="best-res", help="which checkpoint: best-res (default), best-acc or an epoch")
    reports = "its test reports (report.json), for the card"
    add("--report", nargs="+", type=Path, default=[], metavar="FILE", help=reports)
    add("--clip_model", help="the image encoder, if it has moved since the training")
    add(
        "--encoder",
        choices=("include", "reference"),
        default="include",
        help="whether the folder contains a fixed image encoder, or only names it",
    )
    space = "write a Hugging Face Space instead: the page of utils.app with the model and the code that it needs"
    add("--space", action="store_true", help=space)
    add("--push_to_hub", metavar="ID", help="also upload the folder to this Hugging Face repository, e.g. me/my-sevlm")
    add("--private", action="store_true", help="make that repository private")
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """InputError for what can be refused before anything is loaded; replaces a hub id in `run` by its download."""
    check_place(args.out / "config.json")
    if args.out.exists() and any(args.out.iterdir()):
        raise InputError(f"{args.out}: exists already; name a new folder, or remove it")
    if args.private and not args.push_to_hub:
        raise InputError("--private applies to the repository of --push_to_hub: pass both")
    if args.push_to_hub and not OWNED_ID.fullmatch(args.push_to_hub):
        raise InputError(f"--push_to_hub {args.push_to_hub}: an id such as me/my-sevlm was expected")
    args.run = find_model(args.run)
    if is_export(args.run):
        raise InputError(f"{args.run}: is an exported model already; copy the folder")
    if not args.run.is_dir():
        raise InputError(f"{args.run}: no such folder; give the --ckpt_path of a training")


def main(argv: list[str] | None = None) -> int:
    args = get_parser().parse_args(argv)
    check_flags(args)
    reports = {str(path): read_report(path) for path in args.report}
    encoder = [] if args.clip_model is None else [f"--clip_model={args.clip_model}"]
    flags = parse_args(["--eval_only", f"--load_from_epoch={args.name}", f"--ckpt_path={args.run}", *encoder])
    source = checkpoint_config(flags).parent
    for path, report in reports.items():
        sha = report.get("checkpoint_sha256")
        if Path(str(report.get("checkpoint"))).name != source.name or sha not in (None, checkpoint_sha256(source)):
            raise InputError(f"{path}: is a report of {report.get('checkpoint')}, not of {source} as it is now")

    from utils.training.build_model import load_model
    from utils.training.fingerprints import decoder_identity, encoder_identity

    record = recorded_settings(flags)
    checkpoint, codec, model = load_model(flags)
    fingerprints = {
        "image_encoder_sha256": encoder_identity(model.image_encoder),
        "decoder_sha256": decoder_identity(model, codec),
    }
    if record is not None:
        for note in compare_to_checkpoint(record, {"fingerprints": fingerprints}, True, source):
            print(escaped(note))
    include_encoder = args.encoder == "include"
    if not include_encoder and checkpoint.stats.get("encoder_state_dict") is not None:
        raise InputError(f"{source}: its image encoder was trained with the model: leave --encoder reference out")
    if not include_encoder and flags.from_scratch in (True, "encoder"):
        raise InputError(f"{source}: its image encoder has random weights: leave --encoder reference out")
    settings = exported_settings(record or {"flags": flags_of(flags), "fingerprints": fingerprints})
    card = model_card(args.out.name, settings, reports, checkpoint.stats, include_encoder, record is None)
    if args.space:
        with atomic_path(args.out, folder=True) as temporary:
            write_folder(temporary / MODEL, model, codec.tokenizer, settings, card, include_encoder)
            write_space(temporary, args.out.name, settings["flags"], run_lexicon(args.run, record))
        use = f"try it: pip install gradio && python {args.out}/app.py"
    else:
        write_folder(args.out, model, codec.tokenizer, settings, card, include_encoder)
        use = f"use it: python -m utils.explain IMAGE --ckpt {args.out}"
    size = sum(path.stat().st_size for path in args.out.rglob("*") if path.is_file())
    print(f"{args.out}: {size / 1e6:.0f} MB; {use}")
    if args.push_to_hub:
        print(push(args.out, args.push_to_hub, args.private, "space" if args.space else "model"))
    return 0


def exported_settings(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a run record that tells how to use the model and how it was trained, without paths of this machine."""
    flags, fingerprints = {}, record["fingerprints"]
    for name, flag in declared().items():
        if flag.rules.resume == IGNORE and name not in ("demo", "text2emotion"):
            continue
        value = record["flags"][name]
        is_path = value is not None and (found_by_path(flag) or isinstance(value, str) and os.path.exists(value))
        flags[name] = Path(value).name if is_path else value
    return {"flags": flags, "fingerprints": {name: fingerprints[name] for name in FINGERPRINTS if name in fingerprints}}


def write_folder(out: Path, model, tokenizer, settings: dict, card: str, include_encoder: bool) -> None:
    """Write the folder under a temporary name, check that it loads, and rename it."""
    from models.sevlm import SEVLM

    with atomic_path(out, folder=True) as temporary:
        model.save_pretrained(temporary, include_encoder, **{RECORD_KEY: settings})
        (temporary / "model.safetensors").chmod((temporary / "config.json").stat().st_mode)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        SEVLM.from_pretrained(temporary, image_encoder=None if include_encoder else model.image_encoder)


def push(folder: Path, repository: str, private: bool, kind: str = "model") -> str:
    """Upload a folder to the hub; returns its address. kind: "model" or "space". InputError if that fails."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        sdk = "gradio" if kind == "space" else None
        api.create_repo(repository, private=private, exist_ok=True, repo_type=kind, space_sdk=sdk)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, repo_type=kind))
    except Exception as error:  # of the hub's client, or of its transport
        options = " --repo-type space" * (kind == "space") + " --private" * private
        raise InputError(
            f"--push_to_hub {repository}: {brief(error)}; the folder {folder} is complete: log in with `hf auth login` and "
            f"upload it with `hf upload {repository} {folder}{options}`"
        ) from None


def model_card(
    name: str,
    settings: dict[str, Any],
    reports: dict[str, dict],
    stats: dict[str, Any],
    include_encoder: bool,
    authors: bool,
) -> str:
    """README.md in Markdown, with the hub's header.

    Args:
        settings: of `exported_settings`.
        reports: file -> test report.
        stats: of the checkpoint; its best_acc and best_res are of the validation split.
        authors: the checkpoint is one of the authors', which has no record: the flags are those of its use.
    """
    flags, fingerprints = settings["flags"], settings["fingerprints"]
    header = card_header(name, settings, reports, stats)
    images = fingerprints.get("images", "number not recorded")
    data = f"`{flags.get('nle_data_train_path') or 'not recorded'}` ({images} images)."
    if flags.get("demo"):
        data = "The demo's data: small drawn images with sentences made by a program. It knows nothing of art."
    encoder = f"`{flags.get('clip_model')}`, "
    encoder += "included" if include_encoder else "not included: it is loaded by name"
    lines = [
        f"---\n{header.to_yaml()}\n---\n\n# {name}\n",
        "A small emotional vision-language model (SEVLM, ECCV 2024): given an image, it says which of nine emotions the "
        "image evokes, and why.\n",
        "## Use\n",
        f"```\npython -m utils.explain IMAGE --ckpt {name}" + (" --vad_lexicon FILE" if flags.get("use_VAD") else ""),
        "```\n",
        "In Python, from the SEVLM repository: `SEVLM.from_pretrained(folder)` (models/sevlm.py). No file here is unpickled.\n",
        f"{INTENDED_USE}\n",
        "## Training\n",
    ]
    if authors:
        lines.append("Its checkpoint recorded no settings; what stands below are the settings of its use.\n")
    lines += [f"- data: {data}", f"- image encoder: {encoder}; decoder: `{flags.get('gpt2_model')}`"]
    listed = list(OBJECTIVE_FLAGS)
    if not authors:
        listed += TRAINING_FLAGS
        for name, flag in declared().items():
            of_training = flag.rules in (OF_MODEL, PARTS, TRAINING) and name not in NAMED_ELSEWHERE
            if of_training and flags.get(name) not in (None, flag.default):
                listed.append(name)
    lines += [f"- {flag}: {flags[flag]}" for flag in listed if flag in flags]
    if lexicon := fingerprints.get("lexicon_sha256"):
        lines.append(f"- VAD lexicon: SHA-256 {lexicon}; not included, it must be had from its makers")
    lines += ["\n## Generation\n", *(f"- {flag}: {flags[flag]!r}" for flag in GENERATION_FLAGS if flag in flags)]
    lines.append("\n## Scores\n")
    if stats.get("best_acc") is not None and stats.get("best_res") is not None:
        accuracy, result = 100 * stats["best_acc"], 100 * stats["best_res"]
        lines.append(
            f"Best of its training on the validation split, which also chose the checkpoint: emotion accuracy {accuracy:.1f}, "
            f"best-res score {result:.1f}.\n"
        )
    if not reports:
        lines.append("No test report was given.\n")
    lines += [format_report(report) + "\n" for report in reports.values()]
    lines += ["## Licences\n", LICENCES]
    return "\n".join(lines) + "\n"


def card_header(name: str, settings: dict[str, Any], reports: dict[str, dict], stats: dict[str, Any]) -> ModelCardData:
    """What the hub reads of a card: base models, data, metrics, and scores in percent with their 95 % intervals.

    The scores are those of the test reports; without any, those that chose the checkpoint on the validation split.
    """
    flags = settings["flags"]
    data = Path(str(flags.get("nle_data_val_path") or "ArtEmis")).stem
    if flags.get("demo"):
        data = "the demo's drawn images"
    results = []
    for report in reports.values():
        title = f"{report.get('evaluated_file')} ({report.get('test_set') or 'test'})"
        for score in (name for name in (*CAPTION_SCORES, "macro_F1", "weighted_F1") if name in report["scores"]):
            heading = HEADINGS[score].replace("B-", "BLEU-")
            if interval := (report.get("intervals") or {}).get(score):
                heading += f", 95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
            results.append(_result(title, heading, score, report["scores"][score]))
    if not reports:
        from utils.evaluation.evaluator import deciding_score  # it imports torch

        deciding = deciding_score(flags.get("metrics") or list(DEFAULT_METRICS))
        best_res = f"best-res: {CAPTION_SCORES[deciding].replace('B-', 'BLEU-')}"
        best_acc = "best-acc: emotion accuracy"
        for name, score, heading in (("best_acc", "sub_acc", best_acc), ("best_res", deciding, best_res)):
            if stats.get(name) is not None:
                results.append(_result(f"{data} (validation)", heading, score, stats[name]))
    return ModelCardData(
        model_name=name,
        language="en",
        license="other",
        license_name="see-below",
        library_name="sevlm",
        pipeline_tag="image-to-text",
        tags=["sevlm", "emotion", "visual-art"],
        base_model=[name for flag in ("clip_model", "gpt2_model") if _on_hub(name := str(flags.get(flag)))] or None,
        datasets=[data],
        metrics=sorted({result.metric_type for result in results}) or None,
        eval_results=results or None,
    )


def _on_hub(name: str) -> bool:
    """Whether a model's name in a record is an id of the hub: owner/name, or GPT-2's, which have no owner."""
    return bool(OWNED_ID.fullmatch(name)) or name in ("distilgpt2", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


def _result(data: str, heading: str, score: str, value: float) -> EvalResult:
    kind = {"sub_acc": "accuracy", "macro_F1": "f1", "weighted_F1": "f1"}
    return EvalResult(
        task_type="image-to-text",
        dataset_type="image-to-text",
        dataset_name=data,
        metric_type=kind.get(score, score.lower().partition("_")[0]),
        metric_name=heading,
        metric_value=round(100 * value, 1),
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
