"""utils.explain, as a command and as `load` in Python: its texts are the evaluation's; words, heat, bad files and flags."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import artEmisX_train
from tests.conftest import REPOSITORY
from utils import explain
from utils.constants import EMOTIONS, IMAGE_FOLDERS
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.generation import sample_decode, sample_seed
from utils.explain import load
from utils.files import read_json
from utils.visualize import explainer
from utils.visualize.answers import Answer, Explanation, in_percent
from utils.visualize.heat_map import cross_attention, write_html


@pytest.fixture(scope="module")
def ask(run, tmp_path_factory):
    """Runs the command on images and gives what --json holds."""
    out = tmp_path_factory.mktemp("asked") / "answers.json"

    def ask(*argv: object) -> list[dict]:
        assert explain.main([*map(str, argv), "--ckpt", str(run / "ckpts"), "--json", str(out)]) == 0
        return read_json(out)

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


def of_evaluation(results: Path, kind: str, field: str = "caption", place: str = "0_0") -> list:
    """What an evaluation wrote, in the order of the split."""
    return [row[field] for row in read_json(results / f"{kind}_{place}_step.json")]


def texts_of(answers: list[dict], field: str = "text") -> list[str]:
    return [explanation[field] for answer in answers for explanation in answer["explanations"]]


# ---- answers ---------------------------------------------------------------------------------------------------------


def test_answers_are_the_evaluations(run, images, greedy):
    results = run / "results"
    assert texts_of(greedy) == of_evaluation(results, "unf_captions_full")
    assert texts_of(greedy, "explanation") == of_evaluation(results, "unf_captions_exp")
    assert [answer["image"] for answer in greedy] == list(map(str, images))
    assert len(set(texts_of(greedy))) > 1, "one text for all images would hide a wrong order"
    for source in ("head", "likelihood"):
        distributions = of_evaluation(results, f"emotion_{source}", "probabilities")
        assert all(list(answer[source]) == list(EMOTIONS) for answer in greedy)
        found = np.array([list(answer[source].values()) for answer in greedy])
        assert found == pytest.approx(np.array(distributions), abs=1e-5) and found.std(axis=0).max() > 1e-4
    assert all(0 < answer["named"] < 1 + 1e-5 for answer in greedy)


@pytest.mark.slow
def test_beams_are_the_evaluations(images, ask, greedy, run, workspace, tmp_path):
    """--num_beams is the same search in the evaluation as here."""
    scoring = ("--eval_only", "--load_from_epoch", "best-res", "--num_beams", "3", "--ckpt_path", str(run / "ckpts"))
    assert artEmisX_train.main(workspace.argv(tmp_path, *scoring, "--vad_lexicon", str(run / "VAD.txt"))) == 0
    beams = texts_of(ask(*images, "--num_beams", "3"))
    assert beams == of_evaluation(tmp_path / "results", "unf_captions_full", place="best-res_0") != texts_of(greedy)


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
    (best,) = loaded(images[1], **options, seed=1, rerank="likelihood").explanations
    assert best.text == max(other, key=lambda one: one.log_probability).text


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
    found = loaded(Image.open(tmp_path / "turned.png"))
    assert found.probabilities["head"] == pytest.approx(expected[1].probabilities["head"], abs=1e-5)
    grey = Image.open(first).convert("L")
    assert loaded(grey).image.mode == "RGB" and loaded(grey).image.size == grey.size


def test_the_lexicon_of_a_run_that_was_moved(run, images, tmp_path):
    moved = shutil.copytree(run, tmp_path / "moved")
    (run / "VAD.txt").rename(run / "away.txt")
    try:
        assert load(moved)(images[0]).text
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
    answer, other = loaded(images[:2])
    for one in (answer, other):
        assert " ".join(word.text for word in one.words).split() == one.text.split()
    first, last = answer.words[0], answer.words[-1]
    assert [word.heat_map.shape for word in answer.words] == [(2, 2)] * len(answer.words)
    assert all(word.heat_map.sum() == pytest.approx(1, abs=1e-5) for word in answer.words)
    loaded.lexicon.values[first.bare] = (0.5, -0.25, 0.125)  # an untrained model's texts seldom hold a word of it
    assert loaded(images[0]).words[0].vad == (0.5, -0.25, 0.125)
    del loaded.lexicon.values[first.bare]
    assert answer.heat_map(len(answer.words) - 1) is answer.heat_map(last) is last.heat_map
    assert answer.heat_map(first.text.upper()) is first.heat_map
    with pytest.raises(KeyError, match="'nowhere' is none of the words"):
        answer.heat_map("nowhere")


def test_the_image_is_dark_where_the_model_did_not_look(loaded, images):
    answer = loaded(images[0])
    word, shaded = answer.words[-1], answer.heat_image(answer.words[-1])
    width, height = answer.image.size
    assert max(shaded.size) == 448 and shaded.width / shaded.height == pytest.approx(width / height, rel=0.02)
    plain, shaded = (np.asarray(image.convert("L"), float) for image in (answer.image.resize(shaded.size), shaded))
    row, column = divmod(int(word.heat_map.argmax()), 2)
    height, width = (side // 2 for side in plain.shape)
    patch = np.s_[row * height + 9 : (row + 1) * height - 9, column * width + 9 : (column + 1) * width - 9]
    assert shaded[patch].mean() == pytest.approx(plain[patch].mean(), abs=6) and shaded.mean() < plain.mean()


def test_heat_of_chosen_blocks(loaded, images):
    """Means over the chosen blocks, counted from 1; the words of a given emotion are left out."""
    answer, trained = loaded(Image.open(images[1]).resize((896, 600)), emotion="fear"), loaded.trained
    tokens = [answer.explanations[0].tokens]
    weights = cross_attention(trained.model, answer.features, trained.codec, loaded.vad_of, tokens)
    for chosen, blocks in (((1,), [0]), ((2,), [1]), ((), [0, 1])):
        (heat,) = loaded.heats(["a name"], [answer], chosen)
        (text,) = heat.texts
        assert text.title == f"the emotion is {answer.text}" and heat.lines == answer.distribution_lines()
        assert (heat.name, heat.image.size) == ("a name", (448, 300))
        assert len(text.words) == len(answer.text.split()) - 2
        expected = weights[0, -1, blocks].mean(dim=0).numpy()  # of the last word, which is one token
        assert text.words[-1].heat_map.ravel() == pytest.approx(expected, abs=1e-6)


def test_files_of_heat_maps(tmp_path, images, run, loaded):
    """The file's ending chooses the form."""
    names, found, expected = list(map(str, images[:2])), tmp_path / "heat.html", tmp_path / "expected.html"
    argv = ["--ckpt", str(run / "ckpts"), "--heat_blocks", "2", "--heat"]
    assert explain.main([*names, *argv, str(found)]) == 0
    write_html(expected, loaded.heats(names, loaded(images[:2]), [2]), "block 2")
    assert found.read_text() == expected.read_text()
    assert explain.main([names[0], *argv, str(tmp_path / "heat.PNG")]) == 0
    assert Image.open(tmp_path / "heat.PNG").format == "PNG"


