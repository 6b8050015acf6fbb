"""The text-to-emotion classifier: ArtEmis' logits, padding and unknown words, its files, and training a new one.

Refused files and flags of the training: tests/test_preprocess/test_refusals.py.
"""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace

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
    with torch.inference_mode():
        together = model(tokens)
        short, short_among_longer = model(tokens[:1]), model(tokens[:1], longest=3)
        long, long_among_longer = model(tokens[1:]), model(tokens[1:], longest=4)
    torch.testing.assert_close(together, torch.cat([short_among_longer, long]))
    assert (short - short_among_longer).abs().max() > 1e-3
    assert (long - long_among_longer).abs().max() > 1e-3


def test_predictions_do_not_depend_on_the_batch():
    """Nor on the mode of the model, which is as before afterwards."""
    torch.manual_seed(0)
    vocabulary = vocabulary_of(*(f"w{i}" for i in range(50)))
    model = Text2Emotion(len(vocabulary), 20, 16, 16, 12, dropout=0.9)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    texts = [" ".join(f"w{(7 * i * j) % 50}" for j in range(1 + i % 13)) for i in range(60)] + [""]
    together = predict_emotions(model, texts, vocabulary)
    assert all(module.training for module in model.modules())
    assert len(set(together)) > 1 and set(together) <= set(EMOTIONS)
    assert predict_emotions(model.eval(), texts, vocabulary, batch_size=7) == together
    assert not any(module.training for module in model.modules())
    assert [predict_emotions(model, [text], vocabulary)[0] for text in texts] == together
    assert predict_emotions(model, [], vocabulary) == []


def test_texts_are_read_as_words_of_the_vocabulary():
    """In lower case, without signs; an unknown word is <unk>, and so is a text without words."""
    tokens = encode_texts(["The woman's smile.", "", "smile - nowhere"], vocabulary_of("the", "woman", "'s", "smile"))
    assert tokens.tolist() == [[1, 4, 5, 6, 7, 2], [1, 3, 2, 0, 0, 0], [1, 7, 3, 2, 0, 0]]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_saved_and_read_again(tmp_path):
    model, vocabulary = load_text2emotion(CLASSIFIER)
    save_text2emotion(tmp_path / "a.safetensors", model, vocabulary)
    again, words = load_text2emotion(tmp_path / "a.safetensors")
    assert words == vocabulary and not again.training
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].equal(tensor)


def test_other_files_are_refused(tmp_path):
    model, vocabulary = load_text2emotion(CLASSIFIER)
    path = tmp_path / "m.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message):
            load_text2emotion(path)

    refused("no such file")
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

WORDS = ["funny", "grand", "calm", "wild", "furious", "ugly", "scary", "lonely", "strange"]


@pytest.fixture
def data_dir(tmp_path):
    """A table in which one word of each text tells its emotion."""
    vocabulary = vocabulary_of("this", "is", "so", *WORDS)
    state = pickle.dumps({"word2idx": vocabulary}, 2)[2:-1]
    (tmp_path / "vocabulary.pkl").write_bytes(
        b"\x80\x02cartemis.utils.vocabulary\nVocabulary\n)\x81" + state + b"b."  # an object of this class and its state
    )
    rows = []
    for index in range(270):
        words = ["this", "is", *["so"] * (index % 4), WORDS[index % 9]]
        ids = [1, *(vocabulary[word] for word in words), 2]
        split = "train" if index < 216 else "val" if index < 243 else "test"
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
    assert "train 216 texts, val 27 texts, test 27 texts" in output
    assert "test accuracy 100.0 % (published, ArtEmis v1.0: 63.4 %)" in output
    model, vocabulary = load_text2emotion(data_dir / "txt_to_emotion/lstm_based/text2emotion.safetensors")
    assert vocabulary == load_vocabulary(data_dir / "vocabulary.pkl")
    assert predict_emotions(model, [f"This is {word}!" for word in WORDS], vocabulary) == list(EMOTIONS)
    files = [data_dir / f"{name}.safetensors" for name in "abc"]
    for file, seed in zip(files, (3, 3, 4), strict=True):
        train(data_dir, "--epochs=1", f"--seed={seed}", f"--out={file}")
    a, b, c = (file.read_bytes() for file in files)
    assert a == b != c


def test_tokens_that_are_not_a_text_are_refused(data_dir):
    path = data_dir / "artemis_preprocessed.csv"
    table = pd.read_csv(path)
    for tokens in ("[1, 2]", "[1, 4, 5]", "[1, 4, 2, 5]", "[4, 5, 2]", "__import__('os')"):
        table.loc[0, "tokens_encoded"] = tokens
        table.to_csv(path, index=False)
        with pytest.raises(InputError, match="line 2: tokens_encoded"):
            train(data_dir)


