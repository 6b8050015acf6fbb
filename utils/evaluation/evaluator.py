"""Caption a split, score it, write what was said and how it scored."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch.utils.data import DataLoader, Subset

from cococaption import CaptionScorer
from models.cpu.packed_weights import packed_weights
from models.sevlm import SEVLM
from utils.data.datasets import EvaluationImages, ImageSource, loader_processes, worker_errors
from utils.data.records import Records
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import VADLookup
from utils.evaluation.evaluation import Evaluation, score_captions
from utils.evaluation.generation import (
    caption_batch,
    emotion_log_likelihoods,
    emotions_in_text,
    head_distribution,
    most_probable,
)
from utils.files import write_json
from utils.memory import give_back_freed_memory
from utils.progress import ProgressLine

# The first of these scores that --metrics gives decides on best-res and, beside the accuracy, on the early stop.
DECIDING_SCORES = {"bleu": "Bleu_4", "cider": "CIDEr", "meteor": "METEOR", "rouge": "ROUGE_L", "spice": "SPICE"}

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of --mixed_precision


def deciding_score(metrics: list[str]) -> str:
    """The score that best-res keeps the best of: BLEU-4 as published, or the next there is."""
    return next(score for metric, score in DECIDING_SCORES.items() if metric in metrics)


class Evaluator:
    """Scores a model on one split, as often as wanted: all processes caption, the main one scores, all learn the scores."""

    def __init__(
        self,
        args: argparse.Namespace,
        accelerator: Accelerator,
        records: Records,
        images: ImageSource,
        codec: TextCodec,
        vad: VADLookup | None,
        scorer: CaptionScorer | None,
    ):
        self.args, self.accelerator, self.records, self.codec, self.vad = args, accelerator, records, codec, vad
        self.scorer = scorer  # on the main process only
        self.dataset = EvaluationImages(records, images)
        share = range(accelerator.process_index, len(records), accelerator.num_processes)
        self.loader = DataLoader(
            Subset(self.dataset, share),
            batch_size=args.eval_batch_size,
            **loader_processes(min(args.num_workers, max(len(share) // args.eval_batch_size, 0))),
            generator=torch.Generator(),  # the default one would draw from the training's random numbers
        )

    @worker_errors()
    def __call__(self, model: SEVLM) -> Evaluation:
        """Caption every image of the split and score the explanations."""
        model.eval()
        generated = gather_object(list(self._captions(model)))
        model.train()
        outcome: list[Evaluation | None] = [None]
        if self.accelerator.is_main_process:
            outcome = [self._score({image_id: rest for image_id, *rest in generated})]
        return broadcast_object_list(outcome)[0]

    def _captions(self, model: SEVLM) -> Iterator[tuple]:
        """(image id, full text, explanation, emotion its own text names, way -> nine probabilities) of this process's images."""
        hidden, share = not self.accelerator.is_main_process, len(self.loader.dataset)
        with ProgressLine("captioning", share, "pictures", hidden=hidden) as line:
            for texts in self._captions_of_batches(model):
                yield from texts
                line.advance(line.done + len(texts))
        if self.vad is not None:
            self.vad.forget()

    def _captions_of_batches(self, model: SEVLM) -> Iterator[list[tuple]]:
        give_back_freed_memory()
        with packed_weights(model.decoder, DTYPES[self.accelerator.mixed_precision]):
            for batch in self.loader:
                yield self._captions_of_batch(model, batch)

    def _captions_of_batch(self, model: SEVLM, batch: dict[str, torch.Tensor]) -> list[tuple]:
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        with torch.inference_mode(), self.accelerator.autocast():
            image = model.image_features(batch.get("pixels"), batch.get("cls"), batch.get("grid"))
            vad_of = None if self.vad is None else self.vad.for_generated
            chosen_by, distributions = self.args.emotion_from, {}
            if model.emotion_head is not None:
                distributions["head"] = head_distribution(model, image).tolist()
            if self.args.gallery or self.args.eval_only or chosen_by == "likelihood":
                names = emotion_log_likelihoods(model, image, self.codec, vad_of)
                distributions["likelihood"] = names.softmax(dim=-1).tolist()
            emotions = None if chosen_by == "text" else most_probable(distributions[chosen_by])
            rest = (self.args.drop_last_token, self.args.num_beams)
            texts = caption_batch(model, image, self.codec, vad_of, *rest, emotions)
            named = [None] * len(texts)
            if emotions is not None and self.args.eval_only:
                named = emotions_in_text(model, image, self.codec, vad_of)
        rows = zip(batch["image_id"].tolist(), texts, named, *distributions.values(), strict=True)
        return [
            (image_id, *text, name, dict(zip(distributions, nine, strict=True))) for image_id, text, name, *nine in rows
        ]

    def _score(self, generated: dict[int, list]) -> Evaluation:
        generated = {int(image_id): generated[int(image_id)] for image_id in self.records}  # in the split's order
        full = {image_id: text for image_id, (text, *_) in generated.items()}
        explanations = {image_id: explanation for image_id, (_, explanation, *_) in generated.items()}
        ways = next(iter(generated.values()))[-1]
        distributions = {way: {image_id: of_way[way] for image_id, (*_, of_way) in generated.items()} for way in ways}
        named = {image_id: row[2] for image_id, row in generated.items() if row[2] is not None}
        return score_captions(self.scorer, self.records, full, explanations, distributions, named)


def write_evaluation(folder: Path, evaluation: Evaluation, records: Records, epoch: int | str, step: int) -> None:
    """Write captions, scores and the distributions of the nine emotions, under their published names where they have one.

    Captions are COCO's lists of {"image_id", "caption"}, with "image_name" beside; scores one flat object; the files
    emotion_head and emotion_likelihood lists of {"image_id", "image_name", "probabilities"}, nine in the order of `EMOTIONS`.
    """
    files = [
        ("unf_captions_full", "caption", evaluation.full),
        ("unf_captions_exp", "caption", evaluation.explanations),
        *((f"emotion_{way}", "probabilities", of_way) for way, of_way in evaluation.distributions.items()),
    ]
    for name, key, values in files:
        listed = [
            {"image_id": image_id, key: value, "image_name": records[str(image_id)]["image_name"]}
            for image_id, value in values.items()
        ]
        if listed:
            write_json(folder / f"{name}_{epoch}_{step}_step.json", listed)
    write_json(folder / f"scores_exp_{epoch}_{step}_step.json", evaluation.scores)
