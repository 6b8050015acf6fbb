"""utils.explain: its texts are the evaluation's; files, bad images and bad flags."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import artEmisX_train
from utils import explain
from utils.constants import EMOTIONS
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.generation import sample_seed
from utils.visualize import explainer


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory) -> Path:
    """A run with an emotion head, long enough that images get different texts."""
    out = tmp_path_factory.mktemp("trained")
    flags = ("--num_train_epochs", "4", "--use_emotion_loss", "--no-fixed_encoder", "--learning_rate", "0.01")
    assert artEmisX_train.main(workspace.argv(out, *flags, "--en_LR", "0.01", "--seed", "3")) == 0
    return out


@pytest.fixture
def ask(trained, tmp_path):
    """Runs the command on images and gives what --json holds."""

    def run(*argv: object) -> list[dict]:
        out = tmp_path / "answers.json"
        assert explain.main([*map(str, argv), "--ckpt", str(trained / "ckpts"), "--json", str(out)]) == 0
        return json.loads(out.read_text())

    return run


@pytest.fixture(scope="module")
def images(workspace) -> dict[str, Path]:
    """Image id -> file, of the evaluated split."""
    folder = workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    records = read_records(workspace.data / "artEmisX_val.json")
    return {image_id: folder / record["image_name"] for image_id, record in records.items()}


def captions_of_best(out: Path, kind: str) -> dict[str, str]:
    """The captions of the evaluation that best-res is from: the first of the best BLEU-4."""
    scores = {path: json.loads(path.read_text())["Bleu_4"] for path in sorted((out / "results").glob("scores_exp_*"))}
    best = max(scores, key=scores.get).name.replace("scores_exp", f"unf_captions_{kind}")
    return {str(line["image_id"]): line["caption"] for line in json.loads((out / "results" / best).read_text())}


def texts_of(answers: list[dict]) -> list[str]:
    return [explanation["text"] for answer in answers for explanation in answer["explanations"]]


def test_texts_are_the_evaluations(trained, images, ask):
    answers = ask(*images.values(), "--batch_size", "3")
    full, explanations = captions_of_best(trained, "full"), captions_of_best(trained, "exp")
    assert texts_of(answers) == [full[image_id] for image_id in images]
    assert [answer["explanations"][0]["explanation"] for answer in answers] == [explanations[i] for i in images]
    assert [answer["image"] for answer in answers] == list(map(str, images.values()))
    assert len(set(full.values())) > 1, "one text for all images would hide a wrong order"
    for answer in answers:
        assert list(answer["distribution"]) == list(answer["head"]) == list(EMOTIONS)
        assert sum(answer["distribution"].values()) == pytest.approx(1, abs=1e-5)
        assert sum(answer["head"].values()) == pytest.approx(1, abs=1e-5) and 0 < answer["named"] < 1 + 1e-5
    assert len({answer["head"]["awe"] for answer in answers}) > 1


def folder_of(tmp_path: Path, images: dict[str, Path]) -> Path:
    """Two images, one of them in a subfolder, a broken one, and other files."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    first, second, *_ = images.values()
    (folder / "a.jpg").write_bytes(first.read_bytes())
    (folder / "below" / "c.PNG").write_bytes(second.read_bytes())
    (folder / "b.jpg").write_bytes(first.read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    (folder / "._a.jpg").write_bytes(b"of another system")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "a.jpg").write_bytes(b"of another system")
    (folder / "loop").symlink_to(folder)
    return folder


def test_a_broken_image_of_a_folder_is_left_out(tmp_path, images, ask, capsys):
    folder = folder_of(tmp_path, images)
    answers = ask(folder, folder / "a.jpg", "--batch_size", "1")
    assert [answer["image"] for answer in answers] == [str(folder / "a.jpg"), str(folder / "below" / "c.PNG")]
    printed = capsys.readouterr()
    assert f"left out: {folder / 'b.jpg'}: unreadable image" in printed.err and "notes.txt" not in printed.err
    assert "2 explained, 1 left out; wrote" in printed.out.splitlines()[-1]
    assert f"the emotion is {texts_of(answers)[0]}" in printed.out and "by its emotion head: " in printed.out


