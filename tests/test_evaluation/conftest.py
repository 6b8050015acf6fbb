"""What several tests of evaluation share."""

import pytest

from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    return TextCodec(load_tokenizer(str(SHIPPED_BPE)), " the emotion is", 30)
