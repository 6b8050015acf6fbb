"""The gallery: which images a page shows, what is on it, its filters in a browser, and one line for wrong input."""

import base64
import io
import json
import re
import shutil

import pytest
from PIL import Image

from utils import gallery
from utils.data.vad_lexicon import Lexicon
from utils.errors import InputError
from utils.evaluation.evaluation import Evaluation
from utils.visualize.gallery_page import (
    Bar,
    Card,
    Page,
    Thumbnail,
    choose,
    gallery_page,
    record_card,
    thumbnail,
    title_and_byline,
)
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
def moved(workspace, tmp_path_factory):
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
    assert choose({1: 0.1, 2: 0.3, 3: 0.2}, 2, seed=1) == {1: "worst", 2: "best"}


def test_tinted_pieces_joined_are_the_text():
    pieces = tinter(Lexicon({"tower": (0.5, -0.2, 0.1)}, None, "", "-1..1"))("Towers, the TOWER & towering-high")
    assert [piece.text for piece in pieces] == ["Towers", ", the ", "TOWER", " & towering-high"]
    assert pieces[0].label == "V +0.50   A -0.20   D +0.10" and pieces[0].sign == "p" and pieces[0].strength == 50
    assert Word("x", (-0.25, 0, 0)).sign == "n"


def test_a_page_is_self_contained_and_html_in_it_stays_text():
    html = hostile_page()
    assert html.count("<script") == 1 and "<img src=x" not in html and "&lt;img src=x onerror=" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "url(" not in html and "@import" not in html
    assert "font-variant-numeric" in html and "addEventListener" in html


def test_emotions_of_the_filter_are_in_their_order():
    """Those that are on the page, then other texts that a model has named; a page has what its first card has."""
    cards = [Card("a.jpg", emotion, [], [], Thumbnail()) for emotion in ("fear", "zeal", "awe", "fear", "", "a mood")]
    page = Page("", "", cards, [], tinted=False)
    assert page.emotions == ["awe", "fear", "a mood", "zeal"]
    assert page.distinct("emotion") == ["fear", "zeal", "awe", "a mood"] and page.distinct("group") == []


def test_names_and_thumbnails(tmp_path):
    assert title_and_byline("Color_Field/ann-lee_red-sea-7.jpg") == ("Red sea 7", "Ann Lee, Color Field")
    assert title_and_byline("odd.jpg")[0] == "odd"
    Image.new("RGB", (500, 600), "red").save(tmp_path / "tall.png")
    small = thumbnail(tmp_path, "tall.png")
    content = base64.b64decode(small.url.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(content)).size == (small.width, small.height) == (333, 400)
    (tmp_path / "broken.jpg").write_bytes(b"<html>")
    assert "web page" in thumbnail(tmp_path, "broken.jpg").missing
    assert thumbnail(tmp_path, "none.jpg").missing == "no image file none.jpg"


def test_page_of_a_moved_run(moved, tmp_path, capsys):
    """It names the source of the model's distribution: the head where there is one, else the emotions' names."""
    run = shutil.copytree(moved, tmp_path / "run")

    def page(number: int, *metrics: str) -> str:
        gallery.main([str(run), "--number", str(number), "--metrics", *metrics])
        assert f"{number} images" in capsys.readouterr().out
        return (run / "results" / "gallery_1_7.html").read_text()

    html = page(3, "bleu", "cider")
    assert html.count('<article class="card"') == 3 and html.count("data:image/jpeg") == 3
    assert 'data-emotion="nonsense" data-correctness="wrong"' in html and 'data-correctness="right"' in html
    assert "B-4" in html and 'class="model" style="width:50%"' in html and 'data-vad="V ' in html
    names = ("the model&#39;s emotion head", "the model&#39;s text (probability of each emotion&#39;s name)")
    assert [html.count(name) for name in names] == [1 + 3, 0]  # the legend, and each table's heading
    (run / "results" / "emotion_head_1_7_step.json").rename(run / "results" / "emotion_likelihood_1_7_step.json")
    assert [page(2, "bleu").count(name) for name in names] == [0, 1 + 2]


def test_the_last_evaluation_is_shown(tmp_path):
    """Epochs by number and step, not by name; checkpoints' names are older than any epoch."""
    for name in ("2_7", "10_3", "10_21", "best-res_0"):
        (tmp_path / f"unf_captions_full_{name}_step.json").write_text("[]")
    assert gallery.find_evaluation(tmp_path, None) == ("10", 21)
    assert gallery.find_evaluation(tmp_path, "best-res_0") == ("best-res", 0)
    with pytest.raises(InputError, match="give one of best-res_0, 2_7, 10_3, 10_21"):
        gallery.find_evaluation(tmp_path, "3_7")


