"""The text-to-emotion classifier: ArtEmis' logits, padding and unknown words, its files, and training a new one.

Refused files and flags of the training: tests/test_preprocess/test_refusals.py.
"""

import json
import pickle
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from models.text2emotion import Text2Emotion, encode_texts, predict_emotions
from preprocess import train_text2emotion
from tests.test_evaluation.tiny import CLASSIFIER
from utils.constants import EMOTIONS
from utils.data.text2emotion_files import load_text2emotion, save_text2emotion
from utils.data.untrusted_files import load_vocabulary
from utils.errors import InputError

EXPECTED = json.loads(CLASSIFIER.with_name("expected.json").read_text(encoding="utf-8"))
SPECIAL = ["<pad>", "<sos>", "<eos>", "<unk>"]


def vocabulary_of(*words: str) -> dict[str, int]:
    return {word: index for index, word in enumerate([*SPECIAL, *words])}


@pytest.mark.parametrize("name", ["best_model.pt", "best_model_zip.pt"])
def test_logits_are_artemis(name):
    model, vocabulary = load_text2emotion(CLASSIFIER.with_name(name))
    tokens = encode_texts(EXPECTED["texts"], vocabulary)
    assert tokens.tolist() == EXPECTED["token_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), torch.tensor(EXPECTED["logits"]), atol=1e-5, rtol=1e-5)


def test_zero_counts_for_shorter_texts_only():
    torch.manual_seed(0)
    model = Text2Emotion(10, 20, 16, 16, 12).eval()
    tokens = torch.tensor([[1, 5, 2, 0, 0], [1, 4, 5, 6, 2]])
    short, long = tokens[:1], tokens[1:]
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), torch.cat([model(short, longest=3), model(long)]))
        assert (model(short) - model(short, longest=3)).abs().max() > 1e-3
        assert (model(long) - model(long, longest=4)).abs().max() > 1e-3


def test_predictions_do_not_depend_on_the_batch():
    """Nor on the mode of the model, which is as before afterwards."""
    torch.manual_seed(0)
    vocabulary = vocabulary_of(*(f"w{i}" for i in range(50)))
    model = Text2Emotion(len(vocabulary), 20, 16, 16, 12, dropout=0.9)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    texts = [" ".join(f"w{(7 * i * j) % 50}" for j in range(1 + i % 13)) for i in range(60)] + [""]
    together = predict_emotions(model, texts, vocabulary)
    assert model.training and len(set(together)) > 1
    assert predict_emotions(model.eval(), texts, vocabulary, batch_size=1) == together
    assert not model.training and predict_emotions(model, [], vocabulary) == []


def test_texts_are_read_as_words_of_the_vocabulary():
    """In lower case, without signs; an unknown word is <unk>, and so is a text without words."""
    tokens = encode_texts(["The woman's smile.", "", "smile - nowhere"], vocabulary_of("the", "woman", "'s", "smile"))
    assert tokens.tolist() == [[1, 4, 5, 6, 7, 2], [1, 3, 2, 0, 0, 0], [1, 7, 3, 2, 0, 0]]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_other_files_are_refused(tmp_path):
    model, vocabulary = load_text2emotion(CLASSIFIER)
    path = tmp_path / "m.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_text2emotion(path)

    path.write_bytes(b"garbage")
    refused("not written by preprocess/train_text2emotion.py")
    save_text2emotion(path, model, dict(list(vocabulary.items())[:100]))
    refused("made for 112 words, but its vocabulary has 100")
    model.classifier[0].bias.data[3] = torch.nan
    save_text2emotion(path, model, vocabulary)
    refused("m.safetensors: .*finite")
    del model.lstm
    save_text2emotion(path, model, vocabulary)
    refused("not a text-to-emotion classifier")


# ---- a whole training ------------------------------------------------------------------------------------------------

WORDS = ["funny", "grand", "calm", "wild", "furious", "ugly", "scary", "lonely", "strange"]  # one for each emotion
OTHER_WORDS = [f"w{n}" for n in range(400)]


@pytest.fixture
def data_dir(tmp_path):
    """A table in which one word of each text tells its emotion."""
    vocabulary = vocabulary_of("this", "is", "so", *WORDS, *OTHER_WORDS)
    state = pickle.dumps({"word2idx": vocabulary}, 2)[2:-1]
    (tmp_path / "vocabulary.pkl").write_bytes(
        b"\x80\x02cartemis.utils.vocabulary\nVocabulary\n)\x81" + state + b"b."  # an object of this class and its state
    )
    rows = []
    for index in range(270):
        ids = [1, *(vocabulary[word] for word in ("this", "is", *["so"] * (index % 4), WORDS[index % 9])), 2]
        split = "train" if index < 216 else "val" if index < 234 else "test"
        rows.append((split, str(ids + [0] * (8 - len(ids))), index % 9))
    table = pd.DataFrame(rows, columns=["split", "tokens_encoded", "emotion_label"])
    table.to_csv(tmp_path / "artemis_preprocessed.csv", index=False)
    return tmp_path


