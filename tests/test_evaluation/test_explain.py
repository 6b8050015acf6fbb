"""utils.explain, as a command and as `load` in Python: its texts are the evaluation's; words, heat, bad files and flags."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import artEmisX_train
from tests.conftest import REPOSITORY
from utils import explain
from utils.constants import EMOTIONS, IMAGE_FOLDERS
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.generation import sample_decode, sample_seed
from utils.explain import load
from utils.visualize import explainer
from utils.visualize.answers import Answer, Explanation, in_percent


@pytest.fixture(scope="module")
def ask(run, tmp_path_factory):
    """Runs the command on images and gives what --json holds."""
    out = tmp_path_factory.mktemp("asked") / "answers.json"

    def ask(*argv: object) -> list[dict]:
        assert explain.main([*map(str, argv), "--ckpt", str(run / "ckpts"), "--json", str(out)]) == 0
        return json.loads(out.read_text())

    return ask


@pytest.fixture(scope="module")
def loaded(run):
    return load(run)


@pytest.fixture(scope="module")
def images(workspace) -> list[Path]:
    """Those of the evaluated split."""
    records = read_records(workspace.data / "artEmisX_val.json").values()
    return [workspace.data / IMAGE_FOLDERS[0] / record["image_name"] for record in records]


@pytest.fixture(scope="module")
def greedy(ask, images) -> list[dict]:
    return ask(*images, "--batch_size", "3")


def captions(folder: Path, kind: str, place: str = "0_0") -> list[str]:
    """Those of an evaluation, in the order of the split."""
    return [row["caption"] for row in json.loads((folder / f"unf_captions_{kind}_{place}_step.json").read_text())]


def texts_of(answers: list[dict]) -> list[str]:
    return [explanation["text"] for answer in answers for explanation in answer["explanations"]]


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_texts_are_the_evaluations(run, images, greedy):
    assert texts_of(greedy) == captions(run / "results", "full")
    assert [answer["explanations"][0]["explanation"] for answer in greedy] == captions(run / "results", "exp")
    assert [answer["image"] for answer in greedy] == list(map(str, images))
    assert len(set(texts_of(greedy))) > 1, "one text for all images would hide a wrong order"
    for answer in greedy:
        assert list(answer["likelihood"]) == list(answer["head"]) == list(EMOTIONS)
        assert sum(answer["likelihood"].values()) == pytest.approx(1, abs=1e-5) and 0 < answer["named"] < 1 + 1e-5


@pytest.mark.slow
def test_beams_and_distributions_are_the_evaluations(images, ask, greedy, run, workspace, tmp_path):
    """--num_beams is the same search in the evaluation as here; the distributions are the same as well."""
    scoring = ("--eval_only", "--load_from_epoch", "best-res", "--num_beams", "3", "--ckpt_path", run / "ckpts")
    assert artEmisX_train.main(workspace.argv(tmp_path, *map(str, scoring), "--vad_lexicon", str(run / "VAD.txt"))) == 0
    beams = texts_of(ask(*images, "--num_beams", "3"))
    assert beams == captions(tmp_path / "results", "full", "best-res_0") and beams != texts_of(greedy)
    for source in ("head", "likelihood"):
        rows = json.loads((tmp_path / "results" / f"emotion_{source}_best-res_0_step.json").read_text())
        assert len({row["probabilities"][0] for row in rows}) > 1
        for row, answer in zip(rows, greedy, strict=True):
            assert row["probabilities"] == pytest.approx(list(answer[source].values()), abs=1e-5)


@pytest.mark.slow
def test_given_emotions_and_samples(images, loaded, greedy):
    """Samples depend on the image and the seed alone, not on the others; rerank keeps the likeliest."""
    every = loaded(images[0], emotion="all").explanations
    assert [one.emotion for one in every] == list(EMOTIONS)
    assert all(one.given and one.text.startswith(f"{one.emotion} because") for one in every)
    assert loaded(images[0], emotion="awe").text == every[1].text

    options = {"num_samples": 4, "temperature": 0.3, "top_p": 0.8}
    sampled = [[one.text for one in answer.explanations] for answer in loaded(images[:2], **options)]
    assert [len(texts) for texts in sampled] == [4, 4] and len({*sampled[0], *sampled[1]}) > 3
    again, other = (loaded(images[1], **options, seed=seed).explanations for seed in (0, 1))
    assert [one.text for one in again] == sampled[1] != [one.text for one in other]
    first = loaded(images[:2], num_samples=1, top_p=1e-6)
    assert [answer.text for answer in first] == texts_of(greedy)[:2]
    best = loaded(images[1], **options, seed=1, rerank="likelihood").explanations
    assert [one.text for one in best] == [max(other, key=lambda one: one.log_probability).text]


def test_sampling_flags_reach_the_sampler(images, ask, loaded, monkeypatch):
    seen = []

    def sample(model, image, prompt, vad_of, *more, **named):
        seen.append((*more, len(prompt.ids), named))
        return sample_decode(model, image, prompt, vad_of, *more, **named)

    monkeypatch.setattr(explainer, "sample_decode", sample)
    flags = ("--temperature", "1.5", "--top_p", "0.4", "--min_new_tokens", "7", "--seed", "5")
    ask(images[0], "--num_samples", "2", *flags, "--emotion", "something else")
    seeds = [sample_seed(5, loaded.trained.pixels.transform(Image.open(images[0])).numpy().tobytes())]
    named = {"temperature": 1.5, "top_p": 0.4, "min_new_tokens": 7, "max_new_tokens": 25 - 3}
    assert seen == [(seeds, 2, 4 + 3, named)]
    assert len({sample_seed(0, b"dark"), sample_seed(0, b"light"), sample_seed(1, b"dark")}) == 3


def test_a_path_a_pil_image_or_a_list(loaded, images, tmp_path):
    first, second = images[:2]
    expected = loaded([str(first), second])
    assert isinstance(expected, list) and loaded([]) == []
    assert loaded(first).text == loaded(Image.open(first)).text == expected[0].text
    turned = Image.open(second).transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned back
    turned.save(tmp_path / "turned.png", exif=exif)
    for given in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert loaded(given).probabilities["head"] == pytest.approx(expected[1].probabilities["head"], abs=1e-5)
    grey = Image.open(first).convert("L")
    assert loaded(grey).image.mode == "RGB" and loaded(grey).image.size == grey.size


def test_a_run_that_was_moved(run, images, tmp_path):
    """Its lexicon is found where it now is; without one the message names the flag."""
    moved = shutil.copytree(run, tmp_path / "moved")
    (run / "VAD.txt").rename(run / "away.txt")
    try:
        assert load(moved)(images[0]).text
        (moved / "VAD.txt").unlink()
        with pytest.raises(InputError, match=r"needs a VAD lexicon \(.*VAD.txt does not exist\); name the file"):
            load(moved)
        assert load(moved, vad_lexicon=run / "away.txt")(images[0]).text
    finally:
        (run / "away.txt").rename(run / "VAD.txt")


def test_the_readmes_lines(run, images, loaded, monkeypatch):
    """In a folder beside runs/ and an image."""
    page = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(from utils.explain import load\n.*?)```", page, re.DOTALL)
    monkeypatch.chdir(run.parents[1])
    shutil.copy(images[0], "painting.jpg")
    found, expected = {}, loaded(images[0])
    exec(lines, found)
    assert (found["answer"].emotion, found["answer"].explanation) == (expected.emotion, expected.explanation)


# ---- words and where the model looked --------------------------------------------------------------------------------


def test_words_and_where_the_model_looked(loaded, images):
    answers = loaded(images)
    for answer in answers:
        assert " ".join(word.text for word in answer.words).split() == answer.text.split()
    answer = answers[0]
    sums = [word.heat_map.sum() for word in answer.words]
    assert sums == pytest.approx([1] * len(sums), abs=1e-5) and answer.words[0].heat_map.shape == (2, 2)
    known = answer.words[0].bare
    loaded.lexicon.values[known] = (0.5, -0.25, 0.125)  # an untrained model's texts seldom hold a word of the lexicon
    again = loaded(images[0]).words
    del loaded.lexicon.values[known]
    assert again[0].vad == (0.5, -0.25, 0.125)
    last = answer.words[-1]
    assert answer.heat_map(len(answer.words) - 1) is answer.heat_map(last) is last.heat_map
    assert np.array_equal(answer.heat_map(answer.words[0].text.upper()), answer.words[0].heat_map)
    with pytest.raises(KeyError, match="'nowhere' is none of the words"):
        answer.heat_map("nowhere")
    picture, whole = answer.heat_image(last), answer.image.size
    assert max(picture.size) == 448 and picture.size[0] / picture.size[1] == pytest.approx(
        whole[0] / whole[1], rel=0.02
    )
    plain = np.asarray(answer.image.resize(picture.size).convert("L"), float)
    row, column = divmod(int(last.heat_map.argmax()), 2)
    height, width = (side // 2 for side in plain.shape)
    patch = np.s_[row * height + 9 : (row + 1) * height - 9, column * width + 9 : (column + 1) * width - 9]
    shaded = np.asarray(picture.convert("L"), float)
    assert shaded[patch].mean() == pytest.approx(plain[patch].mean(), abs=6) and shaded.mean() < plain.mean()


def test_heat(tmp_path, images, run, monkeypatch):
    """The weights are means over the chosen blocks, counted from 1; the file's ending chooses the form."""
    monkeypatch.chdir(tmp_path)
    hostile = Path("<img onerror=alert(1)>.jpg")
    hostile.write_bytes(images[0].read_bytes())
    seen, ckpt, plain = [], ["--ckpt", str(run / "ckpts")], explainer.cross_attention
    monkeypatch.setattr(explainer, "cross_attention", lambda *given: seen.append(plain(*given)) or seen[-1])
    words = explainer.heat_of_words
    monkeypatch.setattr(explainer, "heat_of_words", lambda *given: seen.append(given) or words(*given))
    monkeypatch.setattr(
        "utils.visualize.heat_map.write_png", lambda path, heat, blocks: seen.append((path.name, heat, blocks))
    )
    assert explain.main([str(hostile), str(images[1]), *ckpt, "--heat", "heat.html", "--heat_blocks", "2"]) == 0
    page = Path("heat.html").read_text(encoding="utf-8")
    assert "&lt;img onerror=alert(1)&gt;.jpg" in page and "<img onerror" not in page and "block 2." in page
    assert page.count("<section>") == 2
    for flags, names, blocks in ((("--heat_blocks", "1"), "block 1", [0]), ((), "all blocks", [0, 1])):
        del seen[:]
        assert explain.main([str(images[1]), *ckpt, "--heat", "heat.png", "--emotion", "fear", *flags]) == 0
        weights, (tokens, of_tokens, _, lexicon, skipped), (name, heat, shown) = seen
        assert (name, shown, heat.name, skipped) == ("heat.png", names, str(images[1]), 2)
        assert max(heat.image.size) <= 448 and len(heat.lines) == 2 and lexicon.values
        assert heat.texts[0].title.startswith("the emotion is fear because")
        expected = weights[0, : len(tokens)][:, blocks].mean(1).numpy()
        assert of_tokens == pytest.approx(expected, abs=1e-6) and len(tokens) > 2


