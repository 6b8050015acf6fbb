"""Read annotation and result files in COCO's caption format."""

from collections.abc import Callable
from pathlib import Path

from cococaption.tokenizer import caption_problem
from utils.errors import InputError
from utils.files import read_json


def read_annotations(path: str | Path) -> dict[int, list[str]]:
    """Read and check reference captions: {"images": [{"id"}], "annotations": [{"id", "image_id", "caption"}], ...}.

    Returns:
        image id (64-bit integer) -> list of at least one caption. Images are in the order of "images", captions in the
        order of "annotations".

    Raises:
        InputError: the file is missing or not such a file; the message names the first bad record and the remedy.
    """
    remedy = "rebuild the file with preprocess/build_annotations.py"
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: a JSON object with images and annotations was expected; {remedy}")
    for part in ("images", "annotations"):
        if not isinstance(data.get(part), list) or not data[part]:
            raise InputError(f"{path}: {part!r} is missing or empty; {remedy}")

    captions: dict[int, list[str]] = {}
    places: dict[int, int] = {}
    for index, image in enumerate(data["images"]):
        problem = _fields_problem(image, {"id": _id_problem})
        if not problem and image["id"] in captions:
            problem = f"duplicate image id {image['id']} (also in images[{places[image['id']]}])"
        if problem:
            raise InputError(f"{path}: images[{index}]: {problem}; {remedy}")
        captions[image["id"]], places[image["id"]] = [], index

    seen: dict[int, int] = {}
    for index, annotation in enumerate(data["annotations"]):
        fields = {"id": _id_problem, "image_id": _id_problem, "caption": caption_problem}
        problem = _fields_problem(annotation, fields)
        if not problem and annotation["id"] in seen:
            problem = f"duplicate annotation id {annotation['id']} (also in annotations[{seen[annotation['id']]}])"
        if not problem and annotation["image_id"] not in captions:
            problem = f"image_id {annotation['image_id']} is not in images"
        if problem:
            raise InputError(f"{path}: annotations[{index}]: {problem}; {remedy}")
        seen[annotation["id"]] = index
        captions[annotation["image_id"]].append(annotation["caption"])

    for image_id, of_image in captions.items():
        if not of_image:
            raise InputError(f"{path}: image {image_id} has no annotation; remove it from images or add one")
    return captions


def read_results(path: str | Path) -> dict[int, str]:
    """Read and check generated captions: [{"image_id", "caption"}, ...], one per image, in the order of the file.

    Raises:
        InputError: the file is missing or not such a file; the message names the first bad record and the remedy.
    """
    remedy = 'one record per image is expected, {"image_id": integer, "caption": text}'
    data = read_json(path)
    if not isinstance(data, list) or not data:
        raise InputError(f"{path}: a JSON list with at least one record was expected; {remedy}")
    captions: dict[int, str] = {}
    for index, record in enumerate(data):
        problem = _fields_problem(record, {"image_id": _id_problem, "caption": caption_problem})
        if not problem and record["image_id"] in captions:
            first = list(captions).index(record["image_id"])  # so far every record has added one image
            problem = f"a second caption for image {record['image_id']} (the first is in record {first})"
        if problem:
            raise InputError(f"{path}: record {index}: {problem}; {remedy}")
        captions[record["image_id"]] = record["caption"]
    return captions


def _fields_problem(record: object, checks: dict[str, Callable[[object], str | None]]) -> str | None:
    if not isinstance(record, dict):
        return "is not a JSON object"
    for field, check in checks.items():
        if field not in record:
            return f"has no {field!r}"
        problem = check(record[field])
        if problem:
            return f"{field}: {problem}"
    return None


def _id_problem(value: object) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool) or not -(2**63) <= value < 2**63:
        return f"{str(value)[:40]!r} is not a 64-bit integer"
    return None