# ---- printed and written ---------------------------------------------------------------------------------------------


def test_a_broken_image_of_a_folder_is_left_out(tmp_path, images, ask, capsys):
    for name, source, size in (("a.jpg", images[0], None), ("b.jpg", images[0], 300), ("below/c.PNG", images[1], None)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(source.read_bytes()[:size])
    answers = ask(tmp_path, "--batch_size", "1")
    assert [answer["image"] for answer in answers] == [str(tmp_path / "a.jpg"), str(tmp_path / "below" / "c.PNG")]
    printed = capsys.readouterr()
    assert f"left out: {tmp_path / 'b.jpg'}: unreadable image" in printed.err
    assert "2 explained, 1 left out; wrote" in printed.out.splitlines()[-1]
    assert f"the emotion is {texts_of(answers)[0]}" in printed.out and "by its emotion head: " in printed.out
    with pytest.raises(InputError, match="none of 1 images could be read"):
        ask(tmp_path / "b.jpg")


def test_lines_about_probabilities():
    """One per cent is printed by itself; a text that is not the likeliest is explained."""
    probabilities = dict(zip(EMOTIONS, [0.01, 0.6, 0.37, 0.009, 0.006, 0.005, 0, 0, 0], strict=True))
    assert in_percent({"awe": 0.5, "fear": 0.5}) == "awe 50%, fear 50%"

    def lines(emotion: str, given: bool = False, given_tokens: int = 0, drawn: float | None = None) -> list[str]:
        text = Explanation("", emotion, "x", given, [1], given_tokens, drawn)
        return Answer({"likelihood": probabilities}, 1.0, [text]).distribution_lines()

    assert "the text names fear, but awe is the likeliest of the nine names" in lines("fear")[1]
    assert lines("awe") == lines("fear", given=True) == lines("fear", given_tokens=2) == lines("fear", drawn=-0.5)
    assert lines("awe") == ["by the likelihood of the names: awe 60%, contentment 37%, amusement 1%, others 2.0%"]


def test_table(tmp_path, images, loaded, ask):
    ask(*images[:2], "--emotion", "all", "--csv", tmp_path / "out/table.csv")
    table, answers = pd.read_csv(tmp_path / "out/table.csv"), loaded(images[:2])
    assert list(table.image) == [str(image) for image in images[:2] for _ in EMOTIONS]
    assert list(table.emotion) == list(EMOTIONS) * 2 and table.given.all()
    for row, answer in ((0, answers[0]), (9, answers[1])):
        for column, source in (("p", "likelihood"), ("head", "head")):
            found = {emotion: table[f"{column}_{emotion}"][row] for emotion in EMOTIONS}
            assert found == pytest.approx(answer.probabilities[source], abs=1e-5)


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--emotion joy", r"invalid choice: 'joy' \(choose from .*awe.*something else"),
        ("--temperature 2", "--temperature is about samples: pass --num_samples"),
        ("--num_samples 2 --rerank_model x", "--rerank_model is the CLIP model of --rerank clip"),
        ("--num_samples 2 --num_beams 2", "give one of them"),
        ("--heat x.gif", "neither .png nor .html"),
        ("--heat x.png", "shows one image, not 2; give a name that ends in .html"),
        ("--heat x.html --heat_blocks 3", "the decoder has 2 blocks"),
        ("--heat_blocks 1", "pass --heat FILE"),
        ("--json same --csv ./same", "same file"),
        ("--json a.jpg", "is one of the images"),
        ("--json a.jpg/x.json", "a.jpg is not a folder; name another folder"),
        ("--name 77", "no checkpoint '77' in it; give --name best-acc or best-res"),
        ("--ckpt nowhere", "nowhere: no such folder; give the --ckpt_path"),
        ("--ckpt .", "no checkpoint 'best-res' in it; give the --ckpt_path of a training"),
        ("--vad_lexicon gone.txt", "gone.txt: no such file; name the lexicon"),
        ("--device nonsense", "--device nonsense: .*; give another, or leave it out"),
    ],
)
def test_refused_before_the_model_is_loaded(flags, message, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explainer, "load_checkpoint", None)
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (9, 9)).save(name)
    with pytest.raises(InputError, match=message) as raised:
        explain.main(["a.jpg", "b.jpg", "--ckpt", str(run / "ckpts"), *flags.split()])
    assert "\n" not in str(raised.value)


def test_wrong_arguments_in_python(loaded, images):
    for arguments, message in (
        ({"emotion": "joy"}, "emotion 'joy': give one of amusement"),
        ({"rerank": "likelihood"}, "rerank 'likelihood': .* together with num_samples"),
        ({"rerank": "best", "num_samples": 2}, "give clip or likelihood"),
    ):
        with pytest.raises(InputError, match=message):
            loaded(images[0], **arguments)


def test_a_model_trained_in_fp16_is_asked_in_float32_without_a_gpu(capsys):
    assert explainer._precision("fp16", torch.device("cpu")) is None and "needs a GPU" in capsys.readouterr().out
    assert explainer._precision("fp16", torch.device("cuda")) == torch.float16
    assert explainer._precision("bf16", torch.device("cpu")) == torch.bfloat16
