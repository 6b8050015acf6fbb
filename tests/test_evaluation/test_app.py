"""The page of utils.app: what it is refused with, and in a real browser its answers, words, errors and accessibility."""

import shutil
import socket
from importlib.metadata import PackageNotFoundError
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from utils import app
from utils.data.records import read_records
from utils.errors import InputError
from utils.explain import load
from utils.visualize.heat_map import WordHeat


@pytest.fixture
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(app, "load", None)
    monkeypatch.setattr(app, "version", lambda name: "6.31.0")
    monkeypatch.setattr(app, "check_port", lambda host, port: None)


@pytest.mark.parametrize(
    ("gradio", "runs", "message"),
    [
        (PackageNotFoundError, 1, "needs gradio, which is not installed: pip install -r"),
        ("5.49.1", 1, "needs gradio 6, 5.49.1 is installed: pip install -r"),
        ("6.31.0", 3, "3 runs: the page shows one or two"),
        ("6.31.0", 1, "nowhere: no such folder"),
    ],
)
def test_refused_before_anything_is_loaded(nothing_loaded, monkeypatch, gradio, runs, message):
    monkeypatch.setattr(app, "version", Mock(side_effect=[gradio]))
    with pytest.raises(InputError, match=message):
        app.main(["nowhere"] * runs)


def test_a_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"--port {port}: cannot be used .*; give another"):
            app.check_port("127.0.0.1", port)


@pytest.mark.slow
def test_split_of_the_runs_or_of_a_flag(nothing_loaded, run, workspace, tmp_path, monkeypatch):
    arguments = app.get_parser().parse_args([str(run)])
    split = app.find_split(arguments)
    assert split.file.name == "artEmisX_val.json" and split.folder.name.startswith("wikiart")
    arguments.records, arguments.image_root = workspace.data / "artEmisX_test.json", workspace.data
    named = app.find_split(arguments)
    assert list(named.records) == list(read_records(arguments.records)) and named.folder == workspace.data
    arguments.image_root = None
    with monkeypatch.context() as patch:
        patch.setattr(app, "recorded_path", lambda *_: tmp_path / "moved away")
        assert app.find_split(arguments).folder.parent == workspace.data

    log = shutil.copytree(run, tmp_path / "other") / "results" / "log.jsonl"
    log.write_text(log.read_text().replace("artEmisX_val.json", "artEmisX_test.json"))
    with pytest.raises(InputError, match="different splits .*artEmisX_val.json and .*artEmisX_test.json.*--records"):
        app.main([str(run), str(tmp_path / "other")])


def test_a_words_line_names_its_vad_and_the_strongest_patch():
    heat = np.array([[0.1, 0.2, 0.1], [0.1, 0.1, 0.4]])
    where = "Strongest in row 2, column 3 of 2."
    assert app.word_caption(WordHeat("fear,", heat, (-0.85, 0.5, -0.25))) == (
        f"**fear**: valence -0.85, arousal +0.50, dominance -0.25. {where}"
    )
    assert app.word_caption(WordHeat("...", heat)) == f"**...**: not in the VAD lexicon. {where}"


# ---- in the browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """Of the page that shows a run and its copy."""
    pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
    second = shutil.copytree(run, tmp_path_factory.mktemp("runs") / "second")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    page = app.main([str(run), str(second), "--port", str(port)], block=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture
def page(browser, address):
    """The page; what it asked for from elsewhere is an error."""
    opened = browser.new_page(viewport={"width": 1400, "height": 1000})
    asked = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(address)
    opened.get_by_role("button", name="Explain").wait_for()
    yield opened
    opened.close()
    assert [url for url in asked if url.startswith("http") and not url.startswith(address)] == []


def explain(page, path):
    page.set_input_files("input[type=file]", path)
    page.locator(".image-frame img").first.wait_for()
    page.get_by_role("button", name="Explain").click()
    page.locator(".answer table").last.wait_for(timeout=60_000)


@pytest.mark.slow
def test_answer_of_a_dropped_image(page, run, tmp_path, axe):
    """The answers are load's; every word can be chosen by keyboard; axe-core finds nothing serious, wide or narrow."""
    path = tmp_path / "painting.png"
    Image.effect_noise((90, 60), 120).convert("RGB").save(path)
    explain(page, path)
    expected = load(run)(path)
    texts = {" ".join(text.split()) for text in page.locator(".answer .sentence").all_inner_texts()}
    assert texts == {" ".join(f"the emotion is {expected.text}".split())}
    assert page.locator(".answer .sentence").count() == 2
    cells = page.locator(".answer table").first.locator("tr").nth(2).locator("td.number").all_inner_texts()
    assert cells == [f"{100 * expected.probabilities[source]['awe']:.0f}" for source in ("likelihood", "head")]
    words = page.get_by_role("radio")
    assert words.count() == 2 * len(expected.words) > 2
    words.first.focus()
    page.keyboard.press("Space")
    page.get_by_text("Strongest in row").wait_for()
    assert page.locator("img").count() == 2
    page.evaluate(axe)
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 1000})
        found = page.evaluate("axe.run(document)")["violations"]
        assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.slow
def test_an_image_of_the_split(page, workspace):
    """Chosen by keyboard: the annotators' bars and texts stand beside, and each run's gallery has a link to its card."""
    record = next(iter(read_records(workspace.data / "artEmisX_val.json").values()))
    page.get_by_label("Or one of the").click()
    page.keyboard.type(record["image_name"])
    page.keyboard.press("Enter")
    page.locator(".answer table").last.wait_for(timeout=60_000)
    assert page.get_by_role("columnheader", name="the annotators").count() == 2
    page.get_by_text("What the annotators wrote").first.click()
    assert page.locator(".answer li").first.inner_text() == f"{record['emotions'][0]}: {record['explanations'][0]}"
    link = page.get_by_role("link", name="This image in the gallery").last
    with page.context.expect_page() as gallery:
        link.click()
    gallery.value.wait_for_load_state()
    card = gallery.value.locator(":target")
    assert record["image_name"].rpartition("_")[2].split("-")[0] in card.inner_text().lower()
    gallery.value.close()


@pytest.mark.slow
def test_a_bad_file_gets_a_sentence_and_the_page_goes_on(page, tmp_path):
    """The truncated image; then a good one, with another emotion asked for."""
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "good.png")
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "whole.jpg")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:9000])
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("drop an image, or choose one of the split").wait_for()
    page.set_input_files("input[type=file]", tmp_path / "truncated.jpg")
    page.locator(".image-frame").first.wait_for()
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("truncated.jpg: unreadable image").wait_for()
    assert str(tmp_path) not in page.locator("body").inner_text()
    page.reload()
    page.get_by_label("Emotion to explain").click()
    page.get_by_role("option", name="fear").click()
    explain(page, tmp_path / "good.png")
    sentence = page.locator(".answer .sentence").first.inner_text()
    assert sentence.startswith("the emotion is fear because") and "(emotion given)" in sentence
