"""Caption a split with a model, on all processes, and score the captions."""

import argparse
from typing import NamedTuple

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
from utils.evaluation.clip_score import ClipScorer
from utils.evaluation.evaluation import Evaluation, score_captions
from utils.evaluation.generation import (
    BestOfN,
    caption_batch,
    emotion_log_likelihoods,
    emotions_in_text,
    head_distribution,
    most_probable,
    sample_seed,
)
from utils.processes import give_back_freed_memory
from utils.progress import ProgressLine

# The first of these scores that --metrics asks for decides on best-res and, with the accuracy, on the early stop.
DECIDING_SCORES = {"bleu": "Bleu_4", "cider": "CIDEr", "meteor": "METEOR", "rouge": "ROUGE_L", "spice": "SPICE"}

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}  # of --mixed_precision


def deciding_score(metrics: list[str]) -> str:
    """The score that decides on best-res: BLEU-4 as published, or the next one that is computed."""
    return next(score for metric, score in DECIDING_SCORES.items() if metric in metrics)


class Caption(NamedTuple):
    """The generated text of one image.

    full: the whole text. explanation: its second part. named: the emotion that the model's own text names, where `full` was
    written for another one. distributions: "head" and "likelihood", where they were computed -> nine probabilities.
    """

    image_id: int
    full: str
    explanation: str
    named: str | None
    distributions: dict[str, list[float]]


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
        reranker: ClipScorer | None = None,
    ):
        self.args, self.accelerator, self.records, self.codec, self.vad = args, accelerator, records, codec, vad
        self.scorer = scorer  # on the main process only
        self.reranker = reranker  # of --rerank clip
        self.dataset = EvaluationImages(records, images)
        places = range(accelerator.process_index, len(records), accelerator.num_processes)
        self.loader = DataLoader(
            Subset(self.dataset, places),
            batch_size=args.eval_batch_size,
            **loader_processes(min(args.num_workers, len(places) // args.eval_batch_size)),
            generator=torch.Generator(),  # the default one would draw from the training's random numbers
        )

    @worker_errors()
    def __call__(self, model: SEVLM) -> Evaluation:
        """Caption every image of the split and score the explanations."""
        model.eval()
        captions = gather_object(self._captions(model))
        model.train()
        evaluation: list[Evaluation | None] = [None]
        if self.accelerator.is_main_process:
            evaluation = [self._score(captions)]
        return broadcast_object_list(evaluation)[0]

    def _captions(self, model: SEVLM) -> list[Caption]:
        """Captions of this process's images."""
        captions: list[Caption] = []
        give_back_freed_memory()
        hidden = not self.accelerator.is_main_process
        with (
            ProgressLine("captioning", len(self.loader.dataset), "images", hidden=hidden) as line,
            packed_weights(model.decoder, DTYPES[self.accelerator.mixed_precision]),
        ):
            for batch in self.loader:
                captions += self._captions_of_batch(model, batch)
                line.advance(len(captions))
        return captions

    def _captions_of_batch(self, model: SEVLM, batch: dict[str, torch.Tensor]) -> list[Caption]:
        args = self.args
        batch = {name: tensor.to(self.accelerator.device) for name, tensor in batch.items()}
        with torch.inference_mode(), self.accelerator.autocast():
            image = model.image_features(batch.get("pixels"), batch.get("cls"), batch.get("grid"))
            vad_of = None if self.vad is None else self.vad.for_generated
            distributions = {}
            if model.emotion_head is not None:
                distributions["head"] = head_distribution(model, image).tolist()
            if args.gallery or args.eval_only or args.emotion_from == "likelihood":
                likelihoods = emotion_log_likelihoods(model, image, self.codec, vad_of)
                distributions["likelihood"] = likelihoods.softmax(dim=-1).tolist()
            emotions = None if args.emotion_from == "text" else most_probable(distributions[args.emotion_from])
            texts = caption_batch(
                model,
                image,
                self.codec,
                vad_of,
                args.drop_last_token,
                args.num_beams,
                emotions,
                self._best_of(batch["image_id"].tolist()) if args.rerank else None,
            )
            named = [None] * len(texts)
            if emotions is not None and args.eval_only:
                named = emotions_in_text(model, image, self.codec, vad_of)
        return [
            Caption(image_id, *text, named[row], {source: rows[row] for source, rows in distributions.items()})
            for row, (image_id, text) in enumerate(zip(batch["image_id"].tolist(), texts, strict=True))
        ]

    def _best_of(self, image_ids: list[int]) -> BestOfN:
        """How the captions of a batch are chosen (--rerank)."""
        args, clip = self.args, self.reranker

        def similarities(rows: list[int], texts: list[list[str]]) -> torch.Tensor:
            names = [self.records[str(image_ids[row])]["image_name"] for row in rows]
            return clip.similarities([clip.open(name) for name in names], texts)

        return BestOfN(
            [sample_seed(args.seed, str(image_id).encode()) for image_id in image_ids],
            args.num_samples,
            args.temperature,
            args.top_p,
            None if clip is None else similarities,
        )

    def _score(self, captions: list[Caption]) -> Evaluation:
        by_image = {caption.image_id: caption for caption in captions}
        by_image = {int(image_id): by_image[int(image_id)] for image_id in self.records}  # in the split's order
        sources = next(iter(by_image.values())).distributions
        return score_captions(
            self.scorer,
            self.records,
            full={image: caption.full for image, caption in by_image.items()},
            explanations={image: caption.explanation for image, caption in by_image.items()},
            distributions={
                source: {image: caption.distributions[source] for image, caption in by_image.items()}
                for source in sources
            },
            named={image: caption.named for image, caption in by_image.items() if caption.named is not None},
        )
