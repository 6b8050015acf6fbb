"""COCO-caption scores: the same values as pycocoevalcap 1.2, with the slow parts done once per program."""

from cococaption.eval import COCOEvalCap
from cococaption.references import read_annotations, read_results
from cococaption.scorer import CaptionScorer

__all__ = ["COCOEvalCap", "CaptionScorer", "read_annotations", "read_results"]
