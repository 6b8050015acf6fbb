"""Train the text-to-emotion classifier for emotion alignment (EA) on ArtEmis' preprocessed annotations.

    python preprocess/train_text2emotion.py --data_dir data/artEmis/preprocess_data_nets --glove glove.6B.100d.txt

ArtEmis' training is published in part: the architecture and its sizes, Adam with learning rate 5e-4, halved at epochs
10, 20 and 30, batches of 1024 texts, 63.4 % test accuracy. The rest is our choice. The loss is the cross-entropy with
the annotator's emotion. The result has the weights of the epoch with the best validation accuracy. Training stops after five
epochs without a better one, or after 40 epochs. Word vectors are trained, too; vectors of words that GloVe lacks are
drawn from a normal distribution with the standard deviation of GloVe's vectors.
"""

import argparse
import copy
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from utils.processes import prepare_environment

if __name__ == "__main__":
    prepare_environment()

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from models.text2emotion import EOS, PAD, SOS, Text2Emotion
from preprocess.csv_tables import column_of_integers, read_table
from utils.constants import EMOTIONS
from utils.data.text2emotion_files import save_text2emotion
from utils.data.untrusted_files import load_vocabulary
from utils.errors import InputError, OneLineParser, number, run_script
from utils.files import check_place, check_regular

PUBLISHED_ACCURACY = 0.634
LR_MILESTONES = (10, 20, 30)
COLUMNS = ["split", "tokens_encoded", "emotion_label"]

Split = tuple[Tensor, Tensor]  # tokens [N, L] int64, labels [N] int64


def get_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(description="Train ArtEmis' text-to-emotion LSTM, the classifier for emotion alignment.")
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path("data/artEmis/preprocess_data_nets"),
        help="folder with artemis_preprocessed.csv and vocabulary.pkl (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file to write (default: txt_to_emotion/lstm_based/text2emotion.safetensors in --data_dir)",
    )
    parser.add_argument("--glove", type=Path, help="initial word vectors: one word and its numbers per line")
    parser.add_argument(
        "--sizes",
        type=number(int, 1),
        nargs=4,
        default=[100, 256, 256, 100],
        metavar=("EMBEDDING", "PROJECTION", "LSTM", "CLASSIFIER"),
        help="widths; the width of --glove's vectors replaces the first (default: ArtEmis', %(default)s)",
    )
    parser.add_argument(
        "--epochs", type=number(int, 1), default=40, help="at most this many epochs (default: %(default)s)"
    )
    parser.add_argument(
        "--patience",
        type=number(int, 1),
        default=5,
        help="stop after this many epochs in a row without a better validation accuracy (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size",
        type=number(int, 2),  # for batch normalisation
        default=1024,
        help="texts in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--learning_rate", type=number(float, 1e-12), default=5e-4, help="Adam's (default: %(default)s)"
    )
    parser.add_argument("--seed", type=number(int, 0, 2**63 - 1), default=2021, help="(default: %(default)s)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    return parser


def read_splits(path: Path, vocabulary: dict[str, int]) -> dict[str, Split]:
    """Read the tokens and labels of the splits train, val and test from artemis_preprocessed.csv.

    Raises:
        InputError: the file is missing or not such a table, a row is damaged, or a split is empty.
    """
    remedy = "make it with preprocess/prepare_artemis.py"
    table = read_table(path, COLUMNS, remedy)
    table["emotion_label"] = column_of_integers(table, "emotion_label", path, remedy)
    splits = {}
    for name in ("train", "val", "test"):
        rows = table[table.split == name]
        if rows.empty:
            raise InputError(f"{path}: has no rows of split {name!r}; rebuild it with preprocess/prepare_artemis.py")
        tokens, labels = [], []
        for line, encoded, label in zip(rows.index + 2, rows.tokens_encoded, rows.emotion_label, strict=True):
            tokens.append(_tokens(path, line, encoded, len(vocabulary)))
            if label not in range(len(EMOTIONS)):
                raise InputError(f"{path}: line {line}: emotion_label {label!r} is not one of 0 .. 8; rebuild the file")
            labels.append(int(label))
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=PAD)
        splits[name] = padded, torch.tensor(labels)
    return splits


def _tokens(path: Path, line: int, encoded: object, words: int) -> Tensor:
    """Parse and check one row's token ids: <sos> words <eos> <pad>..., all in the vocabulary."""
    try:
        ids = json.loads(encoded)
        end = ids.index(EOS)
        if (
            ids[0] == SOS
            and end > 1
            and not any(ids[end + 1 :])
            and all(type(i) is int and EOS < i < words for i in ids[1:end])
        ):
            return torch.tensor(ids[: end + 1])
    except (TypeError, ValueError, AttributeError, LookupError):
        pass
    raise InputError(
        f"{path}: line {line}: tokens_encoded is not a list [1, words, 2, 0, ...] in the vocabulary's {words} words; "
        "file and vocabulary.pkl must come from one preprocessing"
    )


