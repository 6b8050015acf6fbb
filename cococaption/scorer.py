"""Compute all COCO-caption scores of a set of captions; the training script evaluates with this module."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from cococaption.bleu import bleu_counts, bleu_of_counts
from cococaption.cider import cider
from cococaption.meteor import Meteor
from cococaption.references import References, count_ngrams, prepare_references, read_annotations
from cococaption.rouge import rouge_l
from cococaption.spice import check_models, spice
from cococaption.tokenizer import caption_problem, find_java, tokenize
from utils.constants import DEFAULT_METRICS
from utils.errors import InputError


class CaptionScorer:
    """Score captions against the references of one annotation file, any number of times.

    The references are prepared and METEOR is started only once. Call `start()` early to let both run in the background.
    Use the scorer as a context manager, or call `close()`.

    Args:
        annotation_file: references in COCO's caption format.
        metrics: names from METRICS.
        cache_dir: folder in which tokenised references are cached for later runs; None: no cache.
        meteor_jvms: number of Java processes for METEOR; more than one helps only when cores are idle.

    Raises:
        InputError: the file is missing or malformed, Java is missing, or SPICE's models are missing.
    """

    def __init__(
        self,
        annotation_file: str | Path,
        metrics: Sequence[str] = DEFAULT_METRICS,
        cache_dir: str | Path | None = None,
        meteor_jvms: int = 1,
    ):
        if "spice" in metrics:
            check_models()
        find_java()
        self.annotation_file = annotation_file
        self.references = read_annotations(annotation_file)
        self._metrics = tuple(metrics)
        self._cache_dir = cache_dir
        self._meteor = Meteor(meteor_jvms)
        self._pool = ThreadPoolExecutor(1)
        self._all: Future[References] | None = None
        self._some: tuple[tuple[int, ...], References] | None = None

    def start(self) -> None:
        """Start METEOR and the preparation of all references in the background, and return immediately."""
        if self._all is None:
            self._all = self._pool.submit(prepare_references, list(self.references.values()), self._cache_dir)
        if "meteor" in self._metrics:
            self._meteor.start()

    def score(self, captions: dict[int, str]) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Score one caption per image.

        Images without a caption are left out together with their references, as if the annotation file did not contain
        them. CIDEr's document frequencies then come from the scored images only. To detect this, compare the length of
        the second result with `len(scorer.references)`.

        Args:
            captions: image id -> caption; at least one.

        Returns:
            the corpus scores and the scores of each image, in the order of the annotation file. The scores are those
            requested of Bleu_1..Bleu_4, METEOR, ROUGE_L and SPICE, in [0, 1], and CIDEr, in [0, 10].

        Raises:
            InputError: there is no caption, an image is not in the annotation file, a caption cannot be scored, or
                METEOR's process died twice.
        """
        return self.score_with_sums(captions)[:2]

    def score_with_sums(
        self, captions: dict[int, str]
    ) -> tuple[dict[str, float], dict[int, dict[str, float]], dict[str, dict[int, list[float]]]]:
        """As `score`, with the counts of each image from which the corpus scores are computed; errors as there.

        Returns:
            `score`'s two results, and "bleu" and "meteor", if requested, -> image id -> that image's row of
            `bleu_counts` or METEOR's statistics.
        """
        unknown = captions.keys() - self.references.keys()
        if unknown:
            raise InputError(
                f"{self.annotation_file}: lacks {len(unknown)} of the images that have a caption, e.g. "
                f"{next(iter(unknown))}; score against the annotation file of the same split"
            )
        for image_id, caption in captions.items():
            problem = caption_problem(caption)
            if problem:
                raise InputError(f"caption of image {image_id}: {problem}")
        if not captions:
            raise InputError(f"{self.annotation_file}: no caption to score; give one per image")
        image_ids = tuple(image_id for image_id in self.references if image_id in captions)
        self.start()
        tokenized = tokenize([captions[image_id] for image_id in image_ids])
        corpus, columns, sums = compute_scores(self._prepared(image_ids), tokenized, self._metrics, self._meteor)
        rows = zip(*columns.values(), strict=True)
        per_image = {
            image_id: dict(zip(columns, row, strict=True)) for image_id, row in zip(image_ids, rows, strict=True)
        }
        return (
            corpus,
            per_image,
            {name: dict(zip(image_ids, counts.tolist(), strict=True)) for name, counts in sums.items()},
        )

    def prepared(self, image_ids: Sequence[int]) -> References:
        """The tokenised references of these images, in the order of the annotation file."""
        wanted = set(image_ids)
        self.start()
        return self._prepared(tuple(image_id for image_id in self.references if image_id in wanted))

    def _prepared(self, image_ids: tuple[int, ...]) -> References:
        if len(image_ids) == len(self.references):
            return self._all.result()
        # tokens and document frequencies depend on the set of images, so these images are prepared separately
        if self._some is None or self._some[0] != image_ids:
            captions = [self.references[image_id] for image_id in image_ids]
            self._some = image_ids, prepare_references(captions)
        return self._some[1]

    def close(self) -> None:
        """End METEOR's processes. Using the scorer afterwards raises a RuntimeError."""
        self._meteor.close()
        self._all = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __enter__(self) -> "CaptionScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compute_scores(
    references: References, candidates: Sequence[str], metrics: Sequence[str], meteor: Meteor | None = None
) -> tuple[dict[str, float], dict[str, list], dict[str, np.ndarray]]:
    """Score I tokenised candidates. meteor: needed if `metrics` contains "meteor".

    Returns:
        name -> corpus score, and name -> list of the I scores of single images, in the order BLEU, METEOR, ROUGE-L,
        CIDEr, SPICE. Then "bleu" and "meteor" -> I rows of `bleu_counts` and of METEOR's statistics.

    Raises:
        InputError: Java or SPICE fails, or no reference contains a word (CIDEr).
    """
    corpus: dict[str, float] = {}
    columns: dict[str, list] = {}
    sums: dict[str, np.ndarray] = {}

    def add(name: str, value: float, values: list) -> None:
        corpus[name], columns[name] = float(value), values

    with ThreadPoolExecutor(1) as pool:
        # METEOR runs in its own processes while this one computes the other metrics
        waiting = pool.submit(meteor.score, candidates, references.texts) if "meteor" in metrics else None
        try:
            counts, lengths, _ = count_ngrams(candidates, references.numbering)
            if "bleu" in metrics:
                sums["bleu"] = bleu_counts(references, counts, lengths)
                of_images = bleu_of_counts(sums["bleu"])
                for n, value in enumerate(bleu_of_counts(sums["bleu"].sum(axis=0))):
                    add(f"Bleu_{n + 1}", value, of_images[:, n].tolist())
            if waiting:
                value, values, sums["meteor"] = waiting.result()
                add("METEOR", value, values)
            if "rouge" in metrics:
                values = [rouge_l(text, others) for text, others in zip(candidates, references.texts, strict=True)]
                add("ROUGE_L", np.mean(values), values)
            if "cider" in metrics:
                values = cider(references, counts, lengths)
                add("CIDEr", values.mean(), values.tolist())
            if "spice" in metrics:
                add("SPICE", *spice(candidates, references.texts))
        except BaseException:  # also Ctrl-C: else the pool would wait for METEOR's answers
            if meteor is not None:
                meteor.close()
            raise
    return corpus, columns, sums
