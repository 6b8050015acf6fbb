"""Captions of other programs: every form gives the same scores, bad files are refused in one line."""

import json
import re

import numpy as np
import pytest

from cococaption import CaptionScorer
from utils import report
from utils.errors import InputError
from utils.evaluation.emotion_metrics import emotion_accuracy
from utils.evaluation.evaluation import score_captions
from utils.evaluation.image_scores import BLEU, image_scores, resampled_weights
from utils.evaluation.predictions import read_predictions
from utils.files import sha256, write_json

EMOTIONS = ("awe", "fear", "sadness")
WORDS = "the sky is dark and a big tree looks sad it makes me feel calm by the sea".split()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Flags of 12 invented images with three references each, a folder, and captions, image id -> (emotion, explanation)."""
    folder, draw = tmp_path_factory.mktemp("predictions"), np.random.default_rng(3)
    text = lambda: " ".join(draw.choice(WORDS, size=draw.integers(5, 12)))  # noqa: E731
    records, notes, captions = {}, [], {}
    for image in range(1, 13):
        distribution, explanations = [0.0] * 9, [text() for _ in range(3)]
        distribution[(1, 6, 7)[image % 3]], distribution[8] = (0.7, 0.3) if image % 4 else (0.5, 0.5)
        records[str(image)] = {
            "emotions": ["awe", "fear", "sadness"],
            "explanations": explanations,
            "image_name": f"Cubism/a_{image}.jpg",
            "origin_emotion_distribution": distribution,
        }
        notes += [{"id": 3 * image + n, "image_id": image, "caption": given} for n, given in enumerate(explanations)]
        captions[image] = (EMOTIONS[draw.integers(3)], f"{' '.join(explanations[0].split()[:5])} {text()}")
    write_json(folder / "records.json", records)
    write_json(folder / "references.json", {"images": [{"id": i} for i in captions], "annotations": notes})
    flags = ["--records", str(folder / "records.json"), "--annFileExp", str(folder / "references.json")]
    return flags + ["--metrics", "bleu", "rouge", "cider"], folder, captions, records


FORMS = {
    "full": lambda image, emotion, text: {"image_id": image, "caption": f"{emotion} because {text}"},
    "apart": lambda image, emotion, text: {"image_id": image, "emotion": emotion, "explanation": text},
    "alone": lambda image, emotion, text: {"image_id": image, "caption": text},
}


def scored(path, rows: list[dict], flags: list[str], *more: object) -> dict:
    """The report of predictions that are written to `path`."""
    write_json(path, rows)
    report.main(["--predictions", str(path), *flags, *map(str, more)])
    return json.loads(path.with_name(f"{path.stem}_report.json").read_text())


def test_control_characters_count_as_blanks(split, tmp_path):
    """The tokenizer reads a caption per line: a line break in one would shift all others."""
    flags, _, captions, _ = split
    plain = [FORMS["full"](image, *caption) for image, caption in captions.items()]
    odd = [row | {"caption": row["caption"].replace(" because ", " because x\u2028y\n")} for row in plain]
    blank = [row | {"caption": row["caption"].replace(" because ", " because x y ")} for row in plain]
    found, expected = (
        scored(tmp_path / f"{name}.json", rows, flags) for name, rows in (("odd", odd), ("blank", blank))
    )
    assert found["scores"] == expected["scores"]


def test_every_form_gives_the_same_scores(split, tmp_path, capsys):
    flags, _, captions, _ = split
    reports, more = {}, ("--test_set", "affection", "--append_to", tmp_path / "all.csv")
    for form, row in FORMS.items():
        rows = [row(image, *caption) for image, caption in reversed(captions.items())]
        reports[form] = scored(tmp_path / f"{form}.json", rows, flags, *more)
        shown = capsys.readouterr().out
        assert ("no ACC" in shown) == (form == "alone") and "| LLaVA-OV (published)" in shown
        images = json.loads((tmp_path / f"{form}_report_images.json").read_text())
        emotion, text = captions[1]
        assert images["captions"][0] == (text if form == "alone" else f"{emotion} because {text}")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 1 + 3
    assert reports["full"]["scores"] == reports["apart"]["scores"] and 0 < reports["full"]["scores"]["sub_acc"] < 1
    alone = reports["alone"]["scores"]
    of_emotions = ("sub_acc", "macro_F1", "weighted_F1")
    assert alone == {name: value for name, value in reports["full"]["scores"].items() if name not in of_emotions}
    for name, (low, high) in reports["full"]["intervals"].items():
        assert low <= reports["full"]["scores"][name] <= high
    assert not {"Unique", "distinct_words"} & set(reports["full"]["intervals"])


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
    rows = [FORMS["apart"](image, *caption) for image, caption in split[2].items()]
    change(rows)
    (tmp_path / "bad.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=message) as caught:
        read_predictions(tmp_path / "bad.json", split[3])
    assert str(caught.value).isprintable() and str(tmp_path / "bad.json") in str(caught.value)


def read_mixed(split, path, change, odd: int, rest: str, kind: str | None = None) -> tuple[dict, dict]:
    """A file whose first `odd` captions are what `change` makes of emotion and text, and whose others are of form `rest`."""
    rows = [
        {"image_id": image, "caption": change(*of)} if image <= odd else FORMS[rest](image, *of)
        for image, of in split[2].items()
    ]
    write_json(path, rows)
    return read_predictions(path, split[3], kind)


def test_half_of_the_captions_are_not_most(split, tmp_path):
    """Whole texts or explanations: more than half must say what a file holds."""
    captions = split[2]

    def read(full: int, kind: str | None = None, emotion: str | None = None) -> tuple[dict, dict]:
        change = lambda named, text: f"{emotion or named} because {text}"  # noqa: E731
        return read_mixed(split, tmp_path / "mixed.json", change, full, "alone", kind)

    with pytest.raises(InputError, match="only 6 of 12 captions begin with an emotion and because; .*--captions full"):
        read(6)
    assert read(7)[0][7] == f"{captions[7][0]} because {captions[7][1]}" and read(7)[0][8] == captions[8][1]
    assert read(6, kind="full")[0][6].startswith(captions[6][0])
    assert read(6, emotion="joy")[0] == {}
    with pytest.raises(InputError, match="7 of 12 captions may name an emotion"):
        read(7, emotion="joy")


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


def spelled(form: str, emotion: str, text: str) -> str:
    return form.format(e=emotion, E=emotion.title(), EE=emotion.upper(), _=emotion.replace(" ", "_"), t=text)


@pytest.mark.parametrize("form", SPELLINGS)
def test_other_spellings_are_understood(split, tmp_path, form):
    """A file of one spelling is the same file in the paper's: emotions and explanations, together or apart."""
    emotions = ("awe", "something else")
    captions = {image: (emotions[image % 2], f"it's {text}") for image, (_, text) in split[2].items()}
    rows = [{"image_id": image, "caption": spelled(form, *caption)} for image, caption in captions.items()]
    write_json(tmp_path / "spelled.json", rows)
    full, explanations = read_predictions(tmp_path / "spelled.json", split[3])
    assert full == {image: f"{emotion} because {text}" for image, (emotion, text) in captions.items()}
    assert explanations == {image: text for image, (_, text) in captions.items()}
    for row in rows:
        row["emotion"] = re.split("(?i)because", row["caption"])[0]
        row["explanation"] = f"Because {explanations[row['image_id']]}"
    write_json(tmp_path / "apart.json", rows)
    assert read_predictions(tmp_path / "apart.json", split[3]) == (full, explanations)


