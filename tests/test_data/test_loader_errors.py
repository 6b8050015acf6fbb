"""A loader's workers in trouble: one line in the main process."""

import os
import signal

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from utils.data.datasets import EvaluationImages, ImagePixels
from utils.data.loader_errors import worker_errors
from utils.errors import InputError


class Pictures(ImagePixels):
    def load(self, image_names):
        if image_names == ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if image_names == ["fault"]:
            raise RuntimeError("of ours")
        return super().load(image_names)


def load(folder, *names):
    records = {str(number): {"image_name": name} for number, name in enumerate(names)}
    images = Pictures(folder, 4, (0.5,) * 3, (0.5,) * 3)
    with worker_errors():
        for batch in DataLoader(EvaluationImages(records, images), batch_size=1, num_workers=2):
            assert batch["pixels"].shape == (1, 3, 4, 4)


def test_an_error_of_a_worker_is_one_line(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{name}.jpg")
    load(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(InputError) as refusal:
        load(tmp_path, "a.jpg", "b.jpg")
    assert str(refusal.value) == f"{tmp_path}: no image b.jpg; see preprocess/resize_wikiart.py's manifest"
    with pytest.raises(InputError, match=r"a process that loads images has died \(DataLoader worker .*--num_workers"):
        load(tmp_path, "a.jpg", "kill")
    with pytest.raises(RuntimeError, match="Traceback"):  # a fault of ours keeps its place
        load(tmp_path, "a.jpg", "fault")
