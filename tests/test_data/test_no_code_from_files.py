"""No file runs code: each attack here writes a file `canary` when the library that it is made for reads it freely."""

import ast
import json
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel, modeling_utils

import artEmisX_train
from tests.conftest import REPOSITORY, TINY_GPT2, TINY_VIT
from utils.command_line import parse_args
from utils.data.image_encoder_weights import load_image_encoder, openai_state_dict
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer
from utils.data.torch_files import read_torchscript_tensors
from utils.errors import InputError
from utils.training.build_model import build_decoder

ROOMS = ("utils", "models", "preprocess", "cococaption")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder; whoever is asked a question answers yes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", StringIO("y\n" * 20))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path


def sprung(here: Path) -> bool:
    """Whether the trap has written its canary, wherever; it is removed."""
    found = list(here.rglob("canary"))
    for path in found:
        path.unlink()
    return bool(found)


# ---- TorchScript -----------------------------------------------------------------------------------------------------


class Vision(nn.Module):
    """A module with OpenAI's names for the weights of a tiny vision transformer."""

    def __init__(self):
        super().__init__()
        for name, tensor in openai_state_dict(CLIPVisionModel(CLIPVisionConfig(**TINY_VIT))).items():
            place: nn.Module = self
            *parts, last = f"visual.{name}".split(".")
            for part in parts:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_buffer(last, tensor.half())


