"""The text-to-emotion classifier: ArtEmis' logits from both of its files, and training a new one."""

import json
import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch

from models.text2emotion import Text2Emotion, encode_texts, predict_emotions
from preprocess import train_text2emotion
from utils.constants import EMOTIONS
from utils.data.text2emotion_files import load_text2emotion, save_text2emotion
from utils.data.untrusted_files import load_vocabulary
from utils.errors import InputError

NETS = Path(__file__).parents[1] / "data/artemis/preprocess_data_nets"
LSTM = NETS / "txt_to_emotion/lstm_based"
EXPECTED = json.loads((LSTM / "expected.json").read_text(encoding="utf-8"))
SPECIAL = ["<pad>", "<sos>", "<eos>", "<unk>"]


@pytest.mark.parametrize("name", ["best_model.pt", "best_model_zip.pt"])
def test_logits_are_artemis(name):
    model, vocabulary = load_text2emotion(LSTM / name)
    tokens = encode_texts(EXPECTED["texts"], vocabulary)
    assert tokens.tolist() == EXPECTED["token_ids"]
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens), torch.tensor(EXPECTED["logits"]), atol=1e-5, rtol=1e-5)


def test_default_sizes():
    model = Text2Emotion(14_469)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}
    assert shapes["embedding.weight"] == (14_469, 100)
    assert shapes["projection.1.weight"] == (256, 100) and shapes["projection.4.weight"] == (256, 256)
    assert shapes["lstm.weight_ih_l0"] == (1024, 256) and shapes["lstm.weight_hh_l0"] == (1024, 256)
    assert shapes["classifier.0.weight"] == (100, 256) and shapes["classifier.4.weight"] == (9, 100)


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
    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(SPECIAL + [f"w{i}" for i in range(50)])}
    model = Text2Emotion(len(vocabulary), 20, 16, 16, 12)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    texts = [" ".join(f"w{(7 * i * j) % 50}" for j in range(1 + i % 13)) for i in range(60)] + [""]
    together = predict_emotions(model, texts, vocabulary)
    assert len(set(together)) > 1 and set(together) <= set(EMOTIONS)
    assert predict_emotions(model, texts, vocabulary, batch_size=7) == together
    assert [predict_emotions(model, [text], vocabulary)[0] for text in texts] == together
    assert model.training and predict_emotions(model, [], vocabulary) == []


def test_texts_are_read_as_words_of_the_vocabulary():
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, "the", "woman", "'s", "smile"])}
    tokens = encode_texts(["The woman's smile.", "", "smile - nowhere"], vocabulary)
    assert tokens.tolist() == [[1, 4, 5, 6, 7, 2], [1, 3, 2, 0, 0, 0], [1, 7, 3, 2, 0, 0]]


def test_saved_and_read_again(tmp_path):
    model, vocabulary = load_text2emotion(LSTM / "best_model.pt")
    for name in ("a.safetensors", "b.safetensors"):
        save_text2emotion(tmp_path / name, model, vocabulary)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    again, words = load_text2emotion(tmp_path / "a.safetensors")
    assert words == vocabulary and not again.training
    for name, tensor in model.state_dict().items():
        assert again.state_dict()[name].equal(tensor)


