"""What a model says of a picture, and how that is written down. No torch here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHOWN = 0.01  # smallest probability that is printed


@dataclass
class Explanation:
    """One text about a picture.

    text: the whole, "<emotion> because <explanation>". given: whether the emotion was. tokens: of the whole, without the stop
    token. given_tokens: how many of them are the given emotion's.
    """

    text: str
    emotion: str
    explanation: str
    given: bool
    tokens: list[int]
    given_tokens: int


@dataclass
class Answer:
    """What a model says of a picture.

    distribution: emotion -> probability, by the likelihood of the nine names; their sum is 1. named: the probability that
    the model names one of the nine at all. head: as distribution, of the 9-way head; None without one.
    """

    distribution: dict[str, float]
    named: float
    head: dict[str, float] | None
    explanations: list[Explanation]

    def as_json(self, path: Path) -> dict[str, Any]:
        return {
            "image": str(path),
            "distribution": self.distribution,
            "named": self.named,
            "head": self.head,
            "explanations": [
                {"emotion": said.emotion, "given": said.given, "explanation": said.explanation, "text": said.text}
                for said in self.explanations
            ],
        }

    def as_rows(self, path: Path) -> list[dict[str, Any]]:
        """Rows of a table, one for each text."""
        probabilities = {f"p_{emotion}": value for emotion, value in self.distribution.items()}
        if self.head is not None:
            probabilities |= {f"head_{emotion}": value for emotion, value in self.head.items()}
        return [
            {"image": str(path), "emotion": said.emotion, "given": said.given, "explanation": said.explanation}
            | {"named": self.named}
            | probabilities
            for said in self.explanations
        ]

    def lines(self, prompt: str) -> list[str]:
        """The answer for people, in lines: its texts behind the prompt, then the distributions."""
        said = [f"{prompt} {said.text}" + (" (emotion given)" if said.given else "") for said in self.explanations]
        return [*said, *self.distribution_lines()]

    def distribution_lines(self) -> list[str]:
        lines = [f"by its words: {in_percent(self.distribution)}"]
        return lines if self.head is None else [*lines, f"by its emotion head: {in_percent(self.head)}"]


def in_percent(distribution: dict[str, float]) -> str:
    """The emotions, most probable first; those below one per cent are added up."""
    ordered = sorted(distribution.items(), key=lambda entry: -entry[1])
    shown = [f"{emotion} {100 * value:.0f}%" for emotion, value in ordered if value >= SHOWN]
    if len(shown) < len(ordered):
        shown.append(f"others {100 * sum(value for _, value in ordered if value < SHOWN):.1f}%")
    return ", ".join(shown)
