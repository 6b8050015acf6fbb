"""Training the text-to-emotion classifier: learning rates, modes, which epoch is kept, and when it stops."""

from types import SimpleNamespace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from models.text2emotion import Text2Emotion, predict_emotions
from preprocess import train_text2emotion


def splits() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    tokens = torch.randint(4, 10, (12, 6), generator=torch.Generator().manual_seed(0))
    tokens[:, 0], tokens[:, -1] = 1, 2
    return {name: (tokens, torch.arange(12) % 9) for name in ("train", "val", "test")}


@pytest.fixture
def trained(monkeypatch):
    """Train with these validation accuracies, one an epoch; what happened comes back."""

    def run(scores: list[float], epochs: int = 40, patience: int = 100, learning_rate: float = 5e-4) -> SimpleNamespace:
        torch.manual_seed(0)
        model, made = Text2Emotion(10, 8, 8, 8, 8), SimpleNamespace(rates=[], modes=[], states=[], norms=[], asked=[])
        given = splits()
        names = {id(split): name for name, split in given.items()}

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
            args = SimpleNamespace(learning_rate=learning_rate, epochs=epochs, patience=patience, batch_size=6)
            train_text2emotion.train(model, given, args, torch.device("cpu"))
        finally:
            hook.remove()
        made.model = model
        return made

    return run


def test_rates_are_halved_after_10_20_and_30_epochs(trained):
    made = trained([0.1] * 32, epochs=32)
    assert len(made.rates) == 64 and all(made.modes) and set(made.asked) == {"val"}
    expected = [5e-4] * 10 + [2.5e-4] * 10 + [1.25e-4] * 10 + [6.25e-5] * 2
    assert made.rates[::2] == made.rates[1::2] == pytest.approx(expected)


def test_the_best_epoch_is_kept(trained):
    """A score that is only equalled replaces nothing."""
    made = trained([0.1, 0.4, 0.2, 0.4, 0.3], epochs=5)
    assert all(torch.equal(tensor, made.states[1][name]) for name, tensor in made.model.state_dict().items())


def test_patience_counts_from_the_last_improvement(trained):
    made = trained([0.1, 0.1, 0.1, 0.2, 0.2, 0.1, 0.2, 0.9], epochs=8, patience=3)
    assert len(made.states) == 7  # three without a gain after the fourth
    assert torch.equal(made.model.embedding.weight, made.states[3]["embedding.weight"])


def test_gradients_do_not_add_up(trained, monkeypatch):
    """At a rate of 0, without dropout, every epoch has the gradients of the first."""
    monkeypatch.setattr(torch, "randperm", lambda size: torch.arange(size))
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
    norms = trained([0.1] * 3, epochs=3, learning_rate=0.0).norms
    assert norms[2:4] == pytest.approx(norms[:2], rel=1e-4) and norms[4:] == pytest.approx(norms[:2], rel=1e-4)


def test_prediction_is_without_dropout_and_restores_the_mode():
    torch.manual_seed(0)
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<sos>", "<eos>", "<unk>", "a", "b", "c"])}
    model = Text2Emotion(7, 8, 8, 8, 8, dropout=0.9)
    texts = ["a b", "c", "b b b", "c a", "a"] * 20
    for training in (True, False):
        model.train(training)
        for _ in range(3):
            assert predict_emotions(model, texts, vocabulary)[:5] * 20 == predict_emotions(model, texts, vocabulary)
        assert all(module.training == training for module in model.modules())


def test_missing_word_vectors_are_drawn_with_the_deviation_of_the_others(tmp_path):
    """GloVe's words to the number, <pad> zero, and unknown words by the deviation of the known numbers."""
    vocabulary = {"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3} | {f"w{n}": 4 + n for n in range(400)}
    lines = [f"w{n} " + " ".join(str((n * 7 + k * 3) % 11 * 4 - 20) for k in range(20)) for n in range(0, 400, 2)]
    (tmp_path / "glove.txt").write_text("\n".join(lines) + "\n")
    table = train_text2emotion.read_glove(tmp_path / "glove.txt", vocabulary, seed=3)
    known = table[4::2]
    assert known.tolist() == [[float(number) for number in line.split()[1:]] for line in lines]
    drawn = torch.cat([table[1:4], table[5::2]])
    assert drawn.std().item() == pytest.approx(known.std(correction=0).item(), rel=0.05) and known.std() > 5
    assert abs(drawn.mean()) < 1 and not table[0].any()
    assert torch.equal(table, train_text2emotion.read_glove(tmp_path / "glove.txt", vocabulary, seed=3))


def test_training_starts_from_the_word_vectors(tmp_path, monkeypatch):
    seen = []
    vocabulary = {"<pad>": 0, "<sos>": 1, "<eos>": 2, "<unk>": 3, "sky": 4, "sea": 5}
    monkeypatch.setattr(train_text2emotion, "load_vocabulary", lambda path: vocabulary)
    monkeypatch.setattr(train_text2emotion, "read_splits", lambda path, words: splits())
    monkeypatch.setattr(train_text2emotion, "train", lambda model, *_: seen.append(model.embedding.weight.clone()))
    monkeypatch.setattr(train_text2emotion, "accuracy", lambda *_: 0.5)
    (tmp_path / "glove.txt").write_text("sky 1 2 3\nsea -4 5 -6\n")
    flags = [f"--data_dir={tmp_path}", f"--glove={tmp_path / 'glove.txt'}", f"--out={tmp_path / 'c.safetensors'}"]
    train_text2emotion.main([*flags, "--device", "cpu", "--sizes", "8", "8", "8", "8"])
    assert seen[0][4:].tolist() == [[1, 2, 3], [-4, 5, -6]] and not seen[0][0].any()