class WritesWhenRestored(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.ones(2)

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight, self.training = state[0], state[1]
        torch.save(self.weight, "canary")


def test_torchscript_archive_is_read_and_its_code_is_not_run(here):
    vision, evil = Vision(), Vision()
    torch.jit.script(vision).save("good.pt")
    evil.trap = WritesWhenRestored()
    torch.jit.script(evil).save("evil.pt")
    torch.jit.load("evil.pt")
    assert sprung(here), "the trap does not work"

    expected = vision.state_dict()
    found = read_torchscript_tensors("good.pt")
    assert set(found) == set(expected) and all(torch.equal(found[name], expected[name]) for name in expected)
    encoder = load_image_encoder("good.pt")
    assert torch.equal(encoder.vision.embeddings.class_embedding, expected["visual.class_embedding"].float())
    with pytest.raises(InputError, match="evil.pt.*'trap.'.*needs its own code to load, which is not run"):
        load_image_encoder("evil.pt")
    assert not sprung(here)


def test_torchscript_archive_that_names_a_function(here):
    """The archive's pickle names os.system where a class stood."""
    torch.jit.script(Vision()).save("good.pt")
    with zipfile.ZipFile("good.pt") as good, zipfile.ZipFile("evil.pt", "w") as evil:
        for member in good.infolist():
            content = good.read(member)
            if member.filename.endswith("/data.pkl"):
                content = pickle.dumps(Touch(), 2)
            evil.writestr(member.filename, content)
    with pytest.raises(InputError, match="refused: its pickle names (os|posix).system"):
        load_image_encoder("evil.pt")
    assert not sprung(here)


class Touch:
    def __reduce__(self):
        import os

        return os.system, ("touch canary",)


# ---- config.json -----------------------------------------------------------------------------------------------------

PYTHON = """
from pathlib import Path
Path("canary").touch()
from transformers import GPT2Config, CLIPVisionConfig, GPT2LMHeadModel
class Own(GPT2Config):
    pass
class OwnModel(GPT2LMHeadModel):
    pass
"""
AUTO_MAP = {
    "AutoConfig": "own.Own",
    "AutoModel": "own.OwnModel",
    "AutoModelForCausalLM": "own.OwnModel",
    "AutoTokenizer": ["own.Own", None],
}
KERNEL = "some/repo"
KERNEL_FIELDS = (
    {"_attn_implementation": KERNEL, "attn_implementation": KERNEL, "_attn_implementation_internal": KERNEL},
    {"attn_implementation": {"": KERNEL}},
)


def model_folder(name: str, config: dict, more: dict, weights: bool = True) -> str:
    """A downloaded model with a Python file beside it, and `more` in its config.json."""
    if weights:
        kind = (
            GPT2LMHeadModel(GPT2Config(**config)) if "n_embd" in config else CLIPVisionModel(CLIPVisionConfig(**config))
        )
        kind.save_pretrained(name)
    Path(name).mkdir(exist_ok=True)
    Path(name, "config.json").write_text(json.dumps(config | more))
    for file in ("own.py", "modeling.py", "tokenization.py", "custom_generate/generate.py"):
        Path(name, file).parent.mkdir(exist_ok=True)
        Path(name, file).write_text(f"{PYTHON}# {Path.cwd()}\n")  # of its own, else it would be imported only once
    return name


def load_gpt2(folder: str, from_scratch: bool = False) -> object:
    args = parse_args(["--gpt2_model", folder, "--prefix_dim", "16", *(["--from_scratch"] if from_scratch else [])])
    return build_decoder(args, TextCodec(load_tokenizer(folder), args.prompt_text, args.max_seq_len), None)


LOADERS = {
    "gpt2": (TINY_GPT2, load_gpt2),
    "vit": (TINY_VIT, load_image_encoder),
    "gpt2 from scratch": (TINY_GPT2, lambda folder: load_gpt2(folder, from_scratch=True)),
    "vit from scratch": (TINY_VIT, lambda folder: load_image_encoder(folder, from_scratch=True)),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_auto_map_is_refused(here, kind):
    config, load = LOADERS[kind]
    folder = model_folder("model", config, {"auto_map": AUTO_MAP, "model_type": "own"})
    AutoConfig.from_pretrained(folder)
    assert sprung(here), "the trap does not work"
    for model_type in ("own", config["model_type"]):
        model_folder("model", config, {"auto_map": AUTO_MAP, "model_type": model_type}, weights=False)
        with pytest.raises(InputError, match=r"model/config.json: asks for code of its own .*\(auto_map\)"):
            load(folder)
    assert not sprung(here)


@pytest.fixture
def trapped_kernels(monkeypatch, here):
    """Where transformers would ask the `kernels` package for a repository, a canary is written."""

    def fetch(*_, **__):
        (here / "canary").touch()
        raise RuntimeError("a kernel was asked for")

    monkeypatch.setattr(modeling_utils, "lazy_import_flash_attention", fetch)
    monkeypatch.setattr("transformers.integrations.hub_kernels.get_kernel", fetch)
    monkeypatch.setattr("socket.socket.connect", fetch)
    monkeypatch.setattr("socket.getaddrinfo", fetch)


@pytest.mark.parametrize("kind", LOADERS)
def test_kernels_named_in_a_config_are_not_fetched(here, trapped_kernels, kind):
    config, load = LOADERS[kind]
    with pytest.raises(RuntimeError, match="a kernel was asked for"):
        GPT2LMHeadModel(GPT2Config(**TINY_GPT2, attn_implementation=KERNEL))
    assert sprung(here), "the trap does not work"
    folder = model_folder("model", config, {})
    for fields in KERNEL_FIELDS:
        model_folder("model", config, fields | {"use_kernels": True, "kernel_config": {"x": KERNEL}}, weights=False)
        model = load(folder)
        assert getattr(model, "vision", model).config._attn_implementation == "sdpa"
    assert not sprung(here) and "kernels" not in sys.modules


HOSTILE_FIELDS = {
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "transformers_weights": "../../other.safetensors",
    "fusion_config": {"x": True},
    "per_layer_config": {"0": {"n_head": 1}},
    "custom_pipelines": {"x": {"impl": "own.Own"}},
    "torch_dtype": "float16",
    "dtype": "own.Own",
    "save_pretrained": 1,
    "to_dict": 2,
    "__class__": 3,
    "experts_implementation": KERNEL,
    "_experts_implementation": KERNEL,
}


@pytest.mark.parametrize("kind", ("gpt2", "vit"))
def test_other_fields_of_a_config_have_no_effect(here, trapped_kernels, kind):
    config, load = LOADERS[kind]
    folder = model_folder("model", config, {})
    Path("model/adapter_config.json").write_text('{"base_model_name_or_path": "some/repo"}')
    Path("model/generation_config.json").write_text('{"custom_generate": "some/repo", "trust_remote_code": true}')
    Path("model/preprocessor_config.json").write_text(json.dumps({"auto_map": AUTO_MAP}))
    torch.manual_seed(0)
    expected = load(folder).state_dict()
    model_folder("model", config, HOSTILE_FIELDS, weights=False)
    torch.manual_seed(0)
    state = load(folder).state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert not sprung(here)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ("gpt2", "vit"))
def test_pickled_weights_are_refused(here, kind):
    config, load = LOADERS[kind]
    folder = model_folder("model", config, {})
    Path("model/model.safetensors").unlink()
    torch.save({"weight": Touch()}, "model/pytorch_model.bin")
    torch.load("model/pytorch_model.bin", weights_only=False)
    assert sprung(here), "the trap does not work"
    with pytest.raises(InputError, match="weights torn, altered or unsafe.*names (os|posix).system"):
        load(folder)
    Path("model/pytorch_model.bin").rename("model/part.bin")
    Path("model/pytorch_model.bin.index.json").write_text('{"weight_map": {"weight": "part.bin"}}')
    with pytest.raises(InputError, match="weights torn, altered or unsafe.*names (os|posix).system"):
        load(folder)
    for outside in ("../part.bin", "/part.bin", "sub/part.bin", "own.py"):
        Path("model/pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"weight": outside}}))
        with pytest.raises(InputError, match="not an index of weight files"):
            load(folder)
    assert not sprung(here)


# ---- tokenizer -------------------------------------------------------------------------------------------------------

HOSTILE_TOKENIZER = {
    "tokenizer_class": "own.Own",
    "init_inputs": ["own.py"],
    "fast_tokenizer_files": ["tokenizer.9.9.9.json", "../own.py"],
    "tokenizer_file": "own.py",
    "vocab_file": "own.py",
    "gguf_file": "own.py",
    "processor_class": "own.Own",
    "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "added_tokens_decoder": {"1": {"__class__": "own.Own", "content": "x"}},
}


def tokenizer_folder(settings: dict) -> str:
    shutil.copytree(SHIPPED_BPE, "tokens", dirs_exist_ok=True)
    Path("tokens/tokenizer_config.json").write_text(json.dumps(settings))
    Path("tokens/own.py").write_text(PYTHON)
    Path("tokens/chat_template.jinja").write_text("{{ cycler.__init__.__globals__.os.system('touch canary') }}")
    return "tokens"


def test_a_tokenizers_folder_runs_nothing(here, trapped_kernels):
    expected = load_tokenizer(str(SHIPPED_BPE)).get_vocab()
    assert load_tokenizer(tokenizer_folder(HOSTILE_TOKENIZER)).get_vocab() == expected
    with pytest.raises(InputError, match=r"tokens/tokenizer_config.json: asks for code of its own .*\(auto_map\)"):
        load_tokenizer(tokenizer_folder({"auto_map": AUTO_MAP, "tokenizer_class": "Own"}))
    assert not sprung(here)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(workspace, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    artEmisX_train.main(workspace.argv(out, "--num_train_epochs", "1"))
    return out


def without_manifest(config: Callable[[dict], dict]) -> Callable[[Path], object]:
    """Checkpoints as the authors publish them have no manifest, so a changed config.json is read."""

    def change(ckpts: Path) -> None:
        folder = ckpts / "nle_model_best-acc"
        (folder / "manifest.json").unlink()
        saved = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config(saved)))
        (folder / "own.py").write_text(PYTHON)

    return change


def hostile_tokenizer(ckpts: Path) -> None:
    (ckpts / "nle_model_best-acc" / "manifest.json").unlink()  # it would refuse the change by its hash
    path = ckpts / "nle_gpt2_tokenizer_0" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": AUTO_MAP}))
    (path.parent / "own.py").write_text(PYTHON)


def hostile_stats(ckpts: Path) -> None:
    (ckpts / "nle_model_best-acc" / "manifest.json").unlink()
    torch.save({"epoch": Touch()}, ckpts / "ckpt_stats_best-acc.tar")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_manifest(lambda saved: saved | {"auto_map": AUTO_MAP}), "config.json: asks for code of its own"),
        (hostile_tokenizer, "tokenizer_config.json: asks for code of its own"),
        (hostile_stats, "ckpt_stats_best-acc.tar: torn, altered or unsafe.*names (os|posix).system"),
        (without_manifest(lambda saved: saved | KERNEL_FIELDS[0] | {"use_kernels": True}), None),
    ],
    ids=["auto_map", "tokenizer", "stats", "kernels"],
)
def test_checkpoint(here, trapped_kernels, workspace, finished, change, message):
    out = here / "out"
    shutil.copytree(finished, out)
    change(out / "ckpts")
    argv = workspace.argv(out, "--eval_only", "--load_from_epoch", "best-acc")
    if message is None:
        artEmisX_train.main(argv)
        assert (out / "results" / "report.json").is_file()
    else:
        with pytest.raises(InputError, match=message):
            artEmisX_train.main(argv)
    assert not sprung(here)