OTHERS = ("joy because {t}", "awe and fear because {t}", "I don't feel awe because {t}", "Sad, Because {t}", "Awe: {t}")


@pytest.mark.parametrize("form", OTHERS)
def test_spellings_that_are_not_understood_are_named(split, tmp_path, form):
    """A file of them is refused without --captions; a few among others are counted."""
    change = lambda emotion, text: spelled(form, emotion, text)  # noqa: E731
    read = lambda *odd: read_mixed(split, tmp_path / "odd.json", change, *odd)  # noqa: E731
    first = f"e.g. {re.escape(repr(change(*split[2][1])[:60]))} of image 1"
    with pytest.raises(InputError, match=f"12 of 12 captions may name an emotion, .*, {first}; .*--captions"):
        read(12, "full")
    assert read(12, "full", "explanation")[1][1] == change(*split[2][1])
    (note,) = report.notes(*read(2, "full"), None)
    assert re.match(f"2 of 12 captions do not begin .*, {first}: .* counts as wrong", note)
    _, note = report.notes(*read(3, "alone"), None)
    assert re.match(f"3 of them may name one in words .* {first}", note)


def test_references_in_another_order_and_of_other_images(split, tmp_path):
    """The annotation file may be of a larger split, whose images are not counted."""
    flags, folder, captions, _ = split
    rows = [FORMS["full"](image, *caption) for image, caption in captions.items()]
    plain = scored(tmp_path / "plain.json", rows, flags)
    annotations = json.loads((folder / "references.json").read_text())
    annotations["images"] = [{"id": 99}, *annotations["images"][::-1]]
    more = [{"id": 1000 + n, "image_id": 99, "caption": "the sky"} for n in range(50)]
    annotations["annotations"] = more + annotations["annotations"][::-1]
    write_json(tmp_path / "more.json", annotations)
    other = scored(tmp_path / "full.json", rows, flags, "--annFileExp", tmp_path / "more.json")
    assert other["references_per_image"] == 3
    assert other["scores"] == pytest.approx(plain["scores"]) and other["intervals"].keys() == plain["intervals"].keys()
    hashes = [
        json.loads((tmp_path / f"{name}_report_images.json").read_text())["references"] for name in ("plain", "full")
    ]
    assert hashes[0] == hashes[1] and other["references_sha256"] != plain["references_sha256"]


