"""Captions of other programs: every form gives the same scores, bad files are refused in one line; comparing two runs."""

import json
import re

import numpy as np
import pytest

from cococaption import CaptionScorer
from tests.conftest import REPOSITORY
from utils import compare, report
from utils.errors import InputError
from utils.evaluation.emotion_metrics import emotion_accuracy
from utils.evaluation.evaluation import read_predictions, score_captions
from utils.evaluation.image_scores import BLEU, image_scores, resampled_weights
from utils.evaluation.report import EmotionClassifier
from utils.files import sha256, write_json

EMOTIONS = ("awe", "fear", "sadness")
CLASSIFIER = REPOSITORY / "tests/data/artemis/preprocess_data_nets/txt_to_emotion/lstm_based/best_model.pt"
WORDS = "the sky is dark and a big tree looks sad it makes me feel calm by the sea".split()


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Flags of 12 invented images with three references each, a folder, and captions, image id -> (emotion, explanation)."""
    folder, draw = tmp_path_factory.mktemp("predictions"), np.random.default_rng(3)
    text = lambda: " ".join(draw.choice(WORDS, size=draw.integers(5, 12)))  # noqa: E731
    records, notes, captions = {}, [], {}
    for image in range(1, 13):
        distribution = [0.0] * 9
        distribution[(1, 6, 7)[image % 3]], distribution[8] = (0.7, 0.3) if image % 4 else (0.5, 0.5)
        explanations = [text() for _ in range(3)]
        records[str(image)] = {
            "emotions": ["awe", "fear", "sadness"],
            "explanations": explanations,
            "image_name": f"Cubism/a_{image}.jpg",
            "origin_emotion_distribution": distribution,
        }
        notes += [
            {"id": 3 * image + n, "image_id": image, "caption": caption} for n, caption in enumerate(explanations)
        ]
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


def test_every_form_gives_the_same_scores(split, tmp_path, capsys):
    flags, _, captions, _ = split
    reports = {}
    for form, row in FORMS.items():
        write_json(tmp_path / f"{form}.json", [row(image, *caption) for image, caption in reversed(captions.items())])
        report.main(["--predictions", str(tmp_path / f"{form}.json"), *flags])
        reports[form] = json.loads((tmp_path / f"{form}_report.json").read_text())
        assert ("no ACC" in capsys.readouterr().out) == (form == "alone")
    assert reports["full"]["scores"] == reports["apart"]["scores"] and 0 < reports["full"]["scores"]["sub_acc"] < 1
    alone = reports["alone"]["scores"]
    assert alone == {name: value for name, value in reports["full"]["scores"].items() if name != "sub_acc"}
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


def test_mixed_captions_are_refused_unless_named(split, tmp_path):
    rows = [FORMS["full" if image < 3 else "alone"](image, *caption) for image, caption in split[2].items()]
    write_json(tmp_path / "mixed.json", rows)
    with pytest.raises(InputError, match="only 2 of 12 captions begin with an emotion"):
        read_predictions(tmp_path / "mixed.json", split[3])
    full, explanations = read_predictions(tmp_path / "mixed.json", split[3], "full")
    assert full[1].startswith(split[2][1][0]) and explanations[1] == split[2][1][1]


SPELLINGS = (
    "{E} because {t}",
    "{e}, because {t}",
    " {EE}  because {t} ",
    "The emotion is {e} because {t}",
    "the emotion evoked by this painting is {E}: because {t}\n",
    "Emotion: {e}. Because {t}",
    "{_} because {t}",
    '"{e} Because {t}"',
    "“{E}” because {t}",
    "**{EE}** - because: {t}",
    "This painting makes me feel {e} because {t}",
    "1. {E}\nbecause {t}",
)


def spelled(form: str, emotion: str, text: str) -> str:
    return form.format(e=emotion, E=emotion.title(), EE=emotion.upper(), _=emotion.replace(" ", "_"), t=text)


@pytest.mark.parametrize("form", SPELLINGS)
def test_other_spellings_are_understood(split, tmp_path, form):
    """A file of one spelling is the same file in the paper's: emotions and explanations."""
    emotions = ("awe", "something else")
    captions = {image: (emotions[image % 2], f"it's {text}") for image, (_, text) in split[2].items()}
    rows = [{"image_id": image, "caption": spelled(form, *caption)} for image, caption in captions.items()]
    write_json(tmp_path / "spelled.json", rows)
    full, explanations = read_predictions(tmp_path / "spelled.json", split[3])
    assert full == {image: f"{emotion} because {text}" for image, (emotion, text) in captions.items()}
    assert explanations == {image: text for image, (_, text) in captions.items()}
    if "{t}" in form.partition("because")[2]:  # the fields of a file that has them apart
        for row in rows:
            row["emotion"] = row["caption"].partition("because")[0]
            row["explanation"] = f"Because {explanations[row['image_id']]}"
        write_json(tmp_path / "apart.json", rows)
        assert read_predictions(tmp_path / "apart.json", split[3]) == (full, explanations)


