"""Captions and scores of a whole evaluation against a plain loop that computes everything from scratch, image by image."""

import json

import numpy as np
import pytest
import simplemma
import torch
from PIL import Image

import artEmisX_train
from cococaption import CaptionScorer
from models.sevlm import SEVLM
from models.text2emotion import predict_emotions
from preprocess.build_annotations import coco_annotations
from tests.test_evaluation.tiny import CLASSIFIER
from tests.tools.reference import Reference
from utils import report as report_module
from utils.constants import EMOTIONS, IMAGE_FOLDERS
from utils.data.records import dominant_emotion
from utils.data.text2emotion_files import load_text2emotion
from utils.data.text_codec import TextCodec
from utils.data.vad_lexicon import VADLookup
from utils.evaluation import evaluator as evaluator_module
from utils.evaluation.emotion_metrics import (
    accuracy_and_ece,
    confusion_matrix,
    distribution_distances,
    emotion_alignment,
)
from utils.evaluation.evaluation import read_distributions
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.text_metrics import max_lcs, text_diversity
from utils.files import write_json

EMOTION, EXPLANATION, END = 50259, 50260, 50256
PROMPT = [END, 262, 9942, 318]  # <|endoftext|> the emotion is
IMAGES = IMAGE_FOLDERS[0]


def explanation_of(full: str) -> str:
    """The explanation of a whole text, as the paper's script cuts it."""
    return full.split("because")[-1].strip() if "because" in full else " ".join(full.split()[2:])


# ---- captions --------------------------------------------------------------------------------------------------------


def plain_captions(model: SEVLM, records: dict, codec: TextCodec, data, lexicon) -> dict[int, str]:
    """Open, resize, normalise; look every word up in the lexicon's file; write greedily, all anew at every step.

    A text without an end loses its last token.
    """
    reference = Reference.of(model).eval()
    rows = (line.split("\t") for line in lexicon.read_text(encoding="utf-8").splitlines())
    values = {word: list(map(float, numbers)) for word, *numbers in rows}
    known: dict[int, list[float]] = {}

    def vad_of(ids: np.ndarray) -> np.ndarray:
        for token in set(ids.flatten().tolist()) - set(known):
            word = codec.tokenizer.decode([token]).lstrip()
            known[token] = values.get(simplemma.lemmatize(word, lang="en") if word else word, [0.0, 0.0, 0.0])
        return np.array([[known[token] for token in row] for row in ids.tolist()], dtype=np.float32)

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = {}
    for image_id, record in records.items():
        image = Image.open(data / IMAGES / record["image_name"]).convert("RGB").resize((32, 32), Image.BILINEAR)
        pixels = (torch.tensor(np.array(image)).float() / 255 - torch.tensor(mean)) / torch.tensor(std)
        prompt, segments = (PROMPT, [EMOTION] * 4), (EMOTION, EXPLANATION)
        (row,) = reference.generate(
            pixels.permute(2, 0, 1)[None], *prompt, codec.because_id, segments, vad_of, 25, codec.stop_ids
        )
        found[int(image_id)] = codec.decode(row[:24])
    assert any(any(numbers) for numbers in known.values()), "no word of these texts is in the lexicon"
    return found


@pytest.mark.slow
def test_captions_of_a_whole_evaluation(workspace, codec, tmp_path, monkeypatch):
    """In the middle of a training, with its dropout, through loader, lexicon and files."""
    rng, lexicon = np.random.default_rng(0), tmp_path / "lexicon.txt"
    words = {simplemma.lemmatize(word, lang="en") for word in codec.words() if word.isalpha()}
    lexicon.write_text("".join("\t".join([word, *map(str, rng.uniform(-1, 1, 3))]) + "\n" for word in sorted(words)))
    evaluate, expected = Evaluator.__call__, {}

    def compared(self, model):
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in [*model.decoder.parameters(), *model.vad_encoder.parameters()]:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        self.codec.because_id = 11
        expected.update(plain_captions(model, self.records, self.codec, workspace.data, lexicon))
        return evaluate(self, model)

    monkeypatch.setattr(Evaluator, "__call__", compared)
    records = dict(list(json.loads((workspace.data / "artEmisX_val.json").read_text()).items())[:5])
    write_json(tmp_path / "val.json", records)
    flags = ("--num_train_epochs", "1", "--batch_size", "45", "--dropout", "0.5", "--drop_last_token")
    argv = workspace.argv(tmp_path, *workspace.gpt2, *flags, "--eval_batch_size", "3", "--vad_lexicon", str(lexicon))
    argv += ["--nle_data_val_path", str(tmp_path / "val.json"), "--image_root", str(workspace.data / IMAGES)]
    assert artEmisX_train.main(argv) == 0
    assert len(set(expected.values())) > 1
    names = {image: records[str(image)]["image_name"] for image in expected}
    for kind, texts in (("full", expected), ("exp", {image: explanation_of(full) for image, full in expected.items()})):
        assert json.loads((tmp_path / "results" / f"unf_captions_{kind}_0_0_step.json").read_text()) == [
            {"image_id": image, "caption": text, "image_name": names[image]} for image, text in texts.items()
        ]


