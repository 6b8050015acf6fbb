"""ArtEmis' text-to-emotion LSTM: the judge of emotion alignment, naming the emotion that an explanation conveys."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from nltk.tokenize import NLTKWordTokenizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from utils.constants import EMOTIONS
from utils.errors import InputError
from utils.files import atomic_path, read_bytes
from utils.safe_pickle import load_text2emotion_state, load_vocabulary

PAD, SOS, EOS, UNK = range(4)
PUNCTUATION = str.maketrans(dict.fromkeys(r".?!,:;/\-~*_=[–]{}$^@|%#<—>", " "))

# Our names of the tensors and, behind them, their names in the module that ArtEmis pickled as best_model.pt.
ARTEMIS_NAMES = {
    "embedding.": "text_encoder.word_embedding.0.",
    "projection.1.": "text_encoder.word_embedding.2.",
    "projection.4.": "text_encoder.word_embedding.5.",
    "lstm.": "text_encoder.rnn.",
    "classifier.": "clf_head.net.",
}
METADATA_KEY = "text2emotion"


class Text2Emotion(nn.Module):
    """Words -> embedding, dropout, linear, ReLU, dropout, linear -> LSTM -> maximum over time -> MLP -> nine logits.

    The default sizes are ArtEmis' own (Achlioptas et al., "ArtEmis", 2021); the dropout is that of its saved modules.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int = 100,
        projection_size: int = 256,
        hidden_size: int = 256,
        classifier_size: int = 100,
        dropout: float = 0.25,
    ):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=PAD)
        self.projection = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(embedding_size, projection_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(projection_size, projection_size),
        )
        self.lstm = nn.LSTM(projection_size, hidden_size, batch_first=True)
        self.classifier = nn.Sequential(
            nn.Linear(hidden_size, classifier_size),
            nn.BatchNorm1d(classifier_size),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(classifier_size, len(EMOTIONS)),
        )

    def forward(self, tokens: Tensor, longest: int | None = None) -> Tensor:
        """Emotion logits of texts.

        Args:
            tokens: [B, L] integers, each row <sos> words <eos> <pad>...; at least one word in each.
            longest: a text with fewer words than this has a 0 among the values of its maximum over time. ArtEmis' code
                takes the batch's longest text (None, the default), so that its logits depend on the batch.

        Returns:
            [B, 9] logits in the order of `EMOTIONS`.
        """
        lengths = ((tokens != PAD) & (tokens != SOS) & (tokens != EOS)).sum(dim=1)
        longest = int(lengths.max()) if longest is None else longest
        words = tokens[:, 1 : 1 + longest]
        states, _ = self.lstm(self.projection(self.embedding(words)))
        behind = torch.arange(words.shape[1], device=tokens.device) >= lengths[:, None]
        states = states.masked_fill(behind[:, :, None], -torch.inf).amax(dim=1)
        return self.classifier(torch.where((lengths < longest)[:, None], states.clamp(min=0), states))


def encode_texts(texts: Iterable[str], vocabulary: dict[str, int]) -> Tensor:
    """Token ids [N, L] of texts: <sos> words <eos>, padded with <pad>.

    Texts are lower-cased, punctuation becomes a space, words are NLTK's; an empty text counts as one <unk>.
    """
    tokenizer = NLTKWordTokenizer()
    rows = []
    for text in texts:
        words = tokenizer.tokenize(text.lower().translate(PUNCTUATION)) or ["<unk>"]
        rows.append(torch.tensor([SOS, *(vocabulary.get(word, UNK) for word in words), EOS]))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


@torch.inference_mode()
def predict_emotions(
    model: Text2Emotion, texts: list[str], vocabulary: dict[str, int], batch_size: int = 1024
) -> list[str]:
    """The emotion of each text, in the order of the texts.

    The 0 of shorter texts counts for every text, so that a text's emotion does not depend on the batch it is in; in
    batches of ordinary size that is what all but the longest texts meet anyway.
    """
    was_training = model.training
    model.eval()
    device = model.embedding.weight.device
    emotions = []
    for start in range(0, len(texts), batch_size):
        tokens = encode_texts(texts[start : start + batch_size], vocabulary).to(device)
        emotions += [EMOTIONS[label] for label in model(tokens, longest=tokens.shape[1]).argmax(dim=1).tolist()]
    model.train(was_training)
    return emotions


def save_text2emotion(path: str | Path, model: Text2Emotion, vocabulary: dict[str, int]) -> None:
    """Write weights and vocabulary into one safetensors file, atomically; the same input gives the same bytes."""
    words = json.dumps({"vocabulary": list(vocabulary)}, ensure_ascii=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={METADATA_KEY: words}))


def load_text2emotion(
    path: str | Path, vocabulary_path: str | Path | None = None
) -> tuple[Text2Emotion, dict[str, int]]:
    """Read a classifier, in evaluation mode, on the CPU.

    Args:
        path: a file of `save_text2emotion`, or ArtEmis' own best_model.pt (which is not unpickled freely).
        vocabulary_path: vocabulary.pkl, which best_model.pt does not hold. None: two folders above best_model.pt, where
            ArtEmis has it.

    Returns:
        the model and its vocabulary, word -> index.

    Raises:
        InputError: a file is missing, damaged or no such classifier, or model and vocabulary do not belong together.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        state, vocabulary = _read_safetensors(path)
    else:
        state = load_text2emotion_state(path)
        for ours, theirs in ARTEMIS_NAMES.items():
            state = {
                ours + name.removeprefix(theirs) if name.startswith(theirs) else name: state[name] for name in state
            }
        vocabulary = load_vocabulary(vocabulary_path or path.absolute().parents[2] / "vocabulary.pkl")
    try:
        words, embedding_size = state["embedding.weight"].shape
        model = Text2Emotion(
            words,
            embedding_size,
            projection_size=state["projection.1.weight"].shape[0],
            hidden_size=state["lstm.weight_hh_l0"].shape[1],
            classifier_size=state["classifier.0.weight"].shape[0],
        )
        model.load_state_dict(state)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{path}: not a text-to-emotion classifier ({reason}); train one with preprocess/train_text2emotion.py"
        ) from None
    if words != len(vocabulary):
        raise InputError(
            f"{path}: made for {words} words, but its vocabulary has {len(vocabulary)}; take the vocabulary.pkl it was "
            "trained with"
        )
    return model.eval(), vocabulary


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    read_bytes(path)  # for its message when the file is missing or unreadable
    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads((file.metadata() or {})[METADATA_KEY])["vocabulary"]
            return {name: file.get_tensor(name) for name in file.keys()}, {word: i for i, word in enumerate(words)}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: no file of preprocess/train_text2emotion.py ({' '.join(str(error).split())[:120]}); train it anew"
        ) from None