OTHERS = ("joy because {t}", "awe and fear because {t}", "I don't feel awe because {t}", "Sad, Because {t}", "Awe: {t}")


@pytest.mark.parametrize("form", OTHERS)
def test_spellings_that_are_not_understood_are_named(split, tmp_path, capsys, form):
    """A file of them is refused without --captions; a few among others are counted."""
    flags, _, captions, records = split
    for name, odd in (("all", 12), ("some", 2), ("few among explanations", 3)):
        rest = FORMS["alone" if "alone" in name or "explanations" in name else "full"]
        rows = [
            {"image_id": image, "caption": spelled(form, *of)} if image <= odd else rest(image, *of)
            for image, of in captions.items()
        ]
        write_json(tmp_path / f"{name}.json", rows)
    first = re.escape(repr(spelled(form, *captions[1])[:60]))
    with pytest.raises(
        InputError, match=f"12 of 12 captions may name an emotion, .*, e.g. {first} of image 1; .*--captions"
    ):
        read_predictions(tmp_path / "all.json", records)
    assert read_predictions(tmp_path / "all.json", records, "explanation")[1][1] == spelled(form, *captions[1])
    report.main(["--predictions", str(tmp_path / "some.json"), *flags])
    assert re.search(
        f"2 of 12 captions do not begin .*, e.g. {first} of image 1: .* counts as wrong", capsys.readouterr().out
    )
    report.main(["--predictions", str(tmp_path / "few among explanations.json"), *flags])
    assert re.search(f"3 of them may name one in words .* e.g. {first} of image 1", capsys.readouterr().out)


def test_references_of_other_images_are_not_counted(split, tmp_path):
    """The annotation file may be of a larger split."""
    flags, folder, captions, _ = split
    annotations = json.loads((folder / "references.json").read_text())
    annotations["images"] += [{"id": 99}]
    annotations["annotations"] += [{"id": 1000 + n, "image_id": 99, "caption": "the sky"} for n in range(50)]
    write_json(tmp_path / "more.json", annotations)
    write_json(tmp_path / "full.json", [FORMS["full"](image, *caption) for image, caption in captions.items()])
    report.main(["--predictions", str(tmp_path / "full.json"), *flags, "--annFileExp", str(tmp_path / "more.json")])
    assert json.loads((tmp_path / "full_report.json").read_text())["references_per_image"] == 3


