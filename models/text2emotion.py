"""ArtEmis' text-to-emotion LSTM: the judge of emotion alignment, naming the emotion that an explanation conveys."""

from collections.abc import Iterable

import torch
from nltk.tokenize import NLTKWordTokenizer
from torch import Tensor, nn

from utils.constants import EMOTIONS, PUNCTUATION

PAD, SOS, EOS, UNK = range(4)
_TO_BLANKS = str.maketrans(dict.fromkeys(PUNCTUATION, " "))


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
        words = tokenizer.tokenize(text.lower().translate(_TO_BLANKS)) or ["<unk>"]
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