def test_other_files_are_refused(tmp_path):
    model, vocabulary = load_text2emotion(LSTM / "best_model.pt")
    with pytest.raises(InputError, match="no such file"):
        load_text2emotion(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").write_bytes(b"garbage")
    with pytest.raises(InputError, match="not written by preprocess/train_text2emotion.py"):
        load_text2emotion(tmp_path / "m.safetensors")
    save_text2emotion(tmp_path / "m.safetensors", model, dict(list(vocabulary.items())[:100]))
    with pytest.raises(InputError, match="made for 112 words, but its vocabulary has 100"):
        load_text2emotion(tmp_path / "m.safetensors")
    del model.lstm
    save_text2emotion(tmp_path / "m.safetensors", model, vocabulary)
    with pytest.raises(InputError, match="not a text-to-emotion classifier"):
        load_text2emotion(tmp_path / "m.safetensors")


WORDS = ["funny", "grand", "calm", "wild", "furious", "ugly", "scary", "lonely", "strange"]


@pytest.fixture
def data_dir(tmp_path):
    """A table in which one word of each text tells its emotion."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, "this", "is", "so", *WORDS])}
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


SIZES = ("--sizes", "20", "16", "16", "12")


def train(data_dir: Path, *flags: str) -> None:
    main = [f"--data_dir={data_dir}", "--device=cpu", "--batch_size=54", "--learning_rate=2e-2", *SIZES, *flags]
    assert not train_text2emotion.main(main)


def test_training(data_dir, capsys):
    train(data_dir, "--epochs=25", "--patience=5")
    output = capsys.readouterr().out
    path = data_dir / "txt_to_emotion/lstm_based/text2emotion.safetensors"
    assert "train 216 texts, val 27 texts, test 27 texts" in output
    assert "test accuracy 100.0 % (published, ArtEmis v1.0: 63.4 %)" in output
    model, vocabulary = load_text2emotion(path)
    assert vocabulary == load_vocabulary(data_dir / "vocabulary.pkl")
    assert predict_emotions(model, [f"This is {word}!" for word in WORDS], vocabulary) == list(EMOTIONS)


def test_same_seed_same_bytes_and_the_best_epoch_is_kept(data_dir, capsys):
    flags = ("--epochs=2", "--seed=3")
    train(data_dir, *flags, f"--out={data_dir / 'a.safetensors'}")
    train(data_dir, *flags, f"--out={data_dir / 'b.safetensors'}")
    train(data_dir, "--epochs=2", "--seed=4", f"--out={data_dir / 'c.safetensors'}")
    a, b, c = ((data_dir / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c
    lines = capsys.readouterr().out.splitlines()
    epochs = [float(line.split()[-2]) for line in lines if "validation accuracy" in line][:2]
    kept = next(line for line in lines if line.startswith("test accuracy"))
    assert kept.endswith(f"validation {max(epochs):.1f} %")


def test_interrupted_training_leaves_nothing(data_dir, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = sorted(data_dir.rglob("*"))
    monkeypatch.setattr(train_text2emotion, "accuracy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(data_dir, "--epochs=1")
    assert sorted(data_dir.rglob("*")) == before


def test_word_vectors(data_dir, capsys):
    glove = data_dir / "glove.txt"
    glove.write_text("this 1 2 3\nother 0 0 0\nugly -1 -2 -3.5\n", encoding="utf-8")
    train(data_dir, "--epochs=1", f"--glove={glove}")
    assert "2 of 16 words found, width 3" in capsys.readouterr().out
    for content, problem in (("this 1 2\nugly 1\n", "line 2"), ("this x\n", "not a GloVe"), ("nobody 1\n", "no word")):
        glove.write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=problem):
            train(data_dir, f"--glove={glove}")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("tokens_encoded", "[1, 99, 2]", "line 2: tokens_encoded"),
        ("tokens_encoded", "[1, 2]", "line 2: tokens_encoded"),
        ("tokens_encoded", "[1, 4, 5]", "line 2: tokens_encoded"),
        ("tokens_encoded", "__import__('os')", "line 2: tokens_encoded"),
        ("emotion_label", 9, "line 2: emotion_label"),
        ("emotion_label", float("nan"), "row 1: emotion_label '' is not an integer"),
    ],
)
def test_damaged_tables_are_refused(data_dir, column, value, problem):
    path = data_dir / "artemis_preprocessed.csv"
    table = pd.read_csv(path).astype({"emotion_label": float})
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=problem):
        train(data_dir)


def test_missing_parts_are_refused(data_dir):
    path = data_dir / "artemis_preprocessed.csv"
    table = pd.read_csv(path)
    table[table.split != "val"].to_csv(path, index=False)
    with pytest.raises(InputError, match="no rows of split 'val'"):
        train(data_dir)
    table.drop(columns="split").to_csv(path, index=False)
    with pytest.raises(InputError, match="artemis_preprocessed.csv: has no column split"):
        train(data_dir)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        train(data_dir)
    for flag in ("--epochs=0", "--batch_size=1", "--learning_rate=-1", "--device=nowhere", "--out=x.pt"):
        with pytest.raises(InputError, match=flag.split("=")[0]):
            train(data_dir, flag)