# ---- scores ----------------------------------------------------------------------------------------------------------


def majority(record: dict) -> str | None:
    return dominant_emotion(record["origin_emotion_distribution"])


def answers(records: dict) -> dict[int, str]:
    """Texts for the records in their order: right and wrong emotions in turn, explanations that annotators gave."""
    made = {}
    for number, (image, record) in enumerate(records.items()):
        named = [majority(record) or "awe", "fear", "a mood"][number % 3]
        rest = "it seems so" if number % 5 == 4 else f"because {record['explanations'][-1]}"
        made[int(image)] = f"{named} {rest}"
    return made


@pytest.fixture(scope="module")
def split(workspace, tmp_path_factory):
    """Flags of a split of 12 images, three of them without a majority, and its records; one training text is like no other."""
    folder = tmp_path_factory.mktemp("split")
    training = json.loads((workspace.data / "artEmisX_train.json").read_text())
    records = dict(list(training.items())[:12])
    for record in list(records.values())[::4]:
        record["origin_emotion_distribution"] = [0.5, 0.5] + [0.0] * 7
    single = next(image for image, record in training.items() if len(set(record["emotions"])) == 1)
    training[single]["explanations"][0] = list(records.values())[0]["explanations"][-1] + " and it seems so"
    pairs = {image: record for image, record in training.items() if len(set(record["emotions"])) > 1}
    for name, part in (("train", training), ("cl_train", pairs), ("val", records)):
        write_json(folder / f"artEmisX_{name}.json", part)
    write_json(folder / "annotations.json", coco_annotations(records))
    flags = ["--nle_data_train_path", folder / "artEmisX_cl_train.json", "--image_root", workspace.data / IMAGES]
    flags += ["--nle_data_val_path", folder / "artEmisX_val.json", "--annFileExp", folder / "annotations.json"]
    return list(map(str, flags)), records, folder


@pytest.fixture(scope="module")
def scored(workspace, split, tmp_path_factory):
    """A training with one evaluation and a --eval_only of its checkpoint, whose texts are `answers`; results and texts."""
    out, (flags, records, _) = tmp_path_factory.mktemp("scored"), split
    texts = answers(records)

    def captions(model, image, codec, vad_of, *options):
        assert options == (False, 1, None, None)  # greedy, and the text names its own emotion
        assert vad_of.__func__ is VADLookup.for_generated  # words, not the pieces of training texts
        full = [next(left) for _ in image.cls]
        return list(zip(full, map(explanation_of, full), strict=True))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator_module, "caption_batch", captions)
        left = iter(texts.values())
        training = ("--num_train_epochs", "1", "--batch_size", "45", "--use_emotion_loss", "--eval_batch_size", "5")
        assert artEmisX_train.main(workspace.argv(out, *flags, *training)) == 0
        left = iter(texts.values())
        scoring = ("--eval_only", "--load_from_epoch", "best-acc", "--text2emotion", str(CLASSIFIER))
        argv = workspace.argv(out / "again", *flags, *scoring, "--ckpt_path", str(out / "ckpts"))
        assert artEmisX_train.main(argv) == 0
    return out, texts


