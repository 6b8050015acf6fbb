"""What several files of this folder share: GPT-2's tokenizer with the added tokens, and a codec of the paper's prompt."""

import pytest

from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(str(SHIPPED_BPE))


@pytest.fixture(scope="session")
def codec(tokenizer) -> TextCodec:
    return TextCodec(tokenizer, " the emotion is", 30)
