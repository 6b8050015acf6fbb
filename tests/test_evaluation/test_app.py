"""The page of utils.app: what it is refused with, and in a real browser its answers, words, errors and accessibility."""

import shutil
import socket

import pytest
from PIL import Image

import artEmisX_train
from utils import app
from utils.data.records import read_records
from utils.errors import InputError
from utils.explain import load
from utils.gallery import main as write_gallery

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory):
    """A run with an emotion head and a gallery of all its images."""
    out = tmp_path_factory.mktemp("runs") / "first"
    flags = ("--num_train_epochs", "2", "--use_emotion_loss", "--learning_rate", "0.01", "--gallery", "50")
    assert artEmisX_train.main(workspace.argv(out, *flags)) == 0
    return out


# ---- refused before anything heavy is loaded -------------------------------------------------------------------------


@pytest.fixture
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(app, "load", None)
    monkeypatch.setattr(app, "version", lambda name: "6.31.0")


def test_gradio_is_missing_or_another(nothing_loaded, monkeypatch):
    def missing(name):
        raise app.PackageNotFoundError

    monkeypatch.setattr(app, "version", missing)
    with pytest.raises(InputError, match="needs gradio, which is not installed: pip install -r requirements-app.txt"):
        app.main(["runs/demo"])
    monkeypatch.setattr(app, "version", lambda name: "5.49.1")
    with pytest.raises(InputError, match="needs gradio 6, 5.49.1 is installed: pip install"):
        app.main(["runs/demo"])


@pytest.mark.slow
def test_port_in_use(nothing_loaded, run):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match=f"--port {other.getsockname()[1]}: cannot be used .*; give another"):
            app.main([str(run), "--port", str(other.getsockname()[1])])


@pytest.mark.slow
def test_wrong_runs(nothing_loaded, run, workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "check_port", lambda host, port: None)
    with pytest.raises(InputError, match="3 runs: the page shows one or two"):
        app.main([str(run)] * 3)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        app.main([str(run), str(tmp_path / "nowhere")])
    other = tmp_path / "other"
    shutil.copytree(run, other)
    log = other / "results" / "log.jsonl"
    log.write_text(log.read_text().replace("artEmisX_val.json", "artEmisX_test.json"))
    with pytest.raises(
        InputError, match="scored on different splits .*artEmisX_val.json and .*artEmisX_test.json.*--records"
    ):
        app.main([str(run), str(other)])


@pytest.mark.slow
def test_split_of_a_run_and_of_a_flag(run, workspace):
    arguments = app.get_parser().parse_args([str(run)])
    split = app.find_split(arguments)
    assert split.file.name == "artEmisX_val.json" and split.folder.name.startswith("wikiart")
    arguments.records, arguments.image_root = workspace.data / "artEmisX_test.json", workspace.data
    named = app.find_split(arguments)
    assert list(named.records) == list(read_records(arguments.records)) and named.folder == workspace.data


# ---- in the browser --------------------------------------------------------------------------------------------------

browser_test = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r tests/requirements.txt")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield started
        started.close()


@pytest.fixture(scope="module")
def second(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "second"
    shutil.copytree(run, folder)
    return folder


@pytest.fixture(scope="module")
def address(run, second):
    pytest.importorskip("gradio", reason="pip install -r requirements-app.txt")
    write_gallery([str(second), "--number", "50", "--metrics", "bleu"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page = app.main([str(run), str(second), "--port", str(port)], block=False)
    yield f"http://127.0.0.1:{port}"
    page.close()


@pytest.fixture
def page(browser, address, request):
    """The page in a window as wide as the test's parameter says; what it asked for from elsewhere is an error."""
    opened = browser.new_page(viewport={"width": getattr(request, "param", 1400), "height": 1000})
    outside = []
    opened.on(
        "request",
        lambda asked: asked.url.startswith("http") and not asked.url.startswith(address) and outside.append(asked.url),
    )
    opened.goto(address)
    opened.get_by_role("button", name="Explain").wait_for()
    yield opened
    opened.close()
    assert outside == []


def explain(page, path):
    page.set_input_files("input[type=file]", path)
    page.locator(".image-frame img").first.wait_for()
    page.get_by_role("button", name="Explain").click()
    page.locator(".answer table").last.wait_for(timeout=60_000)


@pytest.mark.slow
@browser_test
@pytest.mark.parametrize("page", [400, 1400], indirect=True)
def test_answer_of_a_dropped_image(page, run, tmp_path, axe):
    """The answers are load's; every word can be chosen by keyboard; axe-core finds nothing serious."""
    path = tmp_path / "painting.png"
    Image.effect_noise((90, 60), 120).convert("RGB").save(path)
    explain(page, path)
    expected = load(run)(path)
    texts = page.locator(".answer .sentence").all_inner_texts()
    assert len(texts) == 2 and set(texts) == {f"the emotion is {expected.text}"}
    cells = page.locator(".answer table").first.locator("tr").nth(2).locator("td.number").all_inner_texts()
    assert cells == [f"{100 * expected.probabilities[source]['awe']:.0f}" for source in ("text", "head")]
    words = page.get_by_role("radio")
    assert words.count() == 2 * len(expected.words) > 2
    words.first.focus()
    page.keyboard.press("Space")
    page.get_by_text("Strongest in row").wait_for()
    assert page.locator("img").count() == 2
    page.evaluate(axe)
    found = page.evaluate("axe.run(document)")["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")


@pytest.mark.slow
@browser_test
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
@browser_test
def test_any_emotion_can_be_asked_for(page, tmp_path):
    path = tmp_path / "painting.png"
    Image.new("RGB", (40, 40), "teal").save(path)
    page.get_by_label("Emotion to explain").click()
    page.get_by_role("option", name="fear").click()
    explain(page, path)
    assert page.locator(".answer .sentence").first.inner_text().startswith("the emotion is fear because")
    assert "(emotion given)" in page.locator(".answer .sentence").first.inner_text()


@pytest.mark.slow
@browser_test
def test_bad_files_get_a_sentence_and_the_page_goes_on(page, tmp_path):
    good = tmp_path / "good.png"
    Image.new("RGB", (40, 40), "teal").save(good)
    (tmp_path / "text.jpg").write_text("no image")
    Image.effect_noise((300, 300), 90).convert("RGB").save(tmp_path / "whole.jpg")
    (tmp_path / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:9000])
    page.get_by_role("button", name="Explain").click()
    page.get_by_text("drop an image, or choose one of the split").wait_for()
    for name in ("text.jpg", "truncated.jpg"):
        page.reload()
        page.set_input_files("input[type=file]", tmp_path / name)
        page.locator(".image-frame").first.wait_for()
        page.get_by_role("button", name="Explain").click()
        page.get_by_text(f"{name}: unreadable image").wait_for()
        assert str(tmp_path) not in page.locator("body").inner_text()
    page.reload()
    explain(page, good)
