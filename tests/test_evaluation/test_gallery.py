"""The gallery: which images a page shows, what is on it, its filters in a browser, and one line for wrong input."""

import base64
import io
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
    Page,
    choose,
    gallery_page,
    thumbnail,
    title_and_byline,
    write_page,
)
from utils.visualize.html_page import render

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


def hostile_page() -> Page:
    """The gallery of four images whose names and texts hold HTML."""
    records, explanations, of_images = {}, {}, {}
    full = {1: f"awe because the sky {HOSTILE}", 2: "fear because grief", 3: "awe because b", 4: "awe it seems so"}
    for image, (share, score) in enumerate(((1.0, 0.3), (1.0, 0.1), (0.5, 0.9), (1.0, 0.5)), 1):
        records[str(image)] = {
            "image_name": f"{HOSTILE}/{HOSTILE}_{HOSTILE}{image}.jpg",
            "emotions": ["awe"],
            "explanations": [HOSTILE],
            "origin_emotion_distribution": [0.0, share, *[0.0] * 6, 1 - share],
        }
        explanations[image] = full[image].partition(" because ")[2]
        of_images[image] = {"CIDEr": score}
    scores, likelihood = {"CIDEr": 0.456, "sub_acc": 0.6}, {image: [0.2, 0.8, *[0.0] * 7] for image in full}
    evaluation = Evaluation(full, explanations, scores, {}, {"likelihood": likelihood}, of_images=of_images)
    lexicon = Lexicon({"sky": (0.5, -0.2, 0.1), "grief": (-1.0, 0.3, 0.0)}, None, "", "-1..1")
    return gallery_page(HOSTILE, "val.json", records, evaluation, 4, 7, None, lexicon)


def test_choice():
    scores = {image: float(image % 10) for image in range(100)}
    chosen = choose(scores, 8, seed=1)
    groups = {group: [image for image in chosen if chosen[image] == group] for group in ("worst", "best", "random")}
    assert groups["worst"] == [0, 10, 20] and groups["best"] == [99, 89, 79] and len(groups["random"]) == 2
    assert choose(scores, 8, seed=1) == chosen != choose(scores, 8, seed=2)
    assert len(choose(scores, 1000, seed=1)) == 100
    assert choose({5: 0.0}, 3, seed=1) == {5: "worst"}
    assert choose({1: 0.1, 2: 0.3, 3: 0.2}, 2, seed=1) == {1: "worst", 2: "best"}


def test_a_page_is_self_contained_and_html_in_it_stays_text():
    html = render("page.html", page=hostile_page())
    assert html.count("<script") == 1 and "<img src=x" not in html and "&lt;img src=x onerror=" in html
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html) and "url(" not in html and "@import" not in html
    assert '<span class="w p" tabindex="-1" style="--t:50%" data-vad="V +0.50   A -0.20   D +0.10">sky</span>' in html
    assert '<span class="w n" tabindex="-1" style="--t:100%" data-vad="V -1.00' in html


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


def test_page_of_a_run(run, tmp_path, capsys):
    """It names the source of the model's distribution: the head where there is one, else the emotions' names."""
    results = shutil.copytree(run / "results", tmp_path / "results")

    def page(number: int, *metrics: str) -> str:
        gallery.main([str(tmp_path), "--number", str(number), "--metrics", *metrics])
        assert f"{number} images" in capsys.readouterr().out
        return (results / "gallery_0_0.html").read_text()

    html = page(3, "bleu", "cider")
    assert html.count('<article class="card"') == html.count("data:image/jpeg") == 3
    assert "B-4" in html and 'class="model" style="width:' in html and "Words by valence" in html
    names = ("the model&#39;s emotion head", "the model&#39;s text (probability of each emotion&#39;s name)")
    assert [html.count(name) for name in names] == [1 + 3, 0]  # the legend, and each table's heading
    (results / "emotion_head_0_0_step.json").unlink()
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
    page = hostile_page()
    assert [(card.group, card.correctness, card.emotion, card.scores) for card in page.cards] == [
        ("worst", "wrong", "fear", {"CIDEr": 0.1}),
        ("worst", "right", "awe", {"CIDEr": 0.3}),
        ("best", "no majority", "awe", {"CIDEr": 0.9}),
        ("random", "wrong", "awe it seems so", {"CIDEr": 0.5}),
    ]
    assert [len(card.words) for card in page.cards] == [1, 3, 1, 0] and page.cards[0].bars[1] == Bar(
        "awe", 100, 80, True
    )
    assert page.emotions == ["awe", "fear", "awe it seems so"]  # of the filter: the nine in their order, then others
    assert page.facts == [("ACC", "60.0"), ("CIDEr", "45.6")]
    assert page.lead.startswith("4 of the 4 images of val.json: those with the lowest and the highest CIDEr,")


