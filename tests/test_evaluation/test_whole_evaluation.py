"""Captions and scores of a whole evaluation against a plain loop that computes everything from scratch, image by image."""

import json
import math
from collections import Counter

import numpy as np
import pytest
import simplemma
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, GPT2Config

import artEmisX_train
from cococaption import CaptionScorer
from cococaption.tokenizer import printable
from models.config import SEVLMConfig
from models.decoder import Explainer
from models.image_encoder import ImageEncoder, ImageFeatures
from models.sevlm import SEVLM
from models.text2emotion import predict_emotions
from preprocess.build_annotations import coco_annotations
from tests.conftest import REPOSITORY, TINY_GPT2, TINY_VIT
from tests.tools.reference import Reference
from utils import report as report_module
from utils.constants import EMOTIONS
from utils.data.text2emotion_files import load_text2emotion
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer
from utils.data.vad_lexicon import VADLookup
from utils.evaluation import evaluator as evaluator_module
from utils.evaluation import generation
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.generation import Generated, caption_batch
from utils.files import write_json

PAD, PREFIX, EMOTION, EXPLANATION, END = 50257, 50258, 50259, 50260, 50256
PROMPT = [END, 262, 9942, 318]  # <|endoftext|> the emotion is
IMAGES = "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
CLASSIFIER = REPOSITORY / "tests/data/artemis/preprocess_data_nets/txt_to_emotion/lstm_based/best_model.pt"


def by_hand(full: str) -> tuple[str, str]:
    """A whole text and its explanation, as the paper's script cuts it."""
    return full, full.split("because")[-1].strip() if "because" in full else " ".join(full.split()[2:])


# ---- caption_batch ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return TextCodec(load_tokenizer(str(SHIPPED_BPE)), " the emotion is", 30)