@pytest.mark.slow
def test_report_has_every_score(scored, split):
    """Those that tests of their own work out by hand; novelty against the images of one emotion as well.

    The evaluation during the training has some of them.
    """
    (out, texts), (_, records, folder) = scored, split
    report = json.loads((out / "again" / "results" / "report.json").read_text())
    explanations = {image: explanation_of(text) for image, text in texts.items()}
    references = [text for record in records.values() for text in record["explanations"]]
    expected = text_diversity(list(explanations.values()), references)
    with CaptionScorer(folder / "annotations.json", ("bleu",)) as scorer:
        expected |= scorer.score(explanations)[0]
    dominant = {int(image): majority(record) for image, record in records.items() if majority(record)}
    expected["sub_acc"] = np.mean([texts[image].split("because")[0].strip() == dominant[image] for image in dominant])
    assert 0 < expected["sub_acc"] < 1 and 0 < expected["Bleu_4"] < 1 and len(dominant) < len(records)
    for source in ("head", "likelihood"):
        distributions = read_distributions(out / "again" / "results" / f"emotion_{source}_best-acc_0_step.json")
        assert list(distributions) == list(texts)
        assert all(sum(row) == pytest.approx(1, abs=1e-5) and min(row) > 0 for row in distributions.values())
        distances = distribution_distances(distributions, records)
        values = {name: np.mean(list(of_images.values())) for name, of_images in distances.items()}
        values |= accuracy_and_ece(distributions, records)
        expected |= {f"{source}_{name}": value for name, value in values.items()}
    classifier, vocabulary = load_text2emotion(CLASSIFIER)
    emotions = predict_emotions(classifier, list(explanations.values()), vocabulary)
    predicted = dict(zip(explanations, emotions, strict=True))
    votes = {int(image): record["emotions"] for image, record in records.items()}
    for name, agreed in emotion_alignment(predicted, votes).items():
        expected |= {name: np.mean(list(agreed.values())), f"{name}_images": len(agreed)}
    named = {image: text.partition(" because")[0] for image, text in texts.items() if " because" in text}
    agreed = [predicted[image] == name for image, name in named.items() if name in EMOTIONS]
    expected["self_consistency"] = np.mean(agreed)
    assert 0 < np.mean(agreed) < 1 and len(agreed) < len(texts) and 0 < expected["EA_more_than_half"] < 1
    novelty = {}
    for part in ("train", "cl_train"):
        training = json.loads((folder / f"artEmisX_{part}.json").read_text())
        others = [text for record in training.values() for text in record["explanations"]]
        novelty[part] = np.mean(max_lcs(list(explanations.values()), others))
    expected["max_lcs"] = novelty["train"]
    assert novelty["train"] > novelty["cl_train"]
    assert {name: report["scores"][name] for name in expected} == pytest.approx(expected)
    during = json.loads((out / "results" / "scores_exp_0_0_step.json").read_text())
    names = {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "sub_acc", "macro_F1", "weighted_F1", "head_acc", "head_ece"}
    assert during == pytest.approx({name: report["scores"][name] for name in names})
    assert (report["images"], report["images_with_majority"]) == (len(records), len(dominant))
    assert report["references_per_image"] == round(len(references) / len(records), 2) > 1
    assert report["confusion_matrix"] == confusion_matrix(texts, records).tolist()


@pytest.mark.slow
def test_captions_scored_as_predictions_give_the_scores_of_eval_only(workspace, scored, split, tmp_path):
    folder, of_eval_only = split[2], scored[0] / "again" / "results"
    argv = ["--predictions", of_eval_only / "unf_captions_full_best-acc_0_step.json", "--captions", "full"]
    argv += ["--records", folder / "artEmisX_val.json", "--annFileExp", folder / "annotations.json"]
    argv += ["--metrics", "bleu", "--text2emotion", CLASSIFIER, "--json", tmp_path / "predictions.json"]
    report_module.main(list(map(str, [*argv, "--vad_lexicon", workspace.data / "demo-VAD-Lexicon.txt"])))
    of_model = json.loads((of_eval_only / "report.json").read_text())
    of_predictions = json.loads((tmp_path / "predictions.json").read_text())
    names = {name for name in of_model["scores"] if name.startswith(("head_", "likelihood_"))}
    assert len(names) == 2 * 5 and names <= set(of_model["intervals"])
    for key in ("scores", "intervals"):
        assert of_predictions[key] == {name: value for name, value in of_model[key].items() if name not in names}
    assert "vad_distance" in of_predictions["scores"]
    assert of_predictions["confusion_matrix"] == of_model["confusion_matrix"]
