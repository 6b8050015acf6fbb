"""The gallery and utils.inspect: which images a page shows, what is on it, and one line for wrong input."""

import base64
import io
import json
import re
import shutil

import pytest
from PIL import Image

from utils import gallery, inspect
from utils.data.records import read_records
from utils.data.text_codec import TextCodec, load_tokenizer
from utils.data.vad_lexicon import Lexicon
from utils.errors import InputError
from utils.visualize.gallery_page import Page, choose, record_card, thumbnail, title_and_byline
from utils.visualize.html_page import Word, render, tinter

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


def make_run(workspace, root):
    """A folder like a run's, whose captions are the annotators' first explanation; emotions of every second are wrong."""
    results = root / "results"
    results.mkdir(parents=True)
    shutil.copytree(workspace.data, root / "data")
    records = json.loads((root / "data" / "artEmisX_val.json").read_text())
    full, explanations, heads = [], [], []
    for index, (image, record) in enumerate(records.items()):
        emotion = record["emotions"][0] if index % 2 else "nonsense"
        base = {"image_id": int(image), "image_name": record["image_name"]}
        full.append(base | {"caption": f"{emotion} because {record['explanations'][0]}"})
        explanations.append(base | {"caption": record["explanations"][0]})
        heads.append(base | {"probabilities": [0.5, 0.5, *[0.0] * 7]})
    for name, listed in (("unf_captions_full", full), ("unf_captions_exp", explanations), ("emotion_head", heads)):
        (results / f"{name}_1_7_step.json").write_text(json.dumps(listed))
    flags = {
        "caption_save_path": "old/results",
        "nle_data_val_path": "old/data/artEmisX_val.json",
        "annFileExp": "old/data/annotations/artEmisX_val_annot_exp.json",
        "image_root": "old/data/wikiart_rescaled_max_size_to_600px_same_aspect_ratio",
        "vad_lexicon": "old/data/demo-VAD-Lexicon.txt",
    }
    (results / "log.jsonl").write_text(json.dumps({"start": {"flags": flags, "fingerprints": {}}}) + "\n")
    return root


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory):
    return make_run(workspace, tmp_path_factory.mktemp("gallery") / "moved")


def hostile_page() -> str:
    """A page of three images whose names and texts hold HTML."""
    tint = tinter(Lexicon({"sky": (0.5, -0.2, 0.1), "grief": (-1.0, 0.3, 0.0)}, None, "", "-1..1"))
    distribution = [0.0, 0.75, 0.25, *[0.0] * 6]
    record = {"emotions": ["awe"], "explanations": [HOSTILE], "origin_emotion_distribution": distribution}
    texts = {"awe": f"the sky {HOSTILE}", "fear": "grief and more", "awe ": "nothing"}
    cards = [
        record_card(
            record | {"image_name": f"{HOSTILE}/{HOSTILE}_{HOSTILE}{index}.jpg"},
            emotion.strip(),
            None,
            tint,
            distribution,
            words=tint(text),
            correctness="right" if index != 1 else "wrong",
            group="worst" if index == 0 else "best",
            scores={"CIDEr": float(index)},
        )
        for index, (emotion, text) in enumerate(texts.items())
    ]
    return render("page.html", page=Page(HOSTILE, HOSTILE, cards, [("ACC", "1.0")], tinted=True, model_name="model"))


def test_choice():
    scores = {image: float(image % 10) for image in range(100)}
    chosen = choose(scores, 8, seed=1)
    groups = {group: [image for image in chosen if chosen[image] == group] for group in ("worst", "best", "random")}
    assert groups["worst"] == [0, 10, 20] and groups["best"] == [99, 89, 79] and len(groups["random"]) == 2
    assert choose(scores, 8, seed=1) == chosen != choose(scores, 8, seed=2)
    assert len(choose(scores, 1000, seed=1)) == 100
    assert choose({5: 0.0}, 3, seed=1) == {5: "worst"}


def test_tinted_pieces_joined_are_the_text():
    tint = tinter(Lexicon({"tower": (0.5, -0.2, 0.1)}, None, "", "-1..1"))
    pieces = tint("Towers, the TOWER & towering-high")
    assert "".join(piece.text for piece in pieces) == "Towers, the TOWER & towering-high"
    assert [piece.text for piece in pieces if piece.vad] == ["Towers", "TOWER"]
    assert pieces[0].label == "V +0.50   A -0.20   D +0.10" and pieces[0].sign == "p" and pieces[0].strength == 50
    assert Word("x", (-0.25, 0, 0)).sign == "n"


def test_title_and_byline():
    assert title_and_byline("Color_Field/ann-lee_red-sea-7.jpg") == ("Red sea 7", "Ann Lee, Color Field")
    assert title_and_byline("odd.jpg")[0] == "odd"


def test_html_in_texts_and_names_stays_text():
    html = hostile_page()
    assert html.count("<script") == 1 and "<img src=x" not in html and "&lt;img src=x onerror=" in html


def test_a_page_is_self_contained():
    html = hostile_page()
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "url(" not in html and "@import" not in html
    assert "font-variant-numeric" in html and "addEventListener" in html