@pytest.fixture
def model() -> SEVLM:
    """Large random weights, so that image, segments and VAD all have a say in what is written."""
    torch.manual_seed(3)
    config = GPT2Config(
        **TINY_GPT2 | {"vocab_size": 50261, "add_cross_attention": True},
    )
    settings = SEVLMConfig(encoder_dim=16, use_cl_loss=True, use_VAD_loss=True)
    vision = CLIPVisionModel(CLIPVisionConfig(**TINY_VIT))
    made = SEVLM(settings, Explainer(config, settings), ImageEncoder(vision)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made


@pytest.mark.parametrize("drop_last_token", [False, True])
def test_captions_of_a_batch(model, codec, monkeypatch, drop_last_token):
    reference, pixels = Reference.of(model), torch.randn(6, 3, 32, 32)
    table = np.random.default_rng(0).uniform(-1, 1, (50261, 3)).astype(np.float32)

    def texts(because: int, stops: tuple[int, ...], prompt: int = EMOTION, new=(EMOTION, EXPLANATION), vad=table):
        return reference.generate(pixels, PROMPT, [prompt] * 4, because, new, lambda ids: vad[ids], 25, stops)

    free = texts(-1, ())
    because = free[0][3]  # what plays " because", and below what ends a text
    endless = texts(because, ())
    late = [[token for token in row[8:] if token not in row[:8]] for row in endless]
    stops = tuple({tokens[0] for tokens in late if tokens})[:3]
    expected = texts(because, stops)
    others = [texts(because, stops, new=(EXPLANATION, EMOTION)), texts(END, stops), texts(because, ())]
    others += [texts(because, stops, prompt=EXPLANATION), texts(because, stops, vad=0 * table)]
    assert len(set(map(tuple, expected))) > 1
    assert all(other != expected for other in others), "these weights would not show every mistake"
    lengths = [len(row) for row in expected]
    assert min(lengths) < 25 == max(lengths)
    if drop_last_token:
        expected = [row[:24] for row in expected]

    monkeypatch.setattr(codec, "because_id", because)
    monkeypatch.setattr(codec, "stop_ids", stops)
    image = model.image_encoder(pixels)
    given = caption_batch(model, image, codec, lambda ids: table[ids], drop_last_token)
    assert given == [by_hand(codec.decode(row)) for row in expected]


@pytest.mark.parametrize("drop_last_token", [False, True])
def test_whole_text_and_explanation(codec, monkeypatch, drop_last_token):
    """First what was written, then what follows the last "because"; only a text without an end loses its last token."""
    written = [" awe because it glows because of the sky", " fear because" + " dark" * 23, " awe"]
    rows = [codec.bpe([text])[0] for text in written]
    ids = torch.tensor([row + [-1] * (25 - len(row)) for row in rows])
    generated = Generated(ids, torch.tensor([len(row) for row in rows]))
    assert generated.lengths.tolist() == [9, 25, 1]
    monkeypatch.setattr(generation, "greedy_decode", lambda *_, **__: generated)
    dark = " ".join(["dark"] * (22 if drop_last_token else 23))
    expected = [("awe because it glows because of the sky", "of the sky"), (f"fear because {dark}", dark), ("awe", "")]
    assert (
        caption_batch(None, ImageFeatures(torch.zeros(3, 1), torch.zeros(3, 1, 1)), codec, None, drop_last_token)
        == expected
    )


# ---- a whole evaluation ----------------------------------------------------------------------------------------------


def plain_captions(
    model: SEVLM, records: dict, codec: TextCodec, data, lexicon, drop_last_token: bool
) -> dict[int, str]:
    """Open, resize, normalise; look every word up in the lexicon's file; write greedily, all anew at every step."""
    reference = Reference.of(model).eval()
    values = {}
    for line in lexicon.read_text(encoding="utf-8").splitlines():
        word, *numbers = line.split("\t")
        values[word] = [float(number) for number in numbers]
    if min(map(min, values.values())) >= 0:
        values = {word: [2 * number - 1 for number in numbers] for word, numbers in values.items()}
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
        stops = codec.stop_ids
        (row,) = reference.generate(
            pixels.permute(2, 0, 1)[None], PROMPT, [EMOTION] * 4, codec.because_id, (EMOTION, EXPLANATION), vad_of, 25, stops
        )  # fmt: skip
        found[int(image_id)] = codec.decode(row[:24] if drop_last_token else row)
    assert any(any(numbers) for numbers in known.values()), "no word of these texts is in the lexicon"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--drop_last_token", "--eval_batch_size", "3")])
def test_captions_of_a_whole_evaluation(workspace, codec, tmp_path, monkeypatch, flags):
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
        expected.update(
            plain_captions(model, self.records, self.codec, workspace.data, lexicon, "--drop_last_token" in flags)
        )
        return evaluate(self, model)

    forgotten = []
    monkeypatch.setattr(Evaluator, "__call__", compared)
    monkeypatch.setattr(VADLookup, "forget", lambda self: forgotten.append(self))
    argv = workspace.argv(tmp_path, "--num_train_epochs", "1", "--batch_size", "45", "--dropout", "0.5", *flags)
    argv += ["--vad_lexicon", str(lexicon)]
    assert artEmisX_train.main(argv) == 0
    assert len(set(expected.values())) > 1 and len(forgotten) == 1  # else memoised texts would fill the memory
    records = json.loads((workspace.data / "artEmisX_val.json").read_text())
    for kind, place in (("full", 0), ("exp", 1)):
        written = json.loads((tmp_path / "results" / f"unf_captions_{kind}_0_0_step.json").read_text())
        wanted = [
            {"image_id": image, "caption": by_hand(full)[place], "image_name": records[str(image)]["image_name"]}
            for image, full in expected.items()
        ]
        assert written == wanted


# ---- scores ----------------------------------------------------------------------------------------------------------


def answers(records: dict) -> dict[int, str]:
    """Texts for the records in their order: right and wrong emotions in turn, explanations that annotators gave."""
    made = {}
    for number, (image_id, record) in enumerate(records.items()):
        emotion = EMOTIONS[int(np.argmax(record["origin_emotion_distribution"]))]
        named = [emotion, "fear", "a mood"][number % 3]
        made[int(image_id)] = (
            f"{named} because {record['explanations'][-1]}" if number % 5 != 4 else f"{named} it seems so"
        )
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
    places = {
        "nle_data_train_path": folder / "artEmisX_cl_train.json",
        "nle_data_val_path": folder / "artEmisX_val.json",
        "annFileExp": folder / "annotations.json",
        "image_root": workspace.data / IMAGES,
    }
    return [text for name, place in places.items() for text in (f"--{name}", str(place))], records, folder


@pytest.fixture(scope="module")
def scored(workspace, split, tmp_path_factory):
    """A training with one evaluation and a --eval_only of its checkpoint, whose texts are `answers`; folder and records."""
    out = tmp_path_factory.mktemp("scored")
    flags, records, _ = split
    texts = answers(records)

    def captions(model, image, codec, vad_of, drop_last_token, num_beams, emotions):
        assert emotions is None  # the text names its own
        assert vad_of.__func__ is VADLookup.for_generated  # words, not the pieces of training texts
        return [by_hand(next(left)) for _ in image.cls]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator_module, "caption_batch", captions)
        left = iter(texts.values())
        training = ("--num_train_epochs", "1", "--batch_size", "45", "--use_emotion_loss", "--eval_batch_size", "5")
        assert artEmisX_train.main(workspace.argv(out, *flags, *training)) == 0
        left = iter(texts.values())
        scoring = ("--eval_only", "--load_from_epoch", "best-acc", "--text2emotion", str(CLASSIFIER))
        argv = workspace.argv(out / "again", *flags, *scoring, "--ckpt_path", str(out / "ckpts"))
        assert artEmisX_train.main(argv) == 0
    return out, records, texts