def read_glove(path: Path, vocabulary: dict[str, int], seed: int) -> Tensor:
    """Read word vectors [V, width] for the vocabulary from GloVe's text file.

    Vectors of words that the file lacks are drawn from N(0, s), s being the standard deviation of the others. The
    vector of <pad> is 0.

    Raises:
        InputError: the file is missing or malformed, or contains no word of the vocabulary.
    """
    vectors: dict[str, np.ndarray] = {}
    check_regular(path, "download GloVe 6B or leave --glove out")
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(tqdm(file, desc="word vectors", unit=" lines", mininterval=1), start=1):
                word, _, numbers = line.rstrip("\n").partition(" ")
                if word in vocabulary:
                    vectors[word] = np.array(numbers.split(), dtype=np.float32)
                    if len(vectors[word]) != len(next(iter(vectors.values()))) or not len(vectors[word]):
                        raise ValueError(f"line {number} has {len(vectors[word])} numbers")
                    if not np.isfinite(vectors[word]).all():
                        raise ValueError(f"line {number} has a number that is not finite")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a GloVe text file ({str(error)[:120]})") from None
    if not vectors:
        raise InputError(f"{path}: contains no word of the vocabulary; give GloVe's text file, e.g. glove.6B.100d.txt")
    known = np.stack(list(vectors.values()))
    table = np.random.default_rng(seed).normal(0, known.std(), (len(vocabulary), known.shape[1])).astype(np.float32)
    table[[vocabulary[word] for word in vectors]] = known
    table[PAD] = 0
    print(f"word vectors: {len(vectors)} of {len(vocabulary)} words found, width {known.shape[1]}")
    return torch.from_numpy(table)


@torch.inference_mode()
def accuracy(model: Text2Emotion, split: Split, batch_size: int, device: torch.device) -> float:
    """Accuracy, in [0, 1]: how often the most likely emotion is the annotator's."""
    model.eval()
    tokens, labels = split
    correct = 0
    for ids, answers in zip(tokens.split(batch_size), labels.split(batch_size), strict=True):
        # pad to the width of the whole split, so that the accuracy does not depend on the batches
        predicted = model(ids.to(device), longest=tokens.shape[1]).argmax(dim=1)
        correct += int((predicted.cpu() == answers).sum())
    return correct / len(labels)


def train(model: Text2Emotion, splits: dict[str, Split], args: argparse.Namespace, device: torch.device) -> None:
    """Train `model`; it ends with the weights of the epoch with the best validation accuracy."""
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, LR_MILESTONES, gamma=0.5)
    tokens, labels = splits["train"]
    best, best_state, since_best = -1.0, {}, 0
    for epoch in range(1, args.epochs + 1):
        model.train()
        batches = torch.randperm(len(labels)).split(args.batch_size)
        if len(batches) > 1 and len(batches[-1]) == 1:  # batch normalisation needs two texts
            batches = batches[:-1]
        total = 0.0
        for rows in tqdm(batches, desc=f"epoch {epoch}", leave=False):
            loss = nn.functional.cross_entropy(model(tokens[rows].to(device)), labels[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        scheduler.step()
        score = accuracy(model, splits["val"], args.batch_size, device)
        print(f"epoch {epoch}: training loss {total / len(labels):.4f}, validation accuracy {100 * score:.2f} %")
        if score > best:
            best, best_state, since_best = score, copy.deepcopy(model.state_dict()), 0
        else:
            since_best += 1
            if since_best >= args.patience:
                print(f"stopped: {since_best} epochs in a row without a better validation accuracy")
                break
    model.load_state_dict(best_state)


def check_arguments(args: argparse.Namespace) -> torch.device:
    """Check the output file and the device before the long work; returns the device."""
    if args.out.suffix != ".safetensors":
        raise InputError(f"--out {args.out}: give a name that ends in .safetensors")
    check_place(args.out)
    name = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise InputError(f"--device {name}: torch has no such device on this machine; try cpu") from None
    return device


def main(argv: list[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    args.out = args.out or args.data_dir / "txt_to_emotion/lstm_based/text2emotion.safetensors"
    device = check_arguments(args)
    vocabulary = load_vocabulary(args.data_dir / "vocabulary.pkl")
    splits = read_splits(args.data_dir / "artemis_preprocessed.csv", vocabulary)
    print(", ".join(f"{name} {len(labels)} texts" for name, (_, labels) in splits.items()), f"on {device}")
    if len(splits["train"][1]) < 2:
        raise InputError(f"{args.data_dir / 'artemis_preprocessed.csv'}: at least two training texts are needed")
    torch.manual_seed(args.seed)
    vectors = read_glove(args.glove, vocabulary, args.seed) if args.glove else None
    model = Text2Emotion(len(vocabulary), args.sizes[0] if vectors is None else vectors.shape[1], *args.sizes[1:])
    if vectors is not None:
        model.embedding.weight.data.copy_(vectors)
    model.to(device)
    train(model, splits, args, device)
    save_text2emotion(args.out, model, vocabulary)
    scores = {name: accuracy(model, splits[name], args.batch_size, device) for name in ("val", "test")}
    print(
        f"test accuracy {100 * scores['test']:.1f} % (published, ArtEmis v1.0: {100 * PUBLISHED_ACCURACY:.1f} %), "
        f"validation {100 * scores['val']:.1f} %\nwrote {args.out}"
    )


if __name__ == "__main__":
    sys.exit(run_script(main))