def test_cards_of_an_evaluation():
    """Ranked by CIDEr; right and wrong are of images with a majority; a text without "because" is shown whole."""
    records, of_images = {}, {}
    for image, (share, score) in enumerate(((1.0, 0.3), (1.0, 0.1), (0.5, 0.9), (1.0, 0.5)), 1):
        votes = [0.0, share, *[0.0] * 6, 1 - share]
        texts = {"emotions": ["awe"], "explanations": ["a sea"]}
        records[str(image)] = texts | {"image_name": f"Cubism/{image}.jpg", "origin_emotion_distribution": votes}
        of_images[image] = {"CIDEr": score, "ROUGE_L": 1 - score}
    full = {1: "awe because a", 2: "fear because b", 3: "awe because c", 4: "awe it seems so"}
    explanations, scores = {1: "a", 2: "b", 3: "c", 4: "seems so"}, {"CIDEr": 0.456, "ROUGE_L": 0.3, "sub_acc": 0.6}
    likelihood = {"likelihood": {image: [0.2, 0.8, *[0.0] * 7] for image in full}}
    evaluation = Evaluation(full, explanations, scores, {}, likelihood, of_images=of_images)
    page = gallery_page("t", "val.json", records, evaluation, 3, 7, None, None)
    shown = [(card.name[7], card.group, card.correctness, card.emotion, len(card.words)) for card in page.cards]
    assert shown[:2] == [("2", "worst", "wrong", "fear", 1), ("3", "best", "no majority", "awe", 1)]
    page = gallery_page("t", "val.json", records, evaluation, 4, 7, None, None)
    (whole,) = (card for card in page.cards if card.name == "Cubism/4.jpg")
    assert (whole.emotion, whole.words, whole.scores) == ("awe it seems so", [], {"ROUGE-L": 0.5, "CIDEr": 0.5})
    assert (whole.correctness, whole.bars[1]) == ("wrong", Bar("awe", 100, 80, True))
    assert page.facts == [("ACC", "60.0"), ("ROUGE-L", "30.0"), ("CIDEr", "45.6")]
    assert page.lead.startswith("4 of the 4 images of val.json: those with the lowest and the highest CIDEr,")


def test_wrong_input(moved, tmp_path):
    def error(*argv):
        with pytest.raises(InputError) as caught:
            gallery.main([str(word) for word in argv])
        return str(caught.value)

    assert "no such folder" in error(tmp_path / "none")
    assert "no evaluation has finished yet" in error(tmp_path)
    assert "name one folder" in error()
    assert "not in" in (line := error(moved, "--evaluation", "2_7")) and "give one of 1_7" in line
    test = moved / "data" / "artEmisX_test.json"
    assert "another split; name theirs with --records" in error(moved, "--records", test)
    assert "is a folder" in error(moved, "--out", tmp_path)
    run = shutil.copytree(moved, tmp_path / "run")
    (run / "results" / "emotion_head_1_7_step.json").write_text("[1]")
    assert "not a list of images with probabilities" in error(run)
    (run / "results" / "log.jsonl").unlink()
    assert "name it with --records" in error("--results", run / "results")


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser, tmp_path):
    """The hostile page, in a narrow window."""
    (tmp_path / "page.html").write_text(hostile_page())
    opened = browser.new_page(viewport={"width": 500, "height": 900})
    opened.goto((tmp_path / "page.html").as_uri())
    yield opened
    opened.close()


@pytest.mark.slow
def test_filters_keys_and_hostile_text(page):
    script = """() => {
        const visible = () => [...document.querySelectorAll(".card")].filter((c) => !c.hidden).map((c) => c.dataset.scores);
        const set = (id, value) => { const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event("input")); };
        const key = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        const out = { all: visible() };
        set("emotion", "fear"); out.fear = visible(); key("Escape"); out.cleared = visible();
        set("correctness", "right"); out.right = visible(); set("correctness", "");
        set("group", "worst"); out.worst = visible(); set("group", "");
        set("search", "GRIEF"); out.search = visible(); out.count = document.getElementById("count").textContent;
        set("search", "zzz"); out.none = document.getElementById("none").hidden; set("search", "");
        set("sort", "0 -1"); out.sorted = visible(); set("emotion", "awe"); out.both = visible(); set("emotion", "");
        document.activeElement.blur();
        key("j"); out.first = document.activeElement.dataset.scores; key("j"); out.second = document.activeElement.dataset.scores;
        key("ArrowRight"); out.word = document.activeElement.textContent; key("r");
        out.open = document.activeElement.closest(".card").querySelector(".references").open;
        out.tip = getComputedStyle(document.activeElement, "::after").content;
        key("/"); out.focus = document.activeElement.id;
        out.images = document.images.length; out.title = document.title; out.wide = document.documentElement.scrollWidth > innerWidth;
        return out;
    }"""
    out = page.evaluate(script)
    assert out["all"] == out["cleared"] == ["0.0", "1.0", "2.0"]
    assert out["fear"] == out["search"] == ["1.0"] and out["count"] == "1 of 3 images"
    assert out["right"] == ["0.0", "2.0"] and out["worst"] == ["0.0"] and out["none"] is False
    assert out["sorted"] == ["2.0", "1.0", "0.0"] and out["both"] == ["2.0", "0.0"]
    assert (out["first"], out["second"], out["word"], out["open"]) == ("2.0", "1.0", "grief", True)
    assert "V -1.00" in out["tip"] and out["focus"] == "search"
    assert out["images"] == 0 and "<script>alert(1)" in out["title"] and not out["wide"]


@pytest.mark.slow
def test_axe_finds_no_violation(page, axe):
    """In light and in dark, with everything open."""
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.evaluate(axe)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        result = page.evaluate("axe.run(document)")
        assert len(result["passes"]) > 20 and [found["id"] for found in result["violations"]] == []
