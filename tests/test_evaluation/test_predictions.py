"""Captions of other programs: every form gives the same scores, bad files are refused in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from preprocess.build_annotations import coco_annotations
from utils import report
from utils.errors import InputError
from utils.evaluation.predictions import read_predictions
from utils.files import sha256, write_json

EMOTIONS = ("awe", "fear", "sadness")
WORDS = "the sky is dark and a big tree looks sad it makes me feel calm by the sea".split()


class Split(NamedTuple):
    """12 invented images with three references each."""

    flags: list[str]
    folder: Path
    records: dict
    captions: dict[int, tuple[str, str]]  # image id -> emotion, explanation

    def score(self, path: Path, caption_of: Callable, *more: object) -> dict:
        """The report of predictions that are written to `path`: `caption_of` image id, emotion and explanation."""
        write_json(path, [caption_of(image, *of) for image, of in reversed(self.captions.items())])
        report.main(["--predictions", str(path), *self.flags, *map(str, more)])
        return json.loads(path.with_name(f"{path.stem}_report.json").read_text())


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    folder, draw = tmp_path_factory.mktemp("predictions"), np.random.default_rng(3)

    def text() -> str:
        return " ".join(draw.choice(WORDS, size=draw.integers(5, 12)))

    records, captions = {}, {}
    for image in range(1, 13):
        distribution, explanations = [0.0] * 9, [text() for _ in range(3)]
        distribution[(1, 6, 7)[image % 3]], distribution[8] = (0.7, 0.3) if image % 4 else (0.5, 0.5)
        records[str(image)] = {
            "emotions": ["awe", "fear", "sadness"],
            "explanations": explanations,
            "image_name": f"Cubism/a_{image}.jpg",
            "origin_emotion_distribution": distribution,
        }
        captions[image] = (EMOTIONS[draw.integers(3)], f"{' '.join(explanations[0].split()[:5])} {text()}")
    write_json(folder / "records.json", records)
    write_json(folder / "references.json", coco_annotations(records))
    write_json(folder / "artEmisX_train.json", records)
    write_json(folder / "artEmisX_cl_train.json", {"2": records["2"]})
    flags = ["--records", str(folder / "records.json"), "--annFileExp", str(folder / "references.json")]
    return Split([*flags, "--metrics", "bleu", "rouge", "cider"], folder, records, captions)


FORMS = {
    "full": lambda image, emotion, text: {"image_id": image, "caption": f"{emotion} because {text}"},
    "apart": lambda image, emotion, text: {"image_id": image, "emotion": emotion, "explanation": text},
    "alone": lambda image, emotion, text: {"image_id": image, "caption": text},
}


def test_every_form_gives_the_same_scores(split, tmp_path, capsys):
    """Training texts are those beside --records, or beside the file of images with several emotions that is given."""
    reports, training = {}, {"apart": ("--nle_data_train_path", split.folder / "artEmisX_cl_train.json")}
    for form, row in FORMS.items():
        more = ("--test_set", "affection", "--append_to", tmp_path / "all.csv", *training.get(form, ()))
        reports[form] = split.score(tmp_path / f"{form}.json", row, *more)
        assert reports[form]["training_texts_sha256"] == sha256(split.folder / "artEmisX_train.json")
        shown = capsys.readouterr().out
        assert ("no ACC" in shown) == (form == "alone") and "| LLaVA-OV (published)" in shown
        images = json.loads((tmp_path / f"{form}_report_images.json").read_text())
        emotion, text = split.captions[1]
        assert images["captions"][0] == (text if form == "alone" else f"{emotion} because {text}")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 3
    scores = reports["full"]["scores"]
    assert reports["apart"]["scores"] == scores and 0 < scores["sub_acc"] < 1 < scores["max_lcs"]
    of_text = scores.keys() - {"sub_acc", "macro_F1", "weighted_F1"}
    assert reports["alone"]["scores"] == {name: scores[name] for name in of_text}
    # the tokenizer reads a caption per line: a line break in one would shift all others

    def in_lines(image: int, *of: str) -> dict:
        return {"image_id": image, "caption": " because ".join(of).replace(" ", "\u2028\n")}

    assert split.score(tmp_path / "lines.json", in_lines)["scores"] == scores
    intervals = reports["full"]["intervals"]
    assert all(low <= scores[name] <= high for name, (low, high) in intervals.items())
    assert not {"Unique", "distinct_words"} & intervals.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), "lacks 1 of the 12 images"),
        (lambda rows: rows.append(rows[0]), r"record 12: a second caption for image 1 \(the first is in record 0\)"),
        (lambda rows: rows[2].update(image_id=99), "record 2: image 99 is not in the split"),
        (lambda rows: rows[2].update(image_id="3"), "record 2: image_id '3' is not an integer"),
        (lambda rows: rows[1].update(emotion="joy"), "record 1: emotion 'joy' is not one of the nine"),
        (lambda rows: rows[1].pop("emotion"), "record 1: has no text under emotion and explanation"),
        (lambda rows: rows[1].update(explanation="\ud800"), "record 1: its text holds half a character"),
        (lambda rows: rows.clear(), "at least one record"),
    ],
)
def test_bad_predictions(split, tmp_path, change, message):
    rows = [FORMS["apart"](image, *caption) for image, caption in split.captions.items()]
    change(rows)
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=message) as caught:
        read_predictions(tmp_path / "bad.json", split.records)
    assert str(caught.value).isprintable() and str(tmp_path / "bad.json") in str(caught.value)


# ---- spellings -------------------------------------------------------------------------------------------------------


def read(split: Split, captions: list[str], kind: str | None = None) -> tuple[dict, dict]:
    """Whole texts and explanations of a file of 12 captions."""
    write_json(
        split.folder / "a.json", [{"image_id": image, "caption": text} for image, text in enumerate(captions, 1)]
    )
    return read_predictions(split.folder / "a.json", split.records, kind)


FULL, ALONE, JOY = "awe because it is dark", "the sky is dark", "joy because it is dark"


def test_half_of_the_captions_are_not_most(split):
    """Whole texts or explanations: more than half must say what a file holds."""
    with pytest.raises(InputError, match="only 6 of 12 captions begin with an emotion and because; .*--captions full"):
        read(split, [FULL] * 6 + [ALONE] * 6)
    for file in ([FULL] * 7 + [ALONE] * 5, [FULL] * 6 + [ALONE] * 6):
        assert list(read(split, file, "full")[0].values()) == file
    assert read(split, [FULL] * 7 + [ALONE] * 5) == read(split, [FULL] * 7 + [ALONE] * 5, "full")
    assert read(split, [JOY] * 6 + [ALONE] * 6)[0] == {}
    with pytest.raises(InputError, match="7 of 12 captions may name an emotion"):
        read(split, [JOY] * 7 + [ALONE] * 5)


SPELLINGS = (
    "{E} because {t}",
    "{e}, because {t}",
    " {EE}  because {t} ",
    "The emotion is {e} because {t}",
    "the emotion evoked by this painting is {E}: because {t}\n",
    "Emotion: {e}. Because {t}",
    "{_} because {t}",
    "“{E}” because {t}",
    "**{EE}** - because: {t}",
    "This painting makes me feel {e} because {t}",
    "1. {E}\nbecause {t}",
)


@pytest.mark.parametrize("form", SPELLINGS)
def test_other_spellings_are_understood(split, tmp_path, form):
    """A file of one spelling is the same file in the paper's: emotions and explanations, together or apart."""
    captions, expected = [], {}
    for image in split.captions:
        emotion, text = ("awe", "something else")[image % 2], f"it's {image} trees"
        forms = {"e": emotion, "E": emotion.title(), "EE": emotion.upper(), "_": emotion.replace(" ", "_")}
        captions.append(form.format(t=text, **forms))
        expected[image] = f"{emotion} because {text}"
    full, explanations = read(split, captions)
    assert full == expected and explanations == {image: f"it's {image} trees" for image in expected}
    rows = [
        {
            "image_id": image,
            "emotion": re.split("(?i)because", caption)[0],
            "explanation": f"Because it's {image} trees",
        }
        for image, caption in enumerate(captions, 1)
    ]
    write_json(tmp_path / "apart.json", rows)
    assert read_predictions(tmp_path / "apart.json", split.records) == (full, explanations)


