"""utils.explain: its texts are the evaluation's; files, bad images and bad flags."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import artEmisX_train
from utils import explain
from utils.constants import EMOTIONS, IMAGE_FOLDERS
from utils.data.records import read_records
from utils.errors import InputError
from utils.evaluation.evaluator import Evaluator
from utils.evaluation.generation import sample_decode, sample_seed
from utils.visualize import explainer
from utils.visualize.answers import in_percent


@pytest.fixture(scope="module")
def trained(workspace, tmp_path_factory) -> Path:
    """A run with an emotion head, whose weights are so large that images get different texts."""
    out, evaluate = tmp_path_factory.mktemp("trained"), Evaluator.__call__

    def with_large_weights(self, model):
        torch.manual_seed(0)
        with torch.no_grad():
            for part in (model.decoder, model.vad_encoder, model.emotion_head):
                for parameter in part.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.2)
        return evaluate(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", with_large_weights)
        flags = ("--num_train_epochs", "1", "--batch_size", "45", "--use_emotion_loss")
        assert artEmisX_train.main(workspace.argv(out, *flags)) == 0
    return out


@pytest.fixture(scope="module")
def ask(trained, tmp_path_factory):
    """Runs the command on images and gives what --json holds."""
    out = tmp_path_factory.mktemp("asked") / "answers.json"

    def run(*argv: object) -> list[dict]:
        assert explain.main([*map(str, argv), "--ckpt", str(trained / "ckpts"), "--json", str(out)]) == 0
        return json.loads(out.read_text())

    return run


@pytest.fixture(scope="module")
def images(workspace) -> dict[int, Path]:
    """Image id -> file, of the evaluated split."""
    records = read_records(workspace.data / "artEmisX_val.json")
    return {int(image): workspace.data / IMAGE_FOLDERS[0] / record["image_name"] for image, record in records.items()}


@pytest.fixture(scope="module")
def greedy(ask, images) -> list[dict]:
    return ask(*images.values(), "--batch_size", "3")


def captions(folder: Path, kind: str, place: str = "0_0") -> list[str]:
    """Those of an evaluation, in the order of the split."""
    return [row["caption"] for row in json.loads((folder / f"unf_captions_{kind}_{place}_step.json").read_text())]


def texts_of(answers: list[dict]) -> list[str]:
    return [explanation["text"] for answer in answers for explanation in answer["explanations"]]


def test_texts_are_the_evaluations(trained, images, greedy):
    assert texts_of(greedy) == captions(trained / "results", "full")
    explanations = [answer["explanations"][0]["explanation"] for answer in greedy]
    assert explanations == captions(trained / "results", "exp")
    assert [answer["image"] for answer in greedy] == list(map(str, images.values()))
    assert len(set(texts_of(greedy))) > 1, "one text for all images would hide a wrong order"
    for answer in greedy:
        assert list(answer["distribution"]) == list(answer["head"]) == list(EMOTIONS)
        assert sum(answer["distribution"].values()) == pytest.approx(1, abs=1e-5)
        assert sum(answer["head"].values()) == pytest.approx(1, abs=1e-5) and 0 < answer["named"] < 1 + 1e-5
    assert len({answer["head"]["awe"] for answer in greedy}) > 1


@pytest.fixture
def folder(tmp_path, images) -> Path:
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


def test_a_broken_image_of_a_folder_is_left_out(folder, ask, capsys):
    answers = ask(folder, folder / "a.jpg", "--batch_size", "1")
    assert [answer["image"] for answer in answers] == [str(folder / "a.jpg"), str(folder / "below" / "c.PNG")]
    printed = capsys.readouterr()
    assert f"left out: {folder / 'b.jpg'}: unreadable image" in printed.err and "notes.txt" not in printed.err
    assert "2 explained, 1 left out; wrote" in printed.out.splitlines()[-1]
    assert f"the emotion is {texts_of(answers)[0]}" in printed.out and "by its emotion head: " in printed.out
    with pytest.raises(InputError, match="none of 1 images could be read"):
        ask(folder / "b.jpg")


def test_small_probabilities_are_added_up():
    """One per cent is printed by itself."""
    probabilities = dict(zip(EMOTIONS, [0.01, 0.6, 0.37, 0.009, 0.006, 0.005, 0, 0, 0], strict=True))
    assert in_percent(probabilities) == "awe 60%, contentment 37%, amusement 1%, others 2.0%"
    assert in_percent({"awe": 0.5, "fear": 0.5}) == "awe 50%, fear 50%"


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
def test_samples(images, ask, greedy):
    """They depend on the image and --seed alone, not on the others nor on --batch_size."""
    chosen, flags = list(images.values())[:3], ("--num_samples", "4", "--temperature", "0.3", "--top_p", "0.8")
    sampled = ask(*chosen, *flags)
    assert [len(answer["explanations"]) for answer in sampled] == [4] * 3 and len(set(texts_of(sampled))) > 4
    assert texts_of(ask(chosen[1], *flags, "--seed", "0")) == texts_of(sampled)[4:8]
    assert texts_of(ask(chosen[1], *flags, "--seed", "1")) != texts_of(sampled)[4:8]
    assert texts_of(ask(*chosen, "--num_samples", "1", "--top_p", "0.000001")) == texts_of(greedy)[:3]


def test_sampling_flags_reach_the_sampler(images, ask, monkeypatch):
    seen = []

    def sample(model, image, prompt, vad_of, seeds, num_samples, **more):
        seen.append((num_samples, len(prompt.ids), more))
        return sample_decode(model, image, prompt, vad_of, seeds, num_samples, **more)

    monkeypatch.setattr(explainer, "sample_decode", sample)
    flags = ("--temperature", "1.5", "--top_p", "0.4", "--min_new_tokens", "7")
    ask(next(iter(images.values())), "--num_samples", "2", *flags, "--emotion", "something else")
    more = {"temperature": 1.5, "top_p": 0.4, "min_new_tokens": 7, "max_new_tokens": 25 - 3}
    assert seen == [(2, 4 + 3, more)]


@pytest.mark.slow
def test_beams_and_distributions_are_the_evaluations(images, ask, greedy, trained, workspace, tmp_path):
    """--num_beams is the same search in the evaluation as here; the distributions are the same as well."""
    scoring = ("--eval_only", "--load_from_epoch", "best-res", "--num_beams", "3", "--ckpt_path", trained / "ckpts")
    assert artEmisX_train.main(workspace.argv(tmp_path, *map(str, scoring))) == 0
    beams = texts_of(ask(*images.values(), "--num_beams", "3"))
    assert beams == captions(tmp_path / "results", "full", "best-res_0") and beams != texts_of(greedy)
    for source, key in (("head", "head"), ("likelihood", "distribution")):
        rows = json.loads((tmp_path / "results" / f"emotion_{source}_best-res_0_step.json").read_text())
        for row, answer in zip(rows, greedy, strict=True):
            assert row["probabilities"] == pytest.approx(list(answer[key].values()), abs=1e-5)


def test_heat(tmp_path, images, trained, monkeypatch):
    """The weights are means over the chosen blocks, counted from 1; the file's ending chooses the form."""
    monkeypatch.chdir(tmp_path)
    first, second, *_ = images.values()
    hostile = Path("<img onerror=alert(1)>.jpg")
    hostile.write_bytes(first.read_bytes())
    seen, ckpt, plain = [], ["--ckpt", str(trained / "ckpts")], explainer.cross_attention
    monkeypatch.setattr(explainer, "cross_attention", lambda *given: seen.append(plain(*given)) or seen[-1])
    words = explainer.heat_of_words
    monkeypatch.setattr(explainer, "heat_of_words", lambda *given: seen.append(given) or words(*given))
    monkeypatch.setattr(
        "utils.visualize.heat_map.write_png", lambda path, heat, blocks: seen.append((path.name, heat, blocks))
    )
    assert explain.main([str(hostile), str(second), *ckpt, "--heat", "heat.html", "--heat_blocks", "2"]) == 0
    page = Path("heat.html").read_text(encoding="utf-8")
    assert "&lt;img onerror=alert(1)&gt;.jpg" in page and "<img onerror" not in page and "block 2." in page
    assert page.count("<section>") == 2
    for flags, names, blocks in ((("--heat_blocks", "1"), "block 1", [0]), ((), "all blocks", [0, 1])):
        del seen[:]
        assert explain.main([str(second), *ckpt, "--heat", "heat.png", "--emotion", "fear", *flags]) == 0
        weights, (tokens, of_tokens, _, lexicon, skipped), (name, heat, shown) = seen
        assert (name, shown, heat.name, skipped) == ("heat.png", names, str(second), 2)
        assert max(heat.image.size) <= 448 and len(heat.lines) == 2 and lexicon.values
        assert heat.texts[0].title.startswith("the emotion is fear because")
        expected = weights[0, : len(tokens)][:, blocks].mean(1).numpy()
        assert of_tokens == pytest.approx(expected, abs=1e-6) and len(tokens) > 2


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
