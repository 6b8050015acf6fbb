"""The flags of `artEmisX_train.py`, each declared once with its rules (utils/flags.py). No torch here, for a fast --help."""

import argparse
import functools
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
    RERANK_MODEL,
    RERANKERS,
    TEST_SETS,
)
from utils.errors import OneLineParser, number
from utils.flags import INFERENCE, LOOSE, MODEL, ORIGIN, PARTS, SPEED, TRAINING, UNCHECKED, Boolean, flag_group
from utils.hub import folder_or_id

TRACKERS = ("tensorboard", "wandb", "trackio")  # names of their packages, too


def get_parser() -> argparse.ArgumentParser:
    """The command line. Flags of the published script keep their name, meaning and default."""
    parser = OneLineParser(
        prog="artEmisX_train.py",
        description="Train SEVLM on ArtEmis and score it with COCO-caption after every epoch.",
        allow_abbrev=False,
    )
    count, natural, rate = number(int, 1), number(int, 0), number(float, 0)

    add = flag_group(parser, "what to do", UNCHECKED)
    add(
        "--demo",
        action="store_true",
        help="make a small data set of drawn images in runs/demo/ and train a small model on it",
    )
    tiny = "a model in the demo's sizes, from random weights, for a first try on other data (no download)"
    add("--tiny", action="store_true", help=tiny)
    add(
        "--split",
        choices=("val", "test"),
        help="the split of the demo's data that --demo --eval_only scores (default: val; results of test go to runs/demo/results/test/)",
    )
    add(
        "--load_from_epoch",
        metavar="NAME",
        help="best-acc, best-res or a checkpoint's epoch: continue at the epoch after it (with --eval_only: score it); "
        "flags that are not given are those of the checkpoint",
    )
    add(
        "--resume",
        action=Boolean,
        default=False,
        help="continue exactly where the run in --ckpt_path was stopped or killed, with the same flags",
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
        rules=INFERENCE,
    )

    add = flag_group(parser, "files", UNCHECKED)
    add(
        "--nle_data_train_path",
        type=Path,
        default=Path("data/artEmis/artEmisX_cl_train.json"),
        help="training split; with --eval_only, unless given, the one that the checkpoint records",
        rules=TRAINING,
        fingerprint="training_records_sha256",
    )
    add(
        "--nle_data_val_path",
        type=Path,
        default=Path("data/artEmis/artEmisX_val.json"),
        help="split to score",
        rules=TRAINING,
        fingerprint="scored_records_sha256",
    )
    add(
        "--annFileExp",
        type=Path,
        default=Path("cococaption/annotations/artEmisX_val_annot_exp.json"),
        help="its reference explanations in COCO's format (preprocess/build_annotations.py)",
        rules=TRAINING,
        fingerprint="references_sha256",
    )
    add(
        "--image_root",
        type=Path,
        help=f"image folder (default: {' or '.join(IMAGE_FOLDERS)} beside the JSON files or one folder up)",
    )
    add(
        "--vad_lexicon",
        type=Path,
        help=f"NRC VAD lexicon (default: {' or '.join(LEXICON_FILES)} at the same places)",
        rules=INFERENCE,
        fingerprint="lexicon_sha256",
    )
    add(
        "--ckpt_path",
        type=folder_or_id,
        default=Path("ckpts"),
        help="checkpoints go here; with --eval_only also a Hugging Face id",
    )
    add("--caption_save_path", type=Path, default=Path("results"), help="captions, scores and logs go here")
    add(
        "--cache_dir",
        type=Path,
        default=Path("cache"),
        help="for what is computed once: training texts and their VAD, tokenised references, features",
    )

    add = flag_group(parser, "model", MODEL)
    add(
        "--clip_model",
        default="openai/clip-vit-base-patch16",
        help="image encoder: Hugging Face id (also id@revision) or folder of a CLIP, SigLIP, DINO or plain vision "
        "transformer, OpenAI's name (ViT-B/16, with its package), or a state dict with OpenAI's names",
        fingerprint="image_encoder_sha256",
    )
    add(
        "--gpt2_model",
        default="distilgpt2",
        help="decoder: Hugging Face id (also id@revision) or folder",
        rules=ORIGIN,
        fingerprint="decoder_sha256",
    )
    add(
        "--from_scratch",
        action=Boolean,
        words=("decoder", "encoder"),
        default=False,
        help="random weights in the sizes of both models' config.json, or of one of them: decoder or encoder",
        rules=PARTS,
    )
    add("--fixed_encoder", action=Boolean, default=True, help="do not train the image encoder", rules=PARTS)
    add("--prefix_dim", type=count, help="width of the image features (default: the image encoder's; 768 for ViT-B/16)")
    add("--len_prefix", type=natural, default=0, help="image tokens in front of the text (the paper uses none)")
    add("--prompt_text", default=PROMPT_TEXT, help="the beginning of every text")
    add("--max_seq_len", type=number(int, 8, 1024), default=30, help="tokens per text", rules=PARTS)
    add("--use_VAD", action=Boolean, default=True, help="fuse VAD features into the explanation")
    add("--VAD_En_Layers", type=count, default=3, help="layers of the VAD encoder")
    add("--VAD_En_Heads", type=int, choices=(1, 3), default=1, help="its attention heads")
    add(
        "--lemmatizer",
        choices=LEMMATIZERS,
        default="nltk",
        help="before the lexicon look-up: NLTK's tagger and WordNet (as in the paper; their data is a download), simplemma, or none",
        rules=INFERENCE,
    )
    add(
        "--dropout",
        type=number(float, 0, 0.99),
        default=0.1,
        help="on embeddings, attention weights and residuals",
        rules=TRAINING,
    )

    add = flag_group(parser, "objective", TRAINING)
    add("--alpha", type=rate, default=1.0, help="weight of the language model loss")
    add("--use_cl_loss", action=Boolean, default=True, help="contrastive loss")
    add("--cl_Loss_weight", type=rate, default=1.0, help="its weight")
    add("--use_VAD_loss", action=Boolean, default=True, help="VAD head's loss")
    add("--VAD_Loss_weight", type=rate, default=1.0, help="its weight")

    add = flag_group(parser, "training", TRAINING)
    add("--num_train_epochs", type=count, default=35, help="passes over the training images")
    add(
        "--batch_size",
        type=count,
        default=32,
        help="images per process and step, two texts each",
        fingerprint="images_per_step",
    )
    add("--gradient_accumulation_steps", type=count, default=1, help="steps per update")
    add(
        "--mixed_precision",
        choices=("no", "bf16", "fp16"),
        help="default: as `accelerate launch` sets it",
        rules=INFERENCE,
        fingerprint="precision",
    )
    add("--learning_rate", type=rate, default=2e-5, help="of decoder and heads; falls linearly to 0")
    add("--en_LR", type=rate, default=2e-5, help="of a trained image encoder")
    add("--emo_en_LR", type=rate, default=4e-5, help="of the VAD encoder")
    add("--adam_eps", type=rate, default=1e-6, help="AdamW's epsilon (1e-8 in PyTorch)")
    add(
        "--adamw",
        choices=("published", "torch"),
        default="published",
        help="where epsilon is added: to sqrt(v), as in the authors' transformers.AdamW, or, as in PyTorch, to sqrt(v) corrected "
        "for its start at 0, which makes the first thousand updates larger where gradients are small",
    )
    add("--max_grad_norm", type=rate, default=0.0, help="clip gradients to this norm; 0: no clipping")
    add(
        "--nan_policy",
        choices=("stop", "skip"),
        default="stop",
        help="on a loss or gradient that is not finite: stop, or skip the update",
        rules=LOOSE,
    )
    add(
        "--first_text",
        choices=("rotate", "last"),
        default="rotate",
        help="first text of a pair: another one every epoch, or always the image's last, as the published code does by accident",
    )
    add("--num_workers", type=natural, default=2, help="loader processes", rules=UNCHECKED)
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
        rules=LOOSE,
    )
    add(
        "--feature_cache",
        metavar="DIR|auto",
        help="image features computed once: a folder of preprocess/cache_features.py, or auto to fill one before the training",
        rules=SPEED,
    )
    add(
        "--save_steps",
        type=natural,
        default=0,
        help="also save a state to resume from every N steps; one is always saved before an evaluation",
        rules=UNCHECKED,
    )
    add("--log_steps", type=count, default=50, help="steps between two lines of the loss log", rules=UNCHECKED)
    add(
        "--report_to",
        nargs="+",
        choices=(*TRACKERS, "none"),
        default=["none"],
        help="also report losses, learning rates, scores and sample captions there (one or several; each needs its package)",
        rules=UNCHECKED,
    )
    add(
        "--cpu_threads",
        type=natural,
        default=0,
        help="threads per process on a CPU; 0: all cores, shared among the processes (accelerate's launcher alone would take one)",
        rules=SPEED,
    )

    add = flag_group(parser, "evaluation", UNCHECKED)
    add("--eval_steps", type=natural, default=0, help="steps between evaluations; 0: after every epoch", rules=LOOSE)
    add("--eval_batch_size", type=count, default=128, help="images captioned together, per process")
    add(
        "--stop_after_evals",
        type=natural,
        default=10,
        help="stop after more than N evaluations in a row without a better accuracy or BLEU-4 (or the score that decides on "
        "best-res, if --metrics has no BLEU)",
        rules=LOOSE,
    )
    add("--metrics", nargs="+", choices=METRICS, default=list(DEFAULT_METRICS), help="caption metrics", rules=TRAINING)
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
        help="as published: a text that does not end loses its 25th token",
        rules=INFERENCE,
    )
    add(
        "--num_beams",
        type=number(int, 1, 64),
        default=1,
        help="beams of the beam search; 1: greedy, as published",
        rules=INFERENCE,
    )
    drawn = "texts drawn for each image with --eval_only; --rerank chooses one of them"
    add("--num_samples", type=number(int, 2, 1000), help=drawn)
    best = "the one most similar to the image by a CLIP model, or of the highest mean log-probability of its tokens"
    add("--rerank", choices=RERANKERS, help=best)
    clip = "CLIP model of --rerank clip, with text encoder and tokenizer (folder or id)"
    add("--rerank_model", default=RERANK_MODEL, metavar="MODEL", help=clip)
    add("--temperature", type=number(float, 0.01, 100), default=1.0, help="of the samples")
    nucleus = "samples are drawn from the most probable tokens up to this mass"
    add("--top_p", type=number(float, 1e-6, 1), default=0.9, help=nucleus)
    add(
        "--gallery",
        type=natural,
        default=0,
        metavar="N",
        help="at each evaluation also write a page of N images with the model's captions; 0: none",
    )
    add("--test_set", choices=TEST_SETS, help="name of the scored set, for the report (test_... are of ArtEmis v2.0)")
    add("--append_to", type=Path, help="csv file to which --eval_only adds its row")
    add(
        "--text2emotion",
        type=Path,
        help="text-to-emotion classifier (preprocess/train_text2emotion.py, or ArtEmis' best_model.pt) for emotion alignment",
    )
    add(
        "--vocabulary",
        type=Path,
        help="its vocabulary.pkl (default: two folders above best_model.pt; classifiers of preprocess/ contain it)",
    )
    add(
        "--clip_score",
        metavar="MODEL",
        help="CLIP model with text encoder and tokenizer (folder or id), for CLIPScore in the report of --eval_only",
    )

    add = flag_group(parser, "beyond the paper (all off by default)", TRAINING)
    add(
        "--use_emotion_loss",
        action=Boolean,
        default=False,
        help="9-way emotion head on the image, with the annotators' distribution as target",
        rules=PARTS,
    )
    add("--emotion_loss_weight", type=rate, default=1.0, help="its weight")
    add(
        "--emotion_pooling",
        choices=EMOTION_POOLINGS,
        default="cls",
        help="what that head reads: the class token, the mean of the patches, or what nine learned queries find in the patches",
        rules=PARTS,
    )
    add(
        "--use_label_loss",
        action=Boolean,
        default=False,
        help="soft labels for the text: at the emotion's first token the annotators' distribution instead of the one "
        "emotion that the text names",
    )
    add("--label_loss_weight", type=rate, default=1.0, help="its weight")
    add(
        "--emotion_from",
        choices=EMOTION_FROM,
        default="text",
        help="what decides on a caption's emotion: the greedy text (as published), the likelihood of the nine names, or the "
        "head of --use_emotion_loss; the explanation is then generated for it. Accuracy, best-acc and early stopping follow it",
        rules=INFERENCE,
    )
    add(
        "--vad_causal",
        action=Boolean,
        default=False,
        help="VAD encoder sees no later tokens: no gap between training and generation, and faster decoding",
        rules=MODEL,
    )
    add(
        "--masked_pooling",
        action=Boolean,
        default=False,
        help="exclude padding from the contrastive means, and end the emotion span at ' because'",
    )
    add(
        "--plain_special_tokens",
        action=Boolean,
        default=False,
        help="a special token (<pad>, <|endoftext|>, ...) in an explanation is tokenised as plain text",
    )
    add(
        "--image_normalization",
        choices=NORMALIZATIONS,
        default="imagenet",
        rules=MODEL,
        help="pixel statistics: imagenet (as published), or own: those of the image encoder's training",
    )
    return parser


@functools.cache
def declared() -> dict[str, argparse.Action]:
    """Name of every flag -> its declaration, with its `rules` and its `fingerprint`."""
    return {action.dest: action for action in get_parser()._actions if hasattr(action, "rules")}
