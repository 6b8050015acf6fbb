"""What several tests of evaluation share."""

import shutil
import subprocess
import tarfile

import pytest

from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer


@pytest.fixture(scope="session")
def codec() -> TextCodec:
    return TextCodec(load_tokenizer(str(SHIPPED_BPE)), " the emotion is", 30)


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """axe-core's script, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm, which axe-core is had from")
    try:
        subprocess.run(["npm", "pack", "axe-core"], cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm cannot fetch axe-core")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()