def test_novelty_is_measured_against_the_whole_training_split(split, tmp_path):
    """Also where the file of images with several emotions is given; the one beside --records is the default."""
    flags, _, captions, records = split
    rows = [FORMS["full"](image, *caption) for image, caption in captions.items()]
    for name, part in (("a", records), ("b", {"1": records["1"]})):
        write_json(tmp_path / name / "artEmisX_train.json", part)
        write_json(tmp_path / name / "artEmisX_cl_train.json", {"2": records["2"]})
    whole, pairs, other = (
        scored(tmp_path / "full.json", rows, flags, "--nle_data_train_path", tmp_path / train)
        for train in ("a/artEmisX_train.json", "a/artEmisX_cl_train.json", "b/artEmisX_train.json")
    )
    write_json(tmp_path / "a" / "records.json", records)
    beside = scored(tmp_path / "full.json", rows, flags, "--records", tmp_path / "a" / "records.json")
    assert whole["scores"] == pairs["scores"] == beside["scores"]
    assert whole["scores"]["max_lcs"] > other["scores"]["max_lcs"]
    for made in (whole, pairs, beside):
        assert made["training_texts"] == "artEmisX_train.json"
        assert made["training_texts_sha256"] == sha256(tmp_path / "a" / "artEmisX_train.json")


def test_samples_are_what_rescoring_gives(split, tmp_path):
    """BLEU, ROUGE-L and accuracy of drawn images, which are scored again as a split of their own."""
    _, folder, captions, records = split
    full = {image: f"{emotion} because {text}" for image, (emotion, text) in captions.items()}
    explanations = {image: text for image, (_, text) in captions.items()}
    metrics, weights, rescored = ("bleu", "rouge"), resampled_weights(12, 3, seed=1), []
    with CaptionScorer(folder / "references.json", metrics) as scorer:
        fast = image_scores(score_captions(scorer, records, full, explanations), records).scores(weights)
        references = scorer.references
    for row in weights.astype(int):
        drawn = [image for image, times in zip(captions, row, strict=True) for _ in range(times)]
        notes = [(number, text) for number, image in enumerate(drawn, 1) for text in references[image]]
        notes = [{"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(notes)]
        write_json(tmp_path / "r.json", {"images": [{"id": n} for n in range(1, 13)], "annotations": notes})
        with CaptionScorer(tmp_path / "r.json", metrics) as scorer:
            scores = scorer.score({number: explanations[image] for number, image in enumerate(drawn, 1)})[0]
        again = {str(number): records[str(image)] for number, image in enumerate(drawn, 1)}
        scores["sub_acc"] = emotion_accuracy({n: full[image] for n, image in enumerate(drawn, 1)}, again)[0]
        rescored.append(scores)
    for name in (*BLEU, "ROUGE_L", "sub_acc"):
        assert fast[name] == pytest.approx([scores[name] for scores in rescored], abs=1e-9), name
        assert len(set(fast[name].round(6))) > 1
