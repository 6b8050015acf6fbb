"""ArtEmis' text-to-emotion LSTM. It classifies the emotion that an explanation conveys, for emotion alignment (EA)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from utils.constants import EMOTIONS, PUNCTUATION

PAD, SOS, EOS, UNK = range(4)
_PUNCTUATION_TO_BLANKS = str.maketrans(dict.fromkeys(PUNCTUATION, " "))


class Text2Emotion(nn.Module):
    """A text classifier: embedding, projection MLP, LSTM, maximum over time, classifier MLP, nine logits.

    The default sizes are those of Achlioptas et al., "ArtEmis", 2021. The dropout rate is that of its saved model.

    Args:
        vocabulary_size: number of words, special symbols included.
        embedding_size, projection_size, hidden_size, classifier_size: widths of the word vectors, the projection, the
            LSTM and the classifier's hidden layer.
        dropout: rate in [0, 1).
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
        """Compute the emotion logits of a batch of texts.

        Args:
            tokens: [B, L] integers, each row <sos> words <eos> <pad>...; at least one word in each.
            longest: number of words to which texts are padded. For a shorter text the maximum over time includes a 0
                from the padding. None (default) pads to the longest text of the batch, as ArtEmis' code does; the
                logits then depend on the batch.

        Returns:
            [B, 9] logits in the order of `EMOTIONS`.
        """
        lengths = ((tokens != PAD) & (tokens != SOS) & (tokens != EOS)).sum(dim=1)
        longest = int(lengths.max()) if longest is None else longest
        words = tokens[:, 1 : 1 + longest]
        states, _ = self.lstm(self.projection(self.embedding(words)))
        padding = torch.arange(words.shape[1], device=tokens.device) >= lengths[:, None]
        states = states.masked_fill(padding[:, :, None], -torch.inf).amax(dim=1)
        return self.classifier(torch.where((lengths < longest)[:, None], states.clamp(min=0), states))


def encode_texts(texts: Iterable[str], vocabulary: dict[str, int]) -> Tensor:
    """Encode N texts as token ids [N, L]: <sos> words <eos>, padded with <pad>.

    Texts are lower-cased, punctuation is replaced by spaces, and NLTK's word tokenizer splits the rest. An empty text
    becomes one <unk>.
    """
    from nltk.tokenize import NLTKWordTokenizer  # here, as the import takes a second and few runs need it

    tokenizer = NLTKWordTokenizer()
    rows = []
    for text in texts:
        words = tokenizer.tokenize(text.lower().translate(_PUNCTUATION_TO_BLANKS)) or ["<unk>"]
        rows.append(torch.tensor([SOS, *(vocabulary.get(word, UNK) for word in words), EOS]))
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


@torch.inference_mode()
def predict_emotions(
    model: Text2Emotion, texts: list[str], vocabulary: dict[str, int], batch_size: int = 1024
) -> list[str]:
    """Predict the emotion of each text, in the order of the texts.

    All texts are padded beyond the longest one, so that the maximum over time includes the padding's 0 for every text
    and a prediction does not depend on the batch. In ArtEmis' code this holds for all but a batch's longest texts.
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
