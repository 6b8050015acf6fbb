"""What speaks against a scored file being the test split that it is said to be."""

from pathlib import Path

from utils.constants import TEST_SETS
from utils.data.image_names import split_name
from utils.data.records import Records
from utils.errors import InputError
from utils.files import read_json

V1_TEST_IMAGES = 7933


def split_warnings(
    evaluated_path: str | Path,
    records: Records,
    train_records: Records | None,
    test_set: str | None,
    note: str | None = None,
) -> list[str]:
    """What speaks against the evaluated file being the test split that it is said to be.

    Args:
        evaluated_path: the JSON split that was scored.
        records: its records.
        train_records: the training images, or None when there is no such file, which is said too.
        test_set: what the run claims to score, one of `TEST_SETS`, or None when it claims nothing (validation).
        note: a finding about the training file itself, which takes the place of saying that there is none.

    Returns:
        one line for each finding; empty when there is none.
    """
    path = Path(evaluated_path)
    found = []
    name = path.stem.lower()
    if test_set is not None:
        for split in ("val", "train"):
            if split in name.split("_"):
                found.append(f"{path.name} is scored as test set {test_set}, but its name says {split}")
        named = [other for other in TEST_SETS if other != test_set and other in name]
        if named and test_set not in name:
            found.append(f"{path.name} is scored as test set {test_set}, but its name says {named[0]}")
        if test_set == "v1.0" and len(records) != V1_TEST_IMAGES:
            found.append(f"{path.name} has {len(records)} images, the v1.0 test split has {V1_TEST_IMAGES}")
        found += _shared_with_siblings(path, records)
    if note is not None:
        found.append(note)
    elif train_records is None and test_set is not None:
        found.append("no training file was found, so images shared with training were not looked for")
    if train_records is not None:
        found += _shared(path, records, train_records, "the training file")
    return found


def _shared_with_siblings(path: Path, records: Records) -> list[str]:
    """Images in common with a validation split that lies beside the evaluated file."""
    found = []
    for sibling in sorted(path.parent.glob("*_val.json")):
        if sibling.resolve() == path.resolve():
            continue
        try:
            others = read_json(sibling)
        except InputError:
            continue
        if isinstance(others, dict):
            found += _shared(path, records, others, sibling.name)
    return found


def _shared(path: Path, records: Records, others: dict, where: str) -> list[str]:
    """By image id, and by name without extension: ids of other preprocessing differ for the same image."""
    names = {split_name(str(record.get("image_name")))[0] for record in others.values() if isinstance(record, dict)}
    shared = [
        record["image_name"]
        for image, record in records.items()
        if image in others or split_name(record["image_name"])[0] in names
    ]
    if not shared:
        return []
    return [f"{len(shared)} of the {len(records)} images of {path.name} are in {where} as well, e.g. {shared[0]}"]
