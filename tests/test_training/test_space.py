"""utils.share --space: a folder that shows the page with nothing but itself; and what the hub reads of a model card."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
import yaml

from tests.conftest import REPOSITORY
from utils import share, space
from utils.explain import load


def header(path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])


@pytest.mark.slow
def test_a_space_starts_where_it_lies(finished, workspace, tmp_path):
    """In another folder, without the repository: the answer is that of the run. The lexicon is put beside the model."""
    assert share.main([str(finished), str(tmp_path / "written"), "--space"]) == 0
    card, written = header(tmp_path / "written" / "README.md"), tmp_path / "written"
    assert (card["sdk"], card["app_file"], card["title"]) == ("gradio", "app.py", "written")
    assert {path.name for path in written.iterdir()} == {
        *("README.md", "app.py", "requirements.txt", "model", "models", "utils", "cococaption")
    }
    assert not list(written.rglob("*Lexicon*")) and "demo-VAD-Lexicon.txt" in (written / "README.md").read_text()
    folder = shutil.move(written, tmp_path / "elsewhere")
    shutil.copy(workspace.data / "demo-VAD-Lexicon.txt", folder / "model")
    client = pytest.importorskip("gradio_client", reason="pip install -r requirements-app.txt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(folder / "app.py"), "--port", str(port)]
    process = subprocess.Popen(command, cwd="/", env=clean, stdout=subprocess.PIPE, text=True)
    try:
        while "open http" not in (line := process.stdout.readline()):
            assert line, "the Space ended"
        image = next(iter(sorted(workspace.data.rglob("*.jpg"))))
        page = client.Client(f"http://127.0.0.1:{port}", verbose=False)
        html, *_ = page.predict(client.handle_file(str(image)), None, "the model's own", 1, 0, api_name="/explain")
        assert f"<strong>{load(finished)(image).emotion}</strong>" in html
    finally:
        process.terminate()
        process.wait()


def test_only_the_demos_lexicon_is_included(tmp_path):
    lexicon = tmp_path / "runs" / "data" / "demo-VAD-Lexicon.txt"
    lexicon.parent.mkdir(parents=True)
    lexicon.touch()
    flags = {"demo": True, "vad_lexicon": "old/data/demo-VAD-Lexicon.txt", "ckpt_path": "old/ckpts"}
    assert space.run_lexicon(tmp_path / "runs" / "ckpts", {"flags": flags}) == lexicon
    assert space.run_lexicon(tmp_path / "runs" / "ckpts", {"flags": flags | {"demo": False}}) is None
    assert space.run_lexicon(tmp_path / "moved" / "ckpts", {"flags": flags}) is None


def test_requirements_of_the_space_are_ours(tmp_path):
    space.write_space(tmp_path, "title", {"use_VAD": False}, None)
    required = (tmp_path / "requirements.txt").read_text()
    assert "torch==" in required and "gradio>=" in required
    assert "lexicon" not in (tmp_path / "README.md").read_text()
    assert (tmp_path / "utils" / "app.py").read_text() == (REPOSITORY / "utils" / "app.py").read_text()


def test_what_the_hub_reads_of_a_card():
    flags = {"clip_model": "openai/clip-vit-base-patch16", "gpt2_model": "distilgpt2", "metrics": ["cider"]}
    flags |= {"nle_data_val_path": "artEmisX_val.json"}
    stats = {"best_acc": 0.5, "best_res": 1.234}

    def read(reports: dict, **more: object) -> dict:
        return yaml.safe_load(share.card_header("small", {"flags": flags | more}, reports, stats).to_yaml())

    card = read({})
    assert card["base_model"] == ["openai/clip-vit-base-patch16", "distilgpt2"] and card["license"] == "other"
    assert card["library_name"] == "sevlm" and card["datasets"] == ["artEmisX_val"]
    scores = [(one["type"], one["name"], one["value"]) for one in card["model-index"][0]["results"][0]["metrics"]]
    assert scores == [("accuracy", "best-acc: emotion accuracy", 50.0), ("cider", "best-res: CIDEr", 123.4)]
    report = {"evaluated_file": "artEmisX_test.json", "test_set": "v1.0", "intervals": {"Bleu_4": [0.08, 0.1025]}}
    report["scores"] = {"Bleu_4": 0.0912, "macro_F1": 0.25, "self_BLEU_4": 0.5}
    card = read({"a": report}, clip_model="vit", gpt2_model="my-gpt2")
    assert "base_model" not in card and card["metrics"] == ["bleu", "f1"]
    (result,) = card["model-index"][0]["results"]
    assert result["dataset"]["name"] == "artEmisX_test.json (v1.0)"
    assert [(one["name"], one["type"], one["value"]) for one in result["metrics"]] == [
        ("BLEU-4, 95 % interval 8.0 to 10.2", "bleu", 9.1),
        ("macro F1", "f1", 25.0),
    ]