def test_novelty_against_other_training_texts_is_not_compared(split, tmp_path, capsys):
    """The report names the training texts, all of them where those with several emotions are given."""
    flags, _, captions, records = split
    write_json(tmp_path / "full.json", [FORMS["full"](image, *caption) for image, caption in captions.items()])
    for name, part in (("a", records), ("b", {"1": records["1"]})):
        write_json(tmp_path / name / "artEmisX_train.json", part)
        write_json(tmp_path / name / "artEmisX_cl_train.json", {"2": records["2"]})
    for name, train in (
        ("a", "a/artEmisX_train.json"),
        ("a2", "a/artEmisX_cl_train.json"),
        ("b", "b/artEmisX_train.json"),
    ):
        out = ["--json", str(tmp_path / name / "report.json"), "--nle_data_train_path", str(tmp_path / train)]
        report.main(["--predictions", str(tmp_path / "full.json"), *flags, *out])
    made = {name: json.loads((tmp_path / name / "report.json").read_text()) for name in ("a", "a2", "b")}
    assert made["a"]["training_texts"] == "artEmisX_train.json"
    assert made["a"]["training_texts_sha256"] == sha256(tmp_path / "a" / "artEmisX_train.json")
    assert (
        made["a"]["scores"] == made["a2"]["scores"] and made["a"]["scores"]["max_lcs"] > made["b"]["scores"]["max_lcs"]
    )
    for other, words in (("a2", "max-LCS "), ("b", "left out: max-LCS, as the runs differ in training texts")):
        capsys.readouterr()
        compare.main([str(tmp_path / "a"), str(tmp_path / other)])
        shown = capsys.readouterr().out
        assert words in shown and shown.count("max-LCS") == 1


def test_samples_are_what_rescoring_gives(split, tmp_path):
    """BLEU, ROUGE-L and accuracy of drawn images, which are scored again as a split of their own."""
    _, folder, captions, records = split
    full = {image: f"{emotion} because {text}" for image, (emotion, text) in captions.items()}
    explanations = {image: text for image, (_, text) in captions.items()}
    metrics, weights, rescored = ("bleu", "rouge"), resampled_weights(12, 5, seed=1), []
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


def test_compare(split, tmp_path, capsys):
    flags, folder, captions, _ = split
    other = captions | {7: (captions[7][0], "nothing of this")}
    for name, texts in (("a", captions), ("b", other)):
        write_json(tmp_path / f"{name}.json", [FORMS["full"](image, *caption) for image, caption in texts.items()])
        report.main(["--predictions", str(tmp_path / f"{name}.json"), "--json", str(tmp_path / name / "report.json"), *flags])  # fmt: skip
    capsys.readouterr()
    compare.main([str(tmp_path / "a"), str(tmp_path / "b" / "report.json"), "--json", str(tmp_path / "c.json")])
    shown, found = capsys.readouterr().out, json.loads((tmp_path / "c.json").read_text())
    assert found["pictures"][0]["image_name"] == "Cubism/a_7.jpg" and "nothing of this" in shown
    assert found["scores"]["sub_acc"]["difference"] == 0 and found["scores"]["sub_acc"]["p"] == 1
    assert found["scores"]["ROUGE_L"]["difference"] < 0

    images = tmp_path / "b" / "report_images.json"
    good = json.loads(images.read_text())
    for change, message in (
        ({"references": "x"}, "against other references"),
        ({"images": good["images"][::-1]}, "other images"),
        ({"sums": None}, "does not hold the scores of single images"),
    ):
        images.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=message):
            compare.main([str(tmp_path / "a"), str(tmp_path / "b")])


def test_the_emotion_classifier_reads_explanations(split, tmp_path, monkeypatch):
    """Not whole captions, whose first word would give the emotion away."""
    flags, _, captions, _ = split
    read = {}

    def emotions(self, texts):
        read.update(texts)
        return dict.fromkeys(texts, "awe")

    monkeypatch.setattr(EmotionClassifier, "emotions", emotions)
    write_json(tmp_path / "full.json", [FORMS["full"](image, *caption) for image, caption in captions.items()])
    report.main(["--predictions", str(tmp_path / "full.json"), *flags, "--text2emotion", str(CLASSIFIER)])
    assert read == {image: text for image, (_, text) in captions.items()}
    scores = json.loads((tmp_path / "full_report.json").read_text())["scores"]
    assert scores["self_consistency"] == np.mean([emotion == "awe" for emotion, _ in captions.values()])
