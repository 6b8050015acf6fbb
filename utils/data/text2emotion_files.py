"""Files of the text-to-emotion classifier: safetensors files are read and written, ArtEmis' pickled best_model.pt is read."""

import json
import re
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from models.text2emotion import Text2Emotion
from utils.data.pretrained import check_finite
from utils.data.untrusted_files import load_vocabulary, read_module_tensors, vocabulary_path
from utils.errors import InputError, brief
from utils.files import atomic_path, check_regular

# Text2Emotion's prefixes of the tensors' names -> the prefixes in the module that ArtEmis pickled as best_model.pt.
ARTEMIS_NAMES = {
    "embedding.": "text_encoder.word_embedding.0.",
    "projection.1.": "text_encoder.word_embedding.2.",
    "projection.4.": "text_encoder.word_embedding.5.",
    "lstm.": "text_encoder.rnn.",
    "classifier.": "clf_head.net.",
}
METADATA_KEY = "text2emotion"


def save_text2emotion(path: str | Path, model: Text2Emotion, vocabulary: dict[str, int]) -> None:
    """Write weights and vocabulary to one safetensors file, atomically. Equal inputs give equal bytes."""
    words = json.dumps({"vocabulary": list(vocabulary)}, ensure_ascii=False)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={METADATA_KEY: words}))


def load_text2emotion(path: str | Path, vocabulary: str | Path | None = None) -> tuple[Text2Emotion, dict[str, int]]:
    """Read a classifier.

    Args:
        path: a file written by `save_text2emotion`, or ArtEmis' own best_model.pt (no code in it is run).
        vocabulary: vocabulary.pkl, needed for best_model.pt. None: two folders above best_model.pt, as in ArtEmis.

    Returns:
        the model, in evaluation mode on the CPU, and its vocabulary, word -> index.

    Raises:
        InputError: a file is missing, damaged or not such a classifier, or model and vocabulary do not match.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        state, vocabulary = _read_safetensors(path)
    else:
        state = read_module_tensors(path)
        for prefix, artemis in ARTEMIS_NAMES.items():
            state = {re.sub(f"^{re.escape(artemis)}", prefix, name): tensor for name, tensor in state.items()}
        vocabulary = load_vocabulary(vocabulary_path(path, vocabulary))
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
    except Exception as error:  # other weights lack a name, or have shapes that fit no classifier
        raise InputError(
            f"{path}: not a text-to-emotion classifier ({brief(error)}); train one with preprocess/train_text2emotion.py"
        ) from None
    check_finite(model, str(path), "train one with preprocess/train_text2emotion.py")
    if words != len(vocabulary):
        raise InputError(
            f"{path}: made for {words} words, but its vocabulary has {len(vocabulary)}; take the vocabulary.pkl that it was "
            "trained with"
        )
    return model.eval(), vocabulary


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, int]]:
    check_regular(path, "train one with preprocess/train_text2emotion.py")
    try:
        with safe_open(path, framework="pt") as file:
            words = json.loads((file.metadata() or {})[METADATA_KEY])["vocabulary"]
            return {name: file.get_tensor(name) for name in file.keys()}, {word: i for i, word in enumerate(words)}
    except Exception as error:  # safetensors raises its own errors, and the metadata may hold anything
        raise InputError(
            f"{path}: not written by preprocess/train_text2emotion.py ({brief(error)}); train it again"
        ) from None
