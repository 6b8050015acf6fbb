"""Errors of a loader's workers: one line in the main process."""

import multiprocessing.util
import os
import signal

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from utils.data.datasets import EvaluationImages, ImagePixels, loader_processes, worker_errors
from utils.errors import InputError


class Images(ImagePixels):
    def load(self, image_names):
        if image_names == ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if image_names == ["fault"]:
            raise RuntimeError("a bug")
        return super().load(image_names)


def test_an_error_of_a_worker_is_one_line(tmp_path):
    @worker_errors()
    def load(*names):
        records = {str(number): {"image_name": name} for number, name in enumerate(names)}
        images = EvaluationImages(records, Images(tmp_path, 4, (0.5,) * 3, (0.5,) * 3))
        return [batch["pixels"].shape for batch in DataLoader(images, batch_size=1, **loader_processes(2))]

    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    assert load("a.jpg", "a.jpg", "a.jpg") == [(1, 3, 4, 4)] * 3
    with pytest.raises(InputError) as refusal:
        load("a.jpg", "b.jpg")
    assert str(refusal.value) == f"{tmp_path}: no image b.jpg; see preprocess/resize_wikiart.py's manifest"
    with pytest.raises(InputError, match=r"a process that loads images has died \(DataLoader worker .*--num_workers"):
        load("a.jpg", "kill")
    with pytest.raises(RuntimeError, match="Traceback"):  # a bug keeps its traceback
        load("a.jpg", "fault")


def test_a_temporary_folder_too_long_for_sockets_is_refused(monkeypatch):
    """The workers would report the error on stderr while the training waits for a batch for ever."""
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: "/" + 88 * "x")
    assert loader_processes(3)["num_workers"] == 3
    monkeypatch.setattr(multiprocessing.util, "get_temp_dir", lambda: "/" + 89 * "x")
    with pytest.raises(InputError, match="x: too long a path for the sockets.*TMPDIR.*--num_workers 0"):
        loader_processes(2)
    assert loader_processes(0)["num_workers"] == 0


SMALL = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"
KILLED = (
    "DataLoader worker (pid 1) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit."
)


@pytest.mark.parametrize("error", [SMALL, KILLED])
def test_a_small_shared_memory_is_one_line(error):
    message = "found no room in shared memory.*--num_workers 0.*--shm-size"
    with pytest.raises(InputError, match=message), worker_errors():
        raise RuntimeError(error)