# ---- printed and written ---------------------------------------------------------------------------------------------


def test_a_broken_image_of_a_folder_is_left_out(tmp_path, images, ask, capsys):
    """Of two images, one in a subfolder, a broken one, and other files."""
    folder = tmp_path / "folder"
    for name, content in {
        "a.jpg": images[0].read_bytes(),
        "below/c.PNG": images[1].read_bytes(),
        "b.jpg": images[0].read_bytes()[:300],
        "notes.txt": b"no image",
        "._a.jpg": b"of another system",
        "__MACOSX/a.jpg": b"of another system",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "loop").symlink_to(folder)
    answers = ask(folder, folder / "a.jpg", "--batch_size", "1")
    assert [answer["image"] for answer in answers] == [str(folder / "a.jpg"), str(folder / "below" / "c.PNG")]
    printed = capsys.readouterr()
    assert f"left out: {folder / 'b.jpg'}: unreadable image" in printed.err and "notes.txt" not in printed.err
    assert "2 explained, 1 left out; wrote" in printed.out.splitlines()[-1]
    assert f"the emotion is {texts_of(answers)[0]}" in printed.out and "by its emotion head: " in printed.out
    with pytest.raises(InputError, match="none of 1 images could be read"):
        ask(folder / "b.jpg")


def test_lines_about_probabilities():
    """One per cent is printed by itself; a text that is not the likeliest is explained."""
    probabilities = dict(zip(EMOTIONS, [0.01, 0.6, 0.37, 0.009, 0.006, 0.005, 0, 0, 0], strict=True))
    assert in_percent(probabilities) == "awe 60%, contentment 37%, amusement 1%, others 2.0%"
    assert in_percent({"awe": 0.5, "fear": 0.5}) == "awe 50%, fear 50%"

    def lines(emotion: str, given: bool = False, given_tokens: int = 0, drawn: float | None = None) -> list[str]:
        text = Explanation("", emotion, "x", given, [1], given_tokens, drawn)
        return Answer({"likelihood": probabilities}, 1.0, [text]).distribution_lines()

    assert "the text names fear, but awe is the likeliest of the nine names" in lines("fear")[1]
    assert lines("awe") == lines("fear", given=True) == lines("fear", given_tokens=2) == lines("fear", drawn=-0.5)
    assert lines("awe") == ["by the likelihood of the names: awe 60%, contentment 37%, amusement 1%, others 2.0%"]