OTHERS = (
    JOY,
    "awe and fear because of it",
    "I don't feel awe because of it",
    "Sad, Because of it",
    "Awe: the sky is dark",
)


@pytest.mark.parametrize("other", OTHERS)
def test_spellings_that_are_not_understood_are_named(split, other):
    """A file of them is refused without --captions; a few among others are counted."""
    first = f"e.g. {re.escape(repr(other))} of image 1"
    with pytest.raises(InputError, match=f"12 of 12 captions may name an emotion, .*, {first}; .*--captions"):
        read(split, [other] * 12)
    assert read(split, [other] * 12, "explanation")[1][1] == other
    (note,) = report.notes(*read(split, [other] * 2 + [FULL] * 10), None)
    assert re.match(f"2 of 12 captions do not begin .*, {first}: .* counts as wrong", note)
    _, note = report.notes(*read(split, [other] * 3 + [ALONE] * 9), None)
    assert re.match(f"3 of them may name one in words .* {first}", note)


# ---- the split's files -----------------------------------------------------------------------------------------------


def test_references_in_another_order_and_of_other_images(split, tmp_path):
    """The annotation file may be of a larger split, whose images are not counted."""
    plain = split.score(tmp_path / "plain.json", FORMS["full"])
    annotations = json.loads((split.folder / "references.json").read_text())
    annotations["images"] = [{"id": 99}, *annotations["images"][::-1]]
    more = [{"id": 1000 + n, "image_id": 99, "caption": "the sky"} for n in range(50)]
    annotations["annotations"] = more + annotations["annotations"][::-1]
    write_json(tmp_path / "more.json", annotations)
    other = split.score(tmp_path / "other.json", FORMS["full"], "--annFileExp", tmp_path / "more.json")
    assert other["references_per_image"] == 3 and other["references_sha256"] != plain["references_sha256"]
    assert other["scores"] == pytest.approx(plain["scores"]) and other["intervals"].keys() == plain["intervals"].keys()
    of_images = [json.loads((tmp_path / f"{name}_report_images.json").read_text()) for name in ("plain", "other")]
    assert of_images[0]["references"] == of_images[1]["references"]
