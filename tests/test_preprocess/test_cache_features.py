"""preprocess/cache_features.py: which images are encoded, and what the flags do (the cache: tests/test_data)."""

import shutil

import numpy as np
import pytest
import torch

from models.image_encoder import ImageFeatures
from preprocess.cache_features import difference, main
from tests.bad_input import TRAIN, VAL
from utils.data.feature_cache import FeatureCache

FLAGS = "--image_root data/images --clip_model vit --from_scratch --num_workers 0"


def test_flags_decide_the_features(box):
    found = []
    for flags in ("", "--seed 42", "--seed 3", "--image_normalization own"):
        main([TRAIN, *FLAGS.split(), "--out_dir", "made", *flags.split()])
        loaded = FeatureCache(box / "made").load([f"Baroque/p{n}.jpg" for n in range(3)])
        found.append([image["cls"].float().numpy() for image in loaded])
        shutil.rmtree("made")
    for default, same, seeded, normalized in zip(*found, strict=True):
        assert np.array_equal(default, same)
        assert not np.allclose(default, seeded, atol=0.1) and not np.allclose(default, normalized, atol=1e-3)


def test_the_images_of_all_splits_are_encoded_once(box, capsys):
    main([TRAIN, VAL, TRAIN, *FLAGS.split(), "--out_dir", "out", "--check", "9"])
    assert "4 images in out, 4 of them new; 4 checked" in capsys.readouterr().out
    main([VAL, *FLAGS.split(), "--out_dir", "estimated", "--estimate"])
    assert capsys.readouterr().out.startswith("1 images: 0.00 GB, about 0.0 minutes")
    assert not (box / "estimated").exists()


@pytest.mark.parametrize("wrong", ["cls", "grid"])
def test_difference_is_that_of_the_worse_of_class_token_and_grid(wrong):
    fresh = ImageFeatures(torch.rand(1, 4), torch.rand(1, 9, 4))
    cached = {name: features[0].half() for name, features in fresh._asdict().items()}
    assert difference(cached, fresh) < 1e-3
    cached[wrong] = 1.5 * cached[wrong]
    assert difference(cached, fresh) == pytest.approx(0.5, abs=1e-3)