def test_thumbnail(tmp_path):
    Image.new("RGB", (500, 600), "red").save(tmp_path / "tall.png")
    small = thumbnail(tmp_path, "tall.png")
    content = base64.b64decode(small.url.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (small.width, small.height) == (333, 400)
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    assert "web page" in thumbnail(tmp_path, "broken.jpg").missing
    assert thumbnail(tmp_path, "none.jpg").missing == "no image file none.jpg"


def test_page_of_a_moved_run(run, capsys):
    gallery.main([str(run), "--number", "3", "--metrics", "bleu", "cider"])
    html = (run / "results" / "gallery_1_7.html").read_text()
    assert "3 images" in capsys.readouterr().out
    assert html.count('<article class="card"') == 3 and html.count("data:image/jpeg") == 3
    assert 'data-emotion="nonsense" data-correctness="wrong"' in html and 'data-correctness="right"' in html
    assert "B-4" in html and 'class="model" style="width:50%"' in html and 'data-vad="V ' in html


def test_the_page_names_the_source_of_the_models_distribution(run, tmp_path):
    """The head's where there is one, else the likelihoods of the emotions' names."""
    copy = shutil.copytree(run, tmp_path / "run")

    def page() -> str:
        gallery.main([str(copy), "--number", "2", "--metrics", "bleu", "--out", str(tmp_path / "page.html")])
        return (tmp_path / "page.html").read_text()

    names = ("the model&#39;s emotion head", "the model&#39;s text (probability of each emotion&#39;s name)")
    assert [page().count(name) for name in names] == [1 + 2, 0]  # the legend, and each table's heading
    (copy / "results" / "emotion_head_1_7_step.json").rename(copy / "results" / "emotion_likelihood_1_7_step.json")
    assert [page().count(name) for name in names] == [0, 1 + 2] and ">model<" not in page()


def test_wrong_input(run, tmp_path):
    def error(*argv):
        with pytest.raises(InputError) as caught:
            gallery.main([str(word) for word in argv])
        return str(caught.value)

    assert "no such folder" in error(tmp_path / "none")
    assert "no evaluation has finished yet" in error(tmp_path)
    assert "name one folder" in error()
    assert "not in" in (line := error(run, "--evaluation", "2_7")) and "give one of 1_7" in line
    test = run / "data" / "artEmisX_test.json"
    assert "another split; name theirs with --records" in error(run, "--records", test)
    assert "is a folder" in error(run, "--out", tmp_path)
    assert "cannot be written" in error(run, "--out", test / "x.html")
    shutil.copytree(run / "results", tmp_path / "alone")
    (tmp_path / "alone" / "log.jsonl").unlink()
    assert "name it with --records" in error("--results", tmp_path / "alone")
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "results" / "emotion_head_1_7_step.json").write_text("[1]")
    assert "not a list of images with probabilities" in error(tmp_path / "run")


def test_training_writes_galleries(workspace, tmp_path):
    import artEmisX_train

    artEmisX_train.main(workspace.argv(tmp_path, "--num_train_epochs", "1", "--gallery", "4", "--use_emotion_loss"))
    (page,) = (tmp_path / "results").glob("gallery_0_*.html")
    html = page.read_text()
    assert html.count('<article class="card"') == 4 and 'class="model"' in html


def test_inspect(workspace, tmp_path, capsys):
    val, test = (str(workspace.data / f"artEmisX_{split}.json") for split in ("val", "test"))
    root = workspace.data / "wikiart_rescaled_max_size_to_600px_same_aspect_ratio"
    lexicon = workspace.data / "demo-VAD-Lexicon.txt"
    more = ["--image_root", str(root), "--vad_lexicon", str(lexicon), "--max_seq_len", "20"]
    inspect.main(
        [val, test, *more, "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html"), "--number", "5"]
    )
    facts = json.loads((tmp_path / "a.json").read_text())
    records = json.loads((workspace.data / "artEmisX_val.json").read_text())
    texts = [text for record in records.values() for text in record["explanations"]]
    of_val = facts["splits"][val]
    assert of_val["images"] == len(records) and of_val["explanations"] == len(texts)
    assert of_val["repeated"] == len(texts) - len(set(texts)) and of_val["pictures"]["found"] == len(records)
    assert abs(sum(of_val["emotions"].values()) - 1) < 1e-9 and 0 < of_val["lexicon"]["known"] < 1
    assert facts["overlaps"][0]["images"] == 0
    assert "share 0 images" in capsys.readouterr().out
    assert (tmp_path / "a.html").read_text().count("data:image/jpeg") == 5


def test_inspect_counts_tokens_as_training_does(workspace):
    records = read_records(workspace.data / "artEmisX_val.json")
    codec = TextCodec(load_tokenizer(str(workspace.root / "gpt2")), " the emotion is", 60)
    emotions = [emotion for record in records.values() for emotion in record["emotions"]]
    texts = [text for record in records.values() for text in record["explanations"]]
    lengths = (codec.encode(emotions, texts).input_ids != codec.pad_id).sum(axis=1)
    assert inspect.text_lengths(records).tolist() == lengths.tolist()
    assert inspect.split_facts(records, 20)["tokens"]["cut"] == (lengths > 20).sum()


def test_agreement():
    record = {
        "emotions": ["awe", "awe", "fear"],
        "explanations": ["a", "a", "b"],
        "origin_emotion_distribution": [0, 2 / 3, 0, 0, 0, 0, 1 / 3, 0, 0],
    }
    facts = inspect.split_facts({"1": record}, 30)
    assert facts["agreement"] == pytest.approx(1 / 3) and facts["repeated"] == 1 and facts["majority"] == 1