def test_control_characters_become_blanks():
    """One each, so that words stay apart; letters of any language stay."""
    assert printable("a\tb\u2028c\r\nd é") == "a b c  d é"


@pytest.mark.slow
def test_scores_by_hand(scored, split):
    out, records, texts = scored
    scores = json.loads((out / "results" / "scores_exp_0_0_step.json").read_text())
    right = [
        texts[int(image)].split("because")[0].strip() == EMOTIONS[int(np.argmax(record["origin_emotion_distribution"]))]
        for image, record in records.items()
        if max(record["origin_emotion_distribution"]) > 0.5
    ]
    assert 0 < sum(right) < len(right) < len(records)
    assert scores["sub_acc"] == sum(right) / len(right)
    explanations = {image: by_hand(text)[1] for image, text in texts.items()}
    with CaptionScorer(split[2] / "annotations.json", ("bleu",)) as scorer:
        bleu, _ = scorer.score(explanations)
    assert {name: scores[name] for name in bleu} == pytest.approx(bleu) and 0 < bleu["Bleu_4"] < 1
    assert set(scores) == {*bleu, "sub_acc", "head_acc", "head_ece"}


@pytest.mark.slow
def test_report_by_hand(scored, split):
    out, records, texts = scored
    report = json.loads((out / "again" / "results" / "report.json").read_text())
    explanations = [by_hand(text)[1] for text in texts.values()]
    with_majority = sum(max(record["origin_emotion_distribution"]) > 0.5 for record in records.values())
    assert (report["images"], report["images_with_majority"]) == (len(records), with_majority)
    references = sum(len(record["explanations"]) for record in records.values())
    assert report["references_per_image"] == round(references / len(records), 2) > 1
    assert report["scores"]["mean_length"] == pytest.approx(np.mean([len(text.split()) for text in explanations]))
    assert report["scores"]["Unique"] == len({text.lower() for text in explanations}) / len(explanations)

    whole_training = json.loads((split[2] / "artEmisX_train.json").read_text())
    pairs_alone = json.loads((split[2] / "artEmisX_cl_train.json").read_text())
    assert len(whole_training) > len(pairs_alone)
    expected = novelty(explanations, whole_training)
    assert report["scores"]["max_lcs"] == pytest.approx(expected) != pytest.approx(novelty(explanations, pairs_alone))

    for source in ("head", "likelihood"):
        rows = json.loads((out / "again" / "results" / f"emotion_{source}_best-acc_0_step.json").read_text())
        brier, right = [], []
        for row in rows:
            felt = np.array(records[str(row["image_id"])]["origin_emotion_distribution"])
            brier.append(((felt - row["probabilities"]) ** 2).sum())
            if felt.max() > 0.5:
                right.append(felt.argmax() == np.argmax(row["probabilities"]))
        assert len(brier) == len(records) and report["scores"][f"{source}_brier"] == pytest.approx(np.mean(brier))
        assert report["scores"][f"{source}_acc"] == pytest.approx(np.mean(right))

    named = Counter(text.split("because")[0].strip() for text in texts.values())
    assert named["fear"] and sum(map(sum, report["confusion_matrix"])) == with_majority
    assert sum(row[EMOTIONS.index("fear")] for row in report["confusion_matrix"]) > 1

    classifier, vocabulary = load_text2emotion(CLASSIFIER)
    agreed = []
    for predicted, record in zip(predict_emotions(classifier, explanations, vocabulary), records.values(), strict=True):
        (emotion, count), *_ = Counter(record["emotions"]).most_common()
        if 2 * count > len(record["emotions"]):
            agreed.append(predicted == emotion)
    assert report["scores"]["EA_more_than_half"] == pytest.approx(np.mean(agreed)) and 0 < np.mean(agreed) < 1
    assert report["scores"]["EA_more_than_half_images"] == len(agreed)


