"""utils.share --space: a folder that shows the page with nothing but itself; and what the hub reads of a model card."""

import os
import shutil
import socket
import subprocess
import sys

import pytest
import yaml

from utils import share, space
from utils.explain import load


@pytest.mark.slow
def test_a_space_starts_where_it_lies(finished, workspace, tmp_path):
    """In another folder, without the repository: the answer is that of the run. The lexicon is put beside the model."""
    assert share.main([str(finished), str(tmp_path / "written"), "--space"]) == 0
    folder = shutil.move(tmp_path / "written", tmp_path / "elsewhere")
    page = (folder / "README.md").read_text(encoding="utf-8")
    card = yaml.safe_load(page.split("---\n")[1])
    assert (card["sdk"], card["app_file"], card["title"]) == ("gradio", "app.py", "written")
    assert not list(folder.rglob("*Lexicon*")) and "demo-VAD-Lexicon.txt" in page
    shutil.copy(workspace.data / "demo-VAD-Lexicon.txt", folder / "model")
    client = pytest.importorskip("gradio_client", reason="pip install -r requirements-app.txt")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(folder / "app.py"), "--port", str(port)]
    process = subprocess.Popen(command, cwd="/", env=clean, stdout=subprocess.PIPE, text=True)
    try:
        assert any("open http" in line for line in process.stdout), "the Space ended"
        image = min(workspace.data.rglob("*.jpg"))
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


def test_a_space_names_its_requirements_and_no_lexicon_that_it_does_not_need(tmp_path):
    space.write_space(tmp_path, "title", {"use_VAD": False}, None)
    required = (tmp_path / "requirements.txt").read_text()
    assert "torch==" in required and "gradio>=" in required
    assert "lexicon" not in (tmp_path / "README.md").read_text()


def test_what_the_hub_reads_of_a_card():
    flags = {"clip_model": "openai/clip-vit-base-patch16", "gpt2_model": "distilgpt2", "metrics": ["cider"]}
    flags |= {"nle_data_val_path": "artEmisX_val.json"}

    def read(reports: dict, **more: object) -> tuple[dict, dict]:
        stats, settings = {"best_acc": 0.5, "best_res": 1.234}, {"flags": flags | more}
        card = yaml.safe_load(share.card_header("small", settings, reports, stats).to_yaml())
        (result,) = card.pop("model-index")[0]["results"]
        return card, result

    card, result = read({})
    assert card["base_model"] == ["openai/clip-vit-base-patch16", "distilgpt2"] and card["license"] == "other"
    assert card["library_name"] == "sevlm" and card["datasets"] == ["artEmisX_val"]
    assert result["metrics"] == [
        {"type": "accuracy", "name": "best-acc: emotion accuracy", "value": 50.0},
        {"type": "cider", "name": "best-res: CIDEr", "value": 123.4},
    ]
    report = {"evaluated_file": "artEmisX_test.json", "test_set": "v1.0", "intervals": {"Bleu_4": [0.08, 0.1025]}}
    report["scores"] = {"Bleu_4": 0.0912, "macro_F1": 0.25, "self_BLEU_4": 0.5}
    card, result = read({"a": report}, clip_model="vit", gpt2_model="my-gpt2")
    assert "base_model" not in card and card["metrics"] == ["bleu", "f1"]
    assert result["dataset"]["name"] == "artEmisX_test.json (v1.0)"
    assert result["metrics"] == [
        {"type": "bleu", "name": "BLEU-4, 95 % interval 8.0 to 10.2", "value": 9.1},
        {"type": "f1", "name": "macro F1", "value": 25.0},
    ]
