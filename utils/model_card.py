"""The model card (README.md) of a shared model, from the record of its training and its test reports."""

from typing import Any

from huggingface_hub import ModelCardData

from utils.evaluation.report_tables import format_report

USE = (
    "It describes what an image may evoke in the words of annotators, with their culture and their prejudices. It is made "
    "for research on art and emotion. It must not be used to judge, sort or advertise to people, to tell what a person "
    "feels, in medical or legal matters, or to pass its sentences off as what a person said."
)
OBJECTIVE = (
    "use_VAD",
    "use_VAD_loss",
    "use_cl_loss",
    "use_emotion_loss",
    "emotion_pooling",
    "use_label_loss",
    "vad_causal",
    "lemmatizer",
)
GENERATION = ("prompt_text", "max_seq_len", "num_beams", "drop_last_token", "emotion_from")
TRAINING = (
    "num_train_epochs",
    "batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "en_LR",
    "emo_en_LR",
    "seed",
)


def model_card(
    name: str,
    settings: dict[str, Any],
    reports: dict[str, dict],
    stats: dict[str, Any],
    include_encoder: bool,
    authors: bool,
) -> str:
    """Markdown with the hub's header.

    Args:
        settings: {"flags", "facts"} of the training (of the use alone where the checkpoint recorded none: `authors`).
        reports: file -> test report. stats: of the checkpoint; best_acc and best_res are of the validation split.
    """
    flags, facts = settings["flags"], settings["facts"]
    demo = bool(flags.get("demo"))
    data = ModelCardData(
        language="en",
        license="other",
        license_name="see-below",
        pipeline_tag="image-to-text",
        tags=["sevlm", "emotion", "visual-art"],
    )
    trained_on = (
        "The demo's data: small drawn pictures with sentences made by a program. It knows nothing of art."
        if demo
        else f"`{flags.get('nle_data_train_path') or 'not recorded'}` "
        f"({facts['images'] if 'images' in facts else 'number not recorded'} images)."
    )
    encoder = f"`{flags.get('clip_model')}`, " + (
        "included" if include_encoder else "not included: it is loaded by name"
    )
    lexicon = facts.get("lexicon_sha256")
    lines = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}\n",
        "A small emotional vision-language model (SEVLM, ECCV 2024): given a picture, it says which of nine emotions the "
        "picture evokes, and why.\n",
        "## Use\n",
        f"```\npython -m utils.explain PICTURE --ckpt {name}" + (" --vad_lexicon FILE" if flags.get("use_VAD") else ""),
        "```\n",
        "In Python, from the SEVLM repository: `SEVLM.from_pretrained(folder)` (models/sevlm.py). No file here is unpickled.\n",
        f"{USE}\n",
        "## Training\n",
    ]
    if authors:
        lines.append("Its checkpoint recorded no settings; what stands below are the settings of its use.\n")
    lines += [
        f"- data: {trained_on}",
        f"- image encoder: {encoder}; decoder: `{flags.get('gpt2_model')}`",
        *(f"- {flag}: {flags[flag]}" for flag in (*OBJECTIVE, *(() if authors else TRAINING)) if flag in flags),
        f"- VAD lexicon: SHA-256 {lexicon}; not included, it must be had from its makers" if lexicon else "",
        "\n## Generation\n",
        *(f"- {flag}: {flags[flag]!r}" for flag in GENERATION if flag in flags),
        "\n## Scores\n",
    ]
    if stats.get("best_acc") is not None and stats.get("best_res") is not None:
        accuracy, result = 100 * stats["best_acc"], 100 * stats["best_res"]
        lines.append(
            f"Best of its training on the validation split, which also chose the checkpoint: emotion accuracy {accuracy:.1f}, "
            f"best-res score {result:.1f}.\n"
        )
    if not reports:
        lines.append("No test report was given.\n")
    lines += [format_report(report) + "\n" for report in reports.values()]
    lines += [
        "## Licences\n",
        "The code is under the MIT licence. The weights derive from the image encoder and the decoder named above and from the "
        "training data; the terms of each hold. ArtEmis and the NRC VAD Lexicon are for research and may not be passed on; "
        "neither is included.",
    ]
    return "\n".join(line for line in lines if line != "") + "\n"