def novelty(explanations: list[str], training: dict) -> float:
    """Mean over the explanations of the longest common subsequence, in words, with any training text."""
    others = [text.lower().split() for record in training.values() for text in record["explanations"]]
    return float(
        np.mean([max(longest_common(text.lower().split(), other) for other in others) for text in explanations])
    )


def longest_common(a: list[str], b: list[str]) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]


@pytest.mark.slow
def test_calibration_of_the_head_is_of_a_softmax(workspace, split, tmp_path, monkeypatch):
    """With a head that is sure of one emotion, accuracy and calibration are known: e^2 / (e^2 + 8) and how often it is right."""
    captions = lambda model, image, *_: [("awe because x", "x")] * len(image.cls)  # noqa: E731
    monkeypatch.setattr(evaluator_module, "caption_batch", captions)
    evaluate = Evaluator.__call__

    def sure(self, model):
        torch.nn.init.zeros_(model.emotion_head.weight)
        model.emotion_head.bias.data = 2.0 * torch.eye(9)[EMOTIONS.index("awe")]
        return evaluate(self, model)

    monkeypatch.setattr(Evaluator, "__call__", sure)
    argv = workspace.argv(tmp_path, *split[0], "--num_train_epochs", "1", "--batch_size", "45", "--use_emotion_loss")
    assert artEmisX_train.main(argv) == 0
    scores = json.loads((tmp_path / "results" / "scores_exp_0_0_step.json").read_text())
    confidence = math.exp(2) / (math.exp(2) + 8)
    assert scores["head_acc"] == scores["sub_acc"]
    assert scores["head_ece"] == pytest.approx(abs(confidence - scores["head_acc"]), abs=1e-5)


@pytest.mark.slow
def test_captions_scored_as_predictions_give_the_scores_of_eval_only(workspace, scored, split, tmp_path):
    out, _, folder = scored[0], scored[1], split[2]
    report_module.main(
        [
            "--predictions",
            str(out / "again" / "results" / "unf_captions_full_best-acc_0_step.json"),
            "--captions",
            "full",
        ]
        + ["--records", str(folder / "artEmisX_val.json"), "--annFileExp", str(folder / "annotations.json")]
        + ["--metrics", "bleu", "--text2emotion", str(CLASSIFIER), "--json", str(tmp_path / "predictions.json")]
        + ["--vad_lexicon", str(workspace.data / "demo-VAD-Lexicon.txt")]
    )
    of_model = json.loads((out / "again" / "results" / "report.json").read_text())
    of_predictions = json.loads((tmp_path / "predictions.json").read_text())
    names = {name for name in of_model["scores"] if name.startswith(("head_", "likelihood_"))}
    assert len(names) == 2 * 5 and names <= set(of_model["intervals"])
    for key in ("scores", "intervals"):
        assert of_predictions[key] == {name: value for name, value in of_model[key].items() if name not in names}
    assert "vad_distance" in of_predictions["scores"] and 0 < of_model["scores"]["self_consistency"] < 1
    assert of_predictions["confusion_matrix"] == of_model["confusion_matrix"]