def test_wrong_input(workspace, run, tmp_path):
    results, alone = shutil.copytree(run / "results", tmp_path / "results"), tmp_path / "alone"
    (results / "emotion_head_0_0_step.json").write_text("[1]")
    alone.mkdir()
    shutil.copy(results / "unf_captions_full_0_0_step.json", alone)
    for argv, message in (
        ([], "name one folder"),
        ([run, "--evaluation", "2_7"], "not in .*give one of 0_0"),
        ([run, "--records", workspace.data / "artEmisX_test.json"], "another split; name theirs with --records"),
        ([tmp_path], "not a list of images with probabilities"),
        (["--results", alone], "name it with --records"),
    ):
        with pytest.raises(InputError, match=message):
            gallery.main(list(map(str, argv)))


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def page(browser, tmp_path):
    """The hostile page, in a narrow window."""
    write_page(tmp_path / "page.html", hostile_page())
    opened = browser.new_page(viewport={"width": 500, "height": 900})
    opened.goto((tmp_path / "page.html").as_uri())
    yield opened
    opened.close()


@pytest.mark.slow
def test_filters_keys_and_hostile_text(page):
    def visible() -> list[str]:
        return [card.get_attribute("data-scores") for card in page.locator(".card:visible").all()]

    def chosen(name: str, value: str) -> list[str]:
        page.select_option(f"#{name}", value)
        found = visible()
        page.select_option(f"#{name}", "")
        return found

    assert page.locator("img").count() == 0 and "<script>alert(1)" in page.title()
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert chosen("emotion", "fear") == ["0.1"] and visible() == ["0.1", "0.3", "0.9", "0.5"]
    assert chosen("correctness", "right") == ["0.3"] and chosen("group", "worst") == ["0.1", "0.3"]
    page.fill("#search", "GRIEF")
    assert visible() == ["0.1"] and page.inner_text("#count") == "1 of 4 images"
    page.fill("#search", "zzz")
    assert page.is_visible("#none")
    page.keyboard.press("Escape")
    page.select_option("#sort", "0 1")
    assert visible() == ["0.1", "0.3", "0.5", "0.9"] and chosen("emotion", "awe") == ["0.3", "0.9"]
    page.evaluate("document.activeElement.blur()")
    for key in ("j", "j", "ArrowRight", "r"):
        page.keyboard.press(key)
    word, card = page.locator(":focus"), page.locator(".card:focus-within")
    assert (word.inner_text(), card.get_attribute("data-scores")) == ("sky", "0.3")
    assert "V +0.50" in word.evaluate("word => getComputedStyle(word, '::after').content")
    assert card.locator(".references[open]").count() == 1
    page.keyboard.press("/")
    assert page.locator(":focus").get_attribute("id") == "search"


@pytest.mark.slow
def test_axe_finds_no_violation(page, axe):
    """In light and in dark, with everything open."""
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.evaluate(axe)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        result = page.evaluate("axe.run(document)")
        assert len(result["passes"]) > 20 and [found["id"] for found in result["violations"]] == []
