"""A new explainer with the weights of a pretrained GPT-2, and a line that says which weights these are."""

from transformers import GPT2Config

from models.config import SEVLMConfig
from models.decoder import Explainer
from utils.constants import ADDED_TOKENS
from utils.data.image_encoder_weights import WEIGHTS_REMEDY
from utils.data.pretrained import load_pretrained
from utils.data.text_codec import GPT2_VOCABULARY, TextCodec, count_named
from utils.errors import InputError

# What GPT-2 does not bring, by a part of the weights' names, and what the line calls it; all else must be in the files.
NEW_WEIGHTS = {
    "crossattention": "cross-attention",
    "ln_cross_attn": "cross-attention",
    "VAD_linear": "VAD fusion",
    "clip_project": "image prefix",
    "image_projection": "image projection",
    "sim_mlp": "contrastive head",
    "VAD_head": "VAD head",
}
MOST_LISTED = 8  # tokens
OUTPUT_LAYER = "lm_head.weight"  # tied to the token table
REMEDY = WEIGHTS_REMEDY.replace("openai/clip-vit-base-patch16", "distilgpt2")


def load_decoder(name: str, gpt2: GPT2Config, config: SEVLMConfig, codec: TextCodec) -> Explainer:
    """Load a GPT-2, with or without cross-attention, and draw what it lacks; `origin` says what that is.

    Args:
        name: folder or Hugging Face id.
        gpt2: sizes of the decoder, with the vocabulary size of the files. config: the model's.
        codec: its tokenizer has the tokens of the model's tokenizer files first, then those of ours that they lack.

    Raises:
        InputError: the weights are missing, torn or of another shape, or lack a part of GPT-2.
    """
    rows, source = gpt2.vocab_size, f"--gpt2_model {name}"
    decoder, missing, unused = load_pretrained(Explainer, name, gpt2, source, REMEDY, settings=config)
    lacking = sorted(part for part in missing - {OUTPUT_LAYER} if _new_part(part) is None)
    if lacking:
        raise InputError(f"--gpt2_model {name}: lacks GPT-2's weights {', '.join(lacking[:4])}")
    if decoder.lm_head.weight is not decoder.transformer.wte.weight:
        decoder.lm_head.weight = decoder.transformer.wte.weight
        unused.add(OUTPUT_LAYER)
    decoder.draw_weights(missing)
    named = count_named(name)
    if rows == GPT2_VOCABULARY + len(ADDED_TOKENS) and not any("VAD_linear" in part for part in missing):
        named = max(named, rows)  # a checkpoint of this model: its tokenizer lies in another folder
    named = min(named, rows)
    drawn = list(range(named, len(codec.tokenizer)))
    decoder.resize_vocabulary(len(codec.tokenizer), drawn)
    decoder.config.pad_token_id = codec.pad_id
    tokens = codec.tokenizer.convert_ids_to_tokens(list(range(GPT2_VOCABULARY, len(codec.tokenizer))))
    fresh, kept = tokens[named - GPT2_VOCABULARY :], tokens[: named - GPT2_VOCABULARY]
    decoder.origin = f"decoder {name}: " + _origin(decoder, missing, unused, fresh, kept, rows - named)
    return decoder


def _new_part(weight: str) -> str | None:
    """What the line calls the part that a weight belongs to; None for a part of GPT-2."""
    return next((part for pattern, part in NEW_WEIGHTS.items() if pattern in weight), None)


def _origin(
    decoder: Explainer, missing: set[str], unused: set[str], fresh: list[str], kept: list[str], unnamed: int
) -> str:
    weights = [weight for weight, _ in decoder.named_parameters()]
    drawn = []
    for part in dict.fromkeys(NEW_WEIGHTS.values()):
        of_part = [weight for weight in weights if _new_part(weight) == part]
        lacking = missing.intersection(of_part)
        if lacking:
            drawn.append(part if len(lacking) == len(of_part) else f"{part} ({len(lacking)} of {len(of_part)} weights)")
    if fresh:
        drawn.append(_listed(fresh, "token"))
    says = [f"{len(weights) - len(missing.intersection(weights))} weights loaded"]
    if kept:
        says[0] += f", with {_listed(kept, 'added token')}"
    if drawn:
        says.append(f"drawn at random: {', '.join(drawn)}")
    if unused:
        more = f" and {len(unused) - 1} more" * (len(unused) > 1)
        says.append(f"left out: {min(unused)}{more}, which SEVLM has no place for")
    if unnamed:
        says.append(
            f"left out: {unnamed} row{'s' * (unnamed > 1)} of the token table without a token (if they are added tokens, "
            "copy the tokenizer's files into the model's folder)"
        )
    return "; ".join(says)


def _listed(tokens: list[str], what: str) -> str:
    more = ["..."] * (len(tokens) > MOST_LISTED)
    return f"{len(tokens)} {what}{'s' * (len(tokens) > 1)} ({' '.join(tokens[:MOST_LISTED] + more)})"
