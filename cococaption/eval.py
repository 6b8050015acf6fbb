"""A drop-in replacement for pycocoevalcap's COCOEvalCap."""

import functools
from collections.abc import Sequence
from typing import Any

from cococaption.meteor import Meteor
from cococaption.references import References, prepare_references
from cococaption.scorer import check_metrics, compute_scores
from cococaption.tokenizer import caption_problem, tokenize
from utils.constants import DEFAULT_METRICS
from utils.errors import InputError


class COCOEvalCap:
    """Score generated captions against references; same scores and attributes as in pycocoevalcap 1.2.

    There are two differences. SPICE is computed only when `metrics` names it. METEOR's process and the prepared
    references are kept for later evaluations in the same program.

    Args:
        coco: the references, a pycocotools COCO object or one with `getImgIds()` and `imgToAnns`.
        cocoRes: the generated captions, an object of the same kind.
        metrics: names from METRICS.

    Attributes:
        params: {"image_id": ids of the images to score}; initially all images of `coco`.
        eval: corpus scores after `evaluate()`: Bleu_1..Bleu_4, METEOR, ROUGE_L, CIDEr.
        imgToEval: image id -> {"image_id": id, "Bleu_1": ..., ...}.
        evalImgs: the values of `imgToEval` as a list.

    Raises:
        InputError: a metric is unknown, no metric is named, or SPICE's models are missing.
    """

    def __init__(self, coco: Any, cocoRes: Any, metrics: Sequence[str] = DEFAULT_METRICS):
        check_metrics(metrics)
        self.coco = coco
        self.cocoRes = cocoRes
        self.params = {"image_id": coco.getImgIds()}
        self.metrics = tuple(metrics)
        self.eval: dict[str, float] = {}
        self.imgToEval: dict[Any, dict[str, Any]] = {}
        self.evalImgs: list[dict[str, Any]] = []

    def evaluate(self) -> None:
        """Fill `eval`, `imgToEval` and `evalImgs`, and print the corpus scores.

        Raises:
            InputError: there is no image to score; an image has no reference, or not exactly one result; a caption
                cannot be scored; Java is missing or fails.
        """
        image_ids = list(dict.fromkeys(self.params["image_id"]))
        if not image_ids:
            raise InputError("COCOEvalCap: params['image_id'] is empty; name at least one image")
        references = tuple(_captions(self.coco, image_id, "reference") for image_id in image_ids)
        results = [_captions(self.cocoRes, image_id, "result") for image_id in image_ids]
        for image_id, of_image in zip(image_ids, results, strict=True):
            if len(of_image) != 1:
                raise InputError(f"COCOEvalCap: image {image_id} has {len(of_image)} results; give one")
        if "meteor" in self.metrics:
            _meteor().start()
        prepared = _prepare(references)
        candidates = tokenize([caption for (caption,) in results])
        self.eval, columns, _ = compute_scores(prepared, candidates, self.metrics, _meteor())
        self.imgToEval = {
            image_id: {"image_id": image_id, **dict(zip(columns, row, strict=True))}
            for image_id, row in zip(image_ids, zip(*columns.values(), strict=True), strict=True)
        }
        self.evalImgs = list(self.imgToEval.values())
        for name, value in self.eval.items():
            print(f"{name}: {value:.3f}")


@functools.lru_cache(maxsize=2)
def _prepare(captions: tuple[tuple[str, ...], ...]) -> References:
    return prepare_references(captions)


@functools.cache
def _meteor() -> Meteor:
    """The METEOR process that all evaluations of the program share."""
    return Meteor()


def _captions(coco: Any, image_id: Any, role: str) -> tuple[str, ...]:
    captions = tuple(annotation["caption"] for annotation in coco.imgToAnns.get(image_id, ()))
    if not captions:
        raise InputError(f"COCOEvalCap: image {image_id} has no {role}; take it out of params['image_id']")
    for caption in captions:
        problem = caption_problem(caption)
        if problem:
            raise InputError(f"COCOEvalCap: {role} of image {image_id}: {problem}")
    return captions