# ---- its steps -------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch):
    """Train on 12 texts with these validation accuracies, one an epoch; what happened comes back."""

    def run(scores: list[float], patience: int = 100, learning_rate: float = 5e-4) -> SimpleNamespace:
        torch.manual_seed(0)
        model, made = Text2Emotion(10, 8, 8, 8, 8), SimpleNamespace(rates=[], modes=[], states=[], norms=[], asked=[])
        tokens = torch.randint(4, 10, (12, 6))
        tokens[:, 0], tokens[:, -1] = 1, 2
        splits = {name: (tokens, torch.arange(12) % 9) for name in ("train", "val", "test")}
        names = {id(split): name for name, split in splits.items()}

        def accuracy(model, split, *_):
            made.asked.append(names[id(split)])
            made.states.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
            model.eval()
            return scores[len(made.states) - 1]

        def before_update(optimizer, *_):
            made.rates.append(optimizer.param_groups[0]["lr"])
            made.modes.append(all(module.training for module in model.modules()))
            made.norms.append(float(torch.stack([p.grad.norm() for p in model.parameters()]).norm()))

        monkeypatch.setattr(train_text2emotion, "accuracy", accuracy)
        hook = register_optimizer_step_pre_hook(before_update)
        try:
            args = SimpleNamespace(learning_rate=learning_rate, epochs=len(scores), patience=patience, batch_size=6)
            train_text2emotion.train(model, splits, args, torch.device("cpu"))
        finally:
            hook.remove()
        made.model = model
        return made

    return run


def test_rates_and_patience(trained):
    """Rates are halved after 10, 20 and 30 epochs; the best epoch is kept, and one that only equals it replaces nothing."""
    made = trained([0.1] * 32)
    assert len(made.rates) == 64 and all(made.modes) and set(made.asked) == {"val"}
    expected = [5e-4] * 10 + [2.5e-4] * 10 + [1.25e-4] * 10 + [6.25e-5] * 2
    assert made.rates[::2] == made.rates[1::2] == pytest.approx(expected)
    made = trained([0.1, 0.1, 0.1, 0.2, 0.2, 0.1, 0.2, 0.9], patience=3)
    assert len(made.states) == 7  # three without a gain after the fourth
    assert all(torch.equal(tensor, made.states[3][name]) for name, tensor in made.model.state_dict().items())


def test_gradients_do_not_add_up(trained, monkeypatch):
    """At a rate of 0, without dropout, every epoch has the gradients of the first."""
    monkeypatch.setattr(torch, "randperm", lambda size: torch.arange(size))
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
    norms = trained([0.1] * 3, learning_rate=0.0).norms
    assert norms[2:4] == pytest.approx(norms[:2], rel=1e-4) and norms[4:] == pytest.approx(norms[:2], rel=1e-4)


def test_accuracy_does_not_depend_on_the_batches():
    """A batch of short texts is padded as far as the whole split."""
    torch.manual_seed(0)
    model, tokens = Text2Emotion(10, 8, 8, 8, 8), torch.randint(4, 10, (60, 9))
    tokens[:, 0] = 1
    for row, end in enumerate([2, 3, 5, 8] * 15):
        tokens[row, end], tokens[row, end + 1 :] = 2, 0
    order = torch.argsort((tokens != 0).sum(1), stable=True)
    tokens = tokens[order]
    predicted = model.eval()(tokens, longest=9).argmax(1)
    labels = torch.where(torch.arange(60) % 3 == 0, (predicted + 1) % 9, predicted)
    for batch_size in (60, 15, 7):
        found = train_text2emotion.accuracy(model.train(), (tokens, labels), batch_size, torch.device("cpu"))
        assert found == pytest.approx(2 / 3)


# ---- word vectors ----------------------------------------------------------------------------------------------------


def test_missing_word_vectors_are_drawn_with_the_deviation_of_the_others(tmp_path):
    """GloVe's words to the number, <pad> zero, and unknown words by the deviation of the known numbers."""
    vocabulary = vocabulary_of(*(f"w{n}" for n in range(400)))
    lines = [f"w{n} " + " ".join(str((n * 7 + k * 3) % 11 * 4 - 20) for k in range(20)) for n in range(0, 400, 2)]
    (tmp_path / "glove.txt").write_text("\n".join(["other 1 2 3", *lines]) + "\n")
    table = train_text2emotion.read_glove(tmp_path / "glove.txt", vocabulary, seed=3)
    known = table[4::2]
    assert known.tolist() == [[float(number) for number in line.split()[1:]] for line in lines]
    drawn = torch.cat([table[1:4], table[5::2]])
    assert drawn.std().item() == pytest.approx(known.std(correction=0).item(), rel=0.05) and known.std() > 5
    assert abs(drawn.mean()) < 1 and not table[0].any()
    assert torch.equal(table, train_text2emotion.read_glove(tmp_path / "glove.txt", vocabulary, seed=3))
    (tmp_path / "glove.txt").write_text("w1 1 2\nw2 1\n")
    with pytest.raises(InputError, match="not a GloVe text file .line 2 has 1 numbers"):
        train_text2emotion.read_glove(tmp_path / "glove.txt", vocabulary, seed=3)


def test_training_starts_from_the_word_vectors(data_dir, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(train_text2emotion, "train", lambda model, *_: seen.append(model.embedding.weight.clone()))
    (data_dir / "glove.txt").write_text("this 1 2 3\nis -4 5 -6\n")
    train(data_dir, f"--glove={data_dir / 'glove.txt'}")
    assert seen[0][4:6].tolist() == [[1, 2, 3], [-4, 5, -6]] and not seen[0][0].any()
    assert "2 of 16 words found, width 3" in capsys.readouterr().out