def test_table(tmp_path, images, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("=1+1.jpg").write_bytes(images[0].read_bytes())
    argv = ["=1+1.jpg", str(images[0]), "--ckpt", str(run / "ckpts"), "--emotion", "all", "--csv", "out/table.csv"]
    assert explain.main(argv) == 0
    rows = list(csv.DictReader(open("out/table.csv", encoding="utf-8", newline="")))
    assert [row["image"] for row in rows] == ["'=1+1.jpg"] * 9 + [str(images[0])] * 9
    assert [row["emotion"] for row in rows] == list(EMOTIONS) * 2 and {row["given"] for row in rows} == {"True"}
    assert sum(float(rows[0][f"p_{emotion}"]) for emotion in EMOTIONS) == pytest.approx(1, abs=1e-5)
    assert rows[0] == rows[9] | {"image": "'=1+1.jpg"}


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--emotion", "joy"], r"invalid choice: 'joy' \(choose from .*awe.*something else"),
        (["--temperature", "2"], "--temperature is about samples: pass --num_samples"),
        (["--rerank", "clip"], "--rerank is about samples"),
        (["--num_samples", "2", "--rerank_model", "x"], "--rerank_model is the CLIP model of --rerank clip"),
        (["--num_samples", "2", "--top_p", "nan"], "nan is not between"),
        (["--num_samples", "2", "--num_beams", "2"], "give one of them"),
        (["--heat", "x.gif"], "neither .png nor .html"),
        (["a.jpg", "b.jpg", "--heat", "x.png"], "shows one image, not 2; give a name that ends in .html"),
        (["--heat", "x.html", "--heat_blocks", "3"], "the decoder has 2 blocks"),
        (["--heat_blocks", "1"], "pass --heat FILE"),
        (["--json", "same", "--csv", "./same"], "same file"),
        (["--json", "a.jpg"], "is one of the images"),
        (["--json", "a.jpg/x.json"], "a.jpg is not a folder; name another folder"),
        (["--name", "77"], "no checkpoint '77' in it; give --name best-acc or best-res"),
        (["--ckpt", "nowhere"], "nowhere: no such folder; give the --ckpt_path"),
        (["--ckpt", "."], "no checkpoint 'best-res' in it; give the --ckpt_path of a training"),
        (["--vad_lexicon", "gone.txt"], "gone.txt: no such file; name the lexicon"),
        (["--device", "nonsense"], "--device nonsense: .*; give another, or leave it out"),
        (["empty"], "empty: no image in this folder .*; name another"),
        (["gone.jpg"], "gone.jpg: no such image or folder"),
    ],
)
def test_refused_before_the_model_is_loaded(flags, message, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explainer, "load_checkpoint", None)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (9, 9)).save(name)
    Path("empty").mkdir()
    images = ["a.jpg"] if flags[0].startswith("-") else []
    with pytest.raises(InputError, match=message) as raised:
        explain.main(["--ckpt", str(run / "ckpts"), *images, *flags])
    assert "\n" not in str(raised.value)


def test_wrong_arguments_in_python(loaded, run, images, tmp_path):
    for arguments, message in (
        ({"emotion": "joy"}, "emotion 'joy': give one of amusement"),
        ({"rerank": "likelihood"}, "rerank 'likelihood': .* together with num_samples"),
        ({"rerank": "best", "num_samples": 2}, "give clip or likelihood"),
    ):
        with pytest.raises(InputError, match=message):
            loaded(images[0], **arguments)
    with pytest.raises(InputError, match="gone.jpg: no such image file"):
        loaded(tmp_path / "gone.jpg")
    with pytest.raises(InputError, match="gone.txt: no such file; name the lexicon's file"):
        load(run, vad_lexicon=tmp_path / "gone.txt")