def train(data_dir: Path, *flags: str) -> None:
    sizes = ("--sizes", "20", "16", "16", "12")
    main = [f"--data_dir={data_dir}", "--device=cpu", "--batch_size=54", "--learning_rate=2e-2", *sizes, *flags]
    assert not train_text2emotion.main(main)


def test_training(data_dir, capsys):
    train(data_dir, "--epochs=25", "--patience=5")
    output = capsys.readouterr().out
    assert "train 216 texts, val 18 texts, test 36 texts" in output
    assert "test accuracy 100.0 % (published, ArtEmis v1.0: 63.4 %)" in output
    model, vocabulary = load_text2emotion(data_dir / "txt_to_emotion/lstm_based/text2emotion.safetensors")
    assert vocabulary == load_vocabulary(data_dir / "vocabulary.pkl")
    assert predict_emotions(model, [f"This is {word}!" for word in WORDS], vocabulary) == list(EMOTIONS)
    files = [data_dir / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        train(data_dir, "--epochs=1", f"--seed={seed}", f"--out={file}")
    a, b, c = (file.read_bytes() for file in files)
    assert a == b != c


class Stages(NamedTuple):
    """What happened in a training: before every update, and at every validation."""

    rates: list[float]
    gradients: list[float]
    embeddings: list[torch.Tensor]
    scored: list[int]  # number of texts


def stages_of(monkeypatch, data_dir: Path, scores: list[float], *flags: str) -> Stages:
    """Train in two batches an epoch, without dropout and in one order, with these accuracies; the last two are the result's."""
    seen = Stages([], [], [], [])

    def before_update(optimizer, *_):
        parameters = optimizer.param_groups[0]["params"]
        seen.rates.append(optimizer.param_groups[0]["lr"])
        seen.gradients.append(float(torch.stack([parameter.grad.norm() for parameter in parameters]).norm()))

    def accuracy(model, split, *_):
        seen.embeddings.append(model.embedding.weight.clone())
        seen.scored.append(len(split[1]))
        model.eval()
        return scores[len(seen.scored) - 1]

    monkeypatch.setattr(train_text2emotion, "accuracy", accuracy)
    monkeypatch.setattr(torch, "randperm", torch.arange)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
    hook = register_optimizer_step_pre_hook(before_update)
    try:
        train(data_dir, "--batch_size=108", f"--epochs={len(scores) - 2}", *flags)
    finally:
        hook.remove()
    return seen


def test_rates_are_halved_after_10_20_and_30_epochs(data_dir, monkeypatch):
    """So small here that no weight moves: then every epoch has the gradients of the first, which do not add up."""
    seen = stages_of(monkeypatch, data_dir, [0.1] * 34, "--learning_rate=1e-12", "--patience=100")
    assert seen.rates[::2] == seen.rates[1::2]
    assert seen.rates[::2] == pytest.approx([1e-12] * 10 + [5e-13] * 10 + [2.5e-13] * 10 + [1.25e-13] * 2, abs=0)
    assert seen.gradients == pytest.approx(seen.gradients[:2] * 32, rel=1e-4)


def test_the_best_epoch_is_kept(data_dir, monkeypatch):
    """One that only equals it replaces nothing, nor delays the end."""
    seen = stages_of(monkeypatch, data_dir, [0.1, 0.1, 0.1, 0.2, 0.2, 0.1, 0.2, 0, 0], "--patience=3")
    assert seen.scored == [18] * 7 + [18, 36]  # validation texts; in the end the result's accuracies
    *of_epochs, best, _ = seen.embeddings
    assert [weights.equal(best) for weights in of_epochs] == [number == 3 for number in range(7)]


# ---- word vectors ----------------------------------------------------------------------------------------------------


def test_word_vectors(data_dir, monkeypatch, capsys):
    """GloVe's words to the number, <pad> zero, and unknown words by the deviation of the known numbers."""
    starts, path = [], data_dir / "glove.txt"
    monkeypatch.setattr(train_text2emotion, "train", lambda model, *_: starts.append(model.embedding.weight.clone()))
    vectors = {word: [(n * 7 + k * 3) % 11 * 4 - 20 for k in range(20)] for n, word in enumerate(OTHER_WORDS[::2])}
    lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in vectors.items()]
    path.write_text("other 1 2 3\n" + "".join(lines))
    train(data_dir, f"--glove={path}")
    assert "200 of 416 words found, width 20" in capsys.readouterr().out
    known, drawn = starts[0][16::2], torch.cat([starts[0][1:16], starts[0][17::2]])
    assert known.tolist() == list(vectors.values()) and not starts[0][0].any()
    assert drawn.std().item() == pytest.approx(known.std(correction=0).item(), rel=0.05) and known.std() > 5
    assert abs(drawn.mean()) < 1
    path.write_text("w1 1 2\nw2 1\n")
    with pytest.raises(InputError, match="not a GloVe text file .line 2 has 1 numbers"):
        train(data_dir, f"--glove={path}")
