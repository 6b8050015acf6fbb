"""A model's answer about an image: texts, probabilities of the nine emotions, words and where the model looked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from models.image_encoder import ImageFeatures
from utils.evaluation.generation import most_probable
from utils.visualize.heat_map import WordHeat, draw_panel

PRINTED = 0.01  # smallest probability that is printed by itself
HEAT_SIDE = 448  # pixels; longest side of the images in heat maps


@dataclass
class Explanation:
    """One text about an image.

    text: the whole, "<emotion> because <explanation>". given: whether the user chose the emotion. tokens: of the whole text,
    without the stop token. given_tokens: how many of them were not generated, as the emotion was chosen before.
    log_probability: mean of its tokens' (samples only).
    """

    text: str
    emotion: str
    explanation: str
    given: bool
    tokens: list[int]
    given_tokens: int
    log_probability: float | None = None


@dataclass
class Answer:
    """A model's answer about an image.

    Attributes:
        probabilities: "likelihood" -> emotion -> probability, by the likelihood of the nine names, whose sum is 1; and
            "head" -> the 9-way head's, where the model has one. The text is generated token by token: its first token may begin
            several names, so that the emotion it names need not be the most probable of the nine.
        named: the probability that the model's text names one of the nine at all.
        explanations: the texts: one, or one for each sample or asked emotion.
        image: RGB, upright.
    """

    probabilities: dict[str, dict[str, float]]
    named: float
    explanations: list[Explanation]
    image: Image.Image | None = None
    features: ImageFeatures | None = field(default=None, repr=False)  # of the one image
    look: Callable[[], list[list[WordHeat]]] | None = field(default=None, repr=False)

    @property
    def emotion(self) -> str:
        """The emotion that the (first) text names; any text, if it names none of the nine."""
        return self.explanations[0].emotion

    @property
    def explanation(self) -> str:
        """The (first) text behind "because"."""
        return self.explanations[0].explanation

    @property
    def text(self) -> str:
        """The whole (first) text, "<emotion> because <explanation>"."""
        return self.explanations[0].text

    @property
    def words(self) -> list[WordHeat]:
        """The words of the (first) text that were generated: `text`, `vad` and `heat_map` of each."""
        return self.words_of_texts[0]

    @cached_property
    def words_of_texts(self) -> list[list[WordHeat]]:
        """The same of each of `explanations`. Their attention is computed only when it is asked for."""
        return self.look()

    def heat_map(self, word: "str | int | WordHeat") -> np.ndarray:
        """Where the model looked when it wrote a word of `words`: float [rows, columns] of patches, sum 1.

        word: the word itself (its first occurrence), its number, or one of `words`.

        Raises:
            KeyError: the text does not have this word.
        """
        if isinstance(word, WordHeat):
            return word.heat_map
        if isinstance(word, int):
            return self.words[word].heat_map
        found = [entry for entry in self.words if word.casefold() in (entry.text.casefold(), entry.bare.casefold())]
        if not found:
            raise KeyError(f"{word!r} is none of the words {[entry.text for entry in self.words]}")
        return found[0].heat_map

    def heat_image(self, word: "str | int | WordHeat") -> Image.Image:
        """The image, dark where the model did not look when it wrote a word; its longer side is HEAT_SIDE pixels."""
        image = ImageOps.contain(self.image, (HEAT_SIDE, HEAT_SIDE), Image.Resampling.LANCZOS)
        return draw_panel(image, self.heat_map(word))

    def as_json(self, path: Path) -> dict[str, Any]:
        return {
            "image": str(path),
            "likelihood": self.probabilities["likelihood"],
            "named": self.named,
            "head": self.probabilities.get("head"),
            "explanations": [
                {name: getattr(explanation, name) for name in ("emotion", "given", "explanation", "text")}
                for explanation in self.explanations
            ],
        }

    def as_rows(self, path: Path) -> list[dict[str, Any]]:
        """Rows of a table, one for each text."""
        probabilities = {f"p_{emotion}": value for emotion, value in self.probabilities["likelihood"].items()}
        probabilities |= {f"head_{emotion}": value for emotion, value in self.probabilities.get("head", {}).items()}
        return [
            {"image": str(path)}
            | {name: getattr(explanation, name) for name in ("emotion", "given", "explanation")}
            | {"named": self.named}
            | probabilities
            for explanation in self.explanations
        ]

    def lines(self, prompt: str) -> list[str]:
        """The answer as lines to print: the prompt with each text, then the distributions."""
        texts = [f"{prompt} {one.text}" + (" (emotion given)" if one.given else "") for one in self.explanations]
        return [*texts, *self.distribution_lines()]

    def distribution_lines(self) -> list[str]:
        lines = [f"by the likelihood of the names: {in_percent(self.probabilities['likelihood'])}"]
        if "head" in self.probabilities:
            lines.append(f"by its emotion head: {in_percent(self.probabilities['head'])}")
        return [*lines, *self.disagreement()]

    def disagreement(self) -> list[str]:
        """A line that explains it, where the text names another emotion than the most probable one."""
        (best,) = most_probable([list(self.probabilities["likelihood"].values())])
        one = self.explanations[0]
        chosen = (
            one.given or one.given_tokens or one.log_probability is not None
        )  # by the user, by the model's head, drawn
        if chosen or one.emotion in (best, ""):
            return []
        return [
            f"the text names {one.emotion}, but {best} is the likeliest of the nine names: a text is generated token by token, "
            "while these are the probabilities of whole names"
        ]


def in_percent(distribution: dict[str, float]) -> str:
    """The emotions, most probable first; those below one per cent are added up."""
    ordered = sorted(distribution.items(), key=lambda entry: -entry[1])
    printed = [f"{emotion} {100 * value:.0f}%" for emotion, value in ordered if value >= PRINTED]
    if len(printed) < len(ordered):
        printed.append(f"others {100 * sum(value for _, value in ordered if value < PRINTED):.1f}%")
    return ", ".join(printed)
