"""COCO-caption scores: the same values as pycocoevalcap 1.2, with the slow parts done once per program."""

from cococaption.references import read_annotations, read_results
from cococaption.scorer import CaptionScorer

__all__ = ["CaptionScorer", "read_annotations", "read_results"]
