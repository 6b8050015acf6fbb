"""preprocess/cache_features.py: what is encoded, and refused splits, images and flags (the cache itself: tests/test_data)."""

import shutil

import numpy as np

from preprocess.cache_features import main
from tests.bad_input import TRAIN, VAL
from utils.data.feature_cache import FeatureCache

FLAGS = "--image_root data/images --clip_model vit --from_scratch --num_workers 0"
GOOD = f"{TRAIN} {FLAGS} --out_dir out"
IMAGE = "data/images/Baroque/p1.jpg"


def features(box, flags):
    main([TRAIN, *FLAGS.split(), "--out_dir", str(box / "made"), *flags.split()])
    made = FeatureCache(box / "made")
    found = {f"p{n}": made.load([f"Baroque/p{n}.jpg"])[0]["cls"].float().numpy() for n in range(3)}
    shutil.rmtree(box / "made")
    return found


def test_flags_decide_the_features(box):
    default = features(box, "")
    same, seeded, normalized = (
        features(box, flags) for flags in ("--seed 42", "--seed 3", "--image_normalization own")
    )
    for name, vector in default.items():
        assert np.array_equal(vector, same[name])
        assert not np.allclose(vector, seeded[name], atol=0.1) and not np.allclose(vector, normalized[name], atol=1e-3)


def test_the_images_of_all_splits_are_encoded_once(box, capsys):
    main([TRAIN, VAL, TRAIN, *FLAGS.split(), "--out_dir", "out", "--check", "9"])
    assert "4 images in out, 4 of them new; 4 checked" in capsys.readouterr().out
    main([VAL, *FLAGS.split(), "--out_dir", "estimated", "--estimate"])
    assert (
        capsys.readouterr().out.startswith("1 images: 0.00 GB, about 0.0 minutes") and not (box / "estimated").exists()
    )