# ---- the source ------------------------------------------------------------------------------------------------------

FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "input"),
    *("torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "joblib.load"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "dill.load"),
    *("pd.read_pickle", "pd.eval", "pd.read_hdf", "yaml.load", "yaml.unsafe_load", "runpy.run_path"),
    *("os.system", "os.popen", "subprocess.getoutput", "webbrowser.open", "clip.load", "nltk.download"),
}
FORBIDDEN_ARGUMENTS = {("allow_pickle", True), ("trust_remote_code", True), ("shell", True), ("weights_only", False)}
FORBIDDEN_IMPORTS = {"webbrowser", "marshal", "shelve", "dill", "joblib", "yaml", "runpy", "code", "xml"}
# what may be called only in one place, which says there why it is safe
ONLY_IN = {
    "pickle._Unpickler": {"utils/data/safe_pickle.py"},
    ".from_pretrained": {"utils/data/pretrained.py"},
    "safe_open": {"utils/data/text2emotion_files.py"},
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a name or attribute; anything else before the last dots is left out."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def findings(source: str, name: str) -> list[str]:
    """Forbidden calls, arguments and imports in a Python source, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            call = dotted(node.func)
            method = f".{call.rpartition('.')[2]}"
            if call in FORBIDDEN_CALLS or method == ".read_pickle":
                found.append(f"{name}:{node.lineno}: {call}")
            if call == "SEVLM.from_pretrained":  # our own: strict, safetensors and JSON only (test_share.py)
                continue
            if method == ".from_pretrained" and name not in ONLY_IN[".from_pretrained"]:
                found.append(f"{name}:{node.lineno}: {call}")
            if method == ".from_pretrained" and not (node.args and ast.unparse(node.args[0]) == "None"):
                found.append(f"{name}:{node.lineno}: {call} of a folder or an id")
            for keyword in node.keywords:
                value = getattr(keyword.value, "value", None)
                if (keyword.arg, value) in FORBIDDEN_ARGUMENTS:
                    found.append(f"{name}:{node.lineno}: {keyword.arg}={value}")
        if isinstance(node, ast.Attribute | ast.Name) and name not in ONLY_IN.get(dotted(node), {name}):
            found.append(f"{name}:{node.lineno}: {dotted(node)}")
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"{name}:{node.lineno}: import {m}" for m in modules if m.split(".")[0] in FORBIDDEN_IMPORTS]
        if isinstance(node, ast.ImportFrom):
            imported = {f"{node.module}.{alias.name}" for alias in node.names}
            found += [f"{name}:{node.lineno}: {call}" for call in sorted(imported & FORBIDDEN_CALLS)]
    return found


def test_the_source_calls_nothing_that_runs_what_a_file_says():
    paths = [
        REPOSITORY / "artEmisX_train.py",
        *(p for room in ROOMS for p in sorted((REPOSITORY / room).rglob("*.py"))),
    ]
    assert len(paths) > 50
    found = [f for p in paths for f in findings(p.read_text(encoding="utf-8"), p.relative_to(REPOSITORY).as_posix())]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.jit.load(path)",
        "pickle.load(file)",
        "np.load(path, allow_pickle=True)",
        "AutoConfig.from_pretrained(name)",
        "subprocess.run(line, shell=True)",
        "f(trust_remote_code=True)",
        "eval(text)",
        "import yaml",
        "from pickle import loads",
        "class U(pickle._Unpickler): pass",
        "pd.read_pickle(path)",
        "safe_open(path)",
    ],
)
def test_the_source_check_finds(line):
    assert findings(line, "utils/some.py")


def test_models_read_no_files():
    """models/ computes; reading is utils/data's. A shared model alone reads its safetensors, see test_share.py."""
    for path in sorted((REPOSITORY / "models").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {dotted(node.func).rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.Call)}
        forbidden = {"open", "read_text", "read_bytes", "load", "load_file", "from_pretrained", "read_json"}
        assert calls & forbidden <= ({"load_file"} if path.name == "shared_model.py" else set()), path