def test_no_readable_image(tmp_path, images, trained):
    folder = folder_of(tmp_path, images)
    out = tmp_path / "out.json"
    with pytest.raises(InputError, match="none of 1 images could be read"):
        explain.main([str(folder / "b.jpg"), "--ckpt", str(trained / "ckpts"), "--json", str(out)])
    assert not out.exists()


def test_table(tmp_path, images, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = next(iter(images.values()))
    Path("=1+1.jpg").write_bytes(first.read_bytes())
    argv = ["=1+1.jpg", str(first), "--ckpt", str(trained / "ckpts"), "--emotion", "all", "--csv", "out/table.csv"]
    assert explain.main(argv) == 0
    rows = list(csv.DictReader(open("out/table.csv", encoding="utf-8", newline="")))
    assert [row["image"] for row in rows] == ["'=1+1.jpg"] * 9 + [str(first)] * 9
    assert [row["emotion"] for row in rows] == list(EMOTIONS) * 2 and {row["given"] for row in rows} == {"True"}
    assert sum(float(rows[0][f"p_{emotion}"]) for emotion in EMOTIONS) == pytest.approx(1, abs=1e-5)
    assert rows[0] == rows[9] | {"image": "'=1+1.jpg"}


@pytest.mark.slow
def test_given_emotions(images, ask):
    chosen = list(images.values())[:3]
    every = ask(*chosen, "--emotion", "all")
    for answer in every:
        assert [explanation["emotion"] for explanation in answer["explanations"]] == list(EMOTIONS)
        assert all(one["text"].startswith(f"{one['emotion']} because") for one in answer["explanations"])
    awe = ask(*chosen, "--emotion", "awe")
    assert [answer["explanations"] for answer in awe] == [answer["explanations"][1:2] for answer in every]
    assert [answer["distribution"]["awe"] for answer in awe] == pytest.approx([a["distribution"]["awe"] for a in every])


@pytest.mark.slow
def test_samples(images, ask):
    chosen = list(images.values())[:3]
    sampled = ask(*chosen, "--num_samples", "4", "--temperature", "1.5", "--top_p", "1")
    assert [len(answer["explanations"]) for answer in sampled] == [4] * 3 and len(set(texts_of(sampled))) > 4
    again = ask(chosen[1], "--num_samples", "4", "--temperature", "1.5", "--top_p", "1", "--seed", "0")
    assert texts_of(again) == texts_of(sampled)[4:8]
    other = ask(chosen[1], "--num_samples", "4", "--temperature", "1.5", "--top_p", "1", "--seed", "1")
    assert texts_of(other) != texts_of(again)
    sure = ask(*chosen, "--num_samples", "1", "--top_p", "0.000001")
    assert texts_of(sure) == texts_of(ask(*chosen))


@pytest.mark.slow
def test_beams(images, ask, trained, workspace):
    """--num_beams is the same search in the evaluation as here."""
    out = trained / "beams"
    scoring = (
        "--eval_only",
        "--load_from_epoch",
        "best-res",
        "--num_beams",
        "3",
        "--ckpt_path",
        str(trained / "ckpts"),
    )
    assert artEmisX_train.main(workspace.argv(out, *scoring)) == 0
    rows = json.loads((out / "results" / "unf_captions_full_best-res_0_step.json").read_text())
    captions = {str(row["image_id"]): row["caption"] for row in rows}
    beams, greedy = ask(*images.values(), "--num_beams", "3"), ask(*images.values())
    assert texts_of(beams) == [captions[image_id] for image_id in images] and texts_of(beams) != texts_of(greedy)


def test_heat(tmp_path, images, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, *_ = images.values()
    hostile = Path("<img onerror=alert(1)>.jpg")
    hostile.write_bytes(first.read_bytes())
    ckpt = ["--ckpt", str(trained / "ckpts")]
    assert explain.main([str(hostile), str(second), *ckpt, "--heat", "heat.html", "--heat_blocks", "2"]) == 0
    page = Path("heat.html").read_text(encoding="utf-8")
    assert "&lt;img onerror=alert(1)&gt;.jpg" in page and "<img onerror" not in page and "block 2." in page
    assert page.count("<section>") == 2

    seen, plain = [], explainer.cross_attention

    def on_one_patch(*arguments):
        weights = plain(*arguments)
        seen.append(weights.clone())
        weights[:] = 1e-6
        weights[..., 2] = 1  # of 2 x 2 patches the lower left
        return weights

    monkeypatch.setattr(explainer, "cross_attention", on_one_patch)
    Image.new("RGB", (300, 300), "white").save("white.png")
    assert explain.main(["white.png", *ckpt, "--heat", "heat.png", "--emotion", "awe"]) == 0
    assert seen[0].sum(-1).numpy() == pytest.approx(np.ones(seen[0].shape[:3]), abs=1e-5)
    page = np.asarray(Image.open("heat.png").convert("L")).astype(int)
    dark = np.abs(page - 51) <= 1
    top = np.flatnonzero(dark.sum(axis=1) > 60)[0]
    left = np.flatnonzero(dark[top])[0]
    assert left == 12 + 192  # beside the image itself
    panel = page[top : top + 180, left : left + 180]
    assert (panel[95:, :85] == 255).all() and (panel[:85] < 60).all() and (panel[95:, 95:] < 60).all()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--emotion", "joy"], r"invalid choice: 'joy' \(choose from .*awe.*something else"),
        (["--temperature", "2"], "--temperature is about samples: give --num_samples"),
        (["--seed", "2"], "--seed is about samples"),
        (["--num_samples", "2", "--temperature", "0"], "0 is not between 0.01 and 100"),
        (["--num_samples", "2", "--top_p", "nan"], "nan is not between"),
        (["--num_samples", "2", "--num_beams", "2"], "give one of them"),
        (["--heat", "x.gif"], "neither .png nor .html"),
        (["a.jpg", "b.jpg", "--heat", "x.png"], "shows one image, not 2; give a name that ends in .html"),
        (["--heat", "x.html", "--heat_blocks", "3"], "the decoder has 2 blocks"),
        (["--heat_blocks", "1"], "give --heat FILE"),
        (["--json", "same", "--csv", "./same"], "same file"),
        (["--json", "a.jpg"], "is one of the images"),
        (["--json", "a.jpg/x.json"], "a.jpg is not a folder; name another folder"),
        (["--json", "/sys/x.json"], "x.json: the folder /sys is not writable"),
        (["--name", "77"], "no checkpoint '77' in it; give --name best-acc or best-res"),
        (["--ckpt", "nowhere"], "nowhere: no such folder; give the --ckpt_path"),
        (["--ckpt", "."], "no checkpoint 'best-res' in it; give the --ckpt_path of a training"),
        (["--vad_lexicon", "gone.txt"], "gone.txt: no such file; name the lexicon"),
        (["empty"], "empty: no image in this folder .*; name another"),
        (["gone.jpg"], "gone.jpg: no such image or folder"),
    ],
)
def test_refused_before_the_model_is_loaded(flags, message, tmp_path, trained, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explainer, "load_checkpoint", None)
    if "/sys/x.json" in flags:
        monkeypatch.setattr("os.access", lambda path, mode: str(path) != "/sys")
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (9, 9)).save(name)
    Path("empty").mkdir()
    with pytest.raises(InputError, match=message) as raised:
        images = ["a.jpg"] if flags[0].startswith("-") else []
        explain.main(["--ckpt", str(trained / "ckpts"), *images, *flags])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_device_that_is_not_there(device, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(explainer, "load_checkpoint", None)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=f"--device {device}: .*; give another, or leave it out"):
        explain.main([str(tmp_path / "a.png"), "--ckpt", str(trained / "ckpts"), "--device", device])


def test_images_have_seeds_of_their_own():
    seeds = [sample_seed(0, b"dark"), sample_seed(0, b"light"), sample_seed(1, b"dark")]
    assert len(set(seeds)) == 3 and seeds[0] == sample_seed(0, b"dark")
