"""Code in a file never runs (an attack would write a file `canary`); a damaged or wrong file gives one line."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, GPT2Config, GPT2LMHeadModel

from models.config import SEVLMConfig
from tests.conftest import REPOSITORY, TINY_GPT2, TINY_VIT
from utils.command_line import parse_args
from utils.data.image_encoder_weights import load_image_encoder
from utils.data.pretrained import read_weights
from utils.data.text_codec import SHIPPED_BPE, TextCodec, load_tokenizer
from utils.data.untrusted_files import load_vocabulary, read_module_tensors, read_torch_file
from utils.errors import InputError
from utils.training.build_model import build_decoder
from utils.training.checkpoints import load_named

NETS = REPOSITORY / "tests/data/artemis/preprocess_data_nets"
LSTM = NETS / "txt_to_emotion/lstm_based"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # to whoever asks whether code may run
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return tmp_path


def sprung(here: Path) -> bool:
    """Whether a trap has written its canary, wherever; it is removed."""
    return any([path.unlink() or True for path in here.rglob("canary")])


def refused(read, path: str, message: str = "") -> None:
    """One line that names the file and what is wrong."""
    with pytest.raises(InputError, match=message or None) as caught:
        read(path)
    assert path in str(caught.value) and str(caught.value).isprintable()


# ---- pickles ---------------------------------------------------------------------------------------------------------


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


# file -> (its reader, whether torch.save writes it as a zip file)
READERS = {
    "vocabulary.pkl": (load_vocabulary, None),
    "best_model.pt": (read_module_tensors, False),
    "best_model_zip.pt": (read_module_tensors, True),
    "ckpt_stats.tar": (read_torch_file, True),
    "ckpt_stats_legacy.tar": (read_torch_file, False),
    "ViT-B-16.pt": (load_image_encoder, True),
}
ATTACKS = {os.system: "touch canary", eval: "open('canary', 'w')", torch.load: "other", getattr: "other"}


def save(name: str, content: object) -> None:
    if name.endswith(".pkl"):
        Path(name).write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, name, _use_new_zipfile_serialization=READERS[name][1])


@pytest.mark.parametrize("name", READERS)
def test_no_function_is_called(here, name):
    for function, argument in ATTACKS.items():
        save(name, Call(function, argument))
        refused(READERS[name][0], name, f"unsafe .its pickle names .*{function.__name__}")
    assert not sprung(here)
    pickle.loads(pickle.dumps(Call(os.system, "touch canary")))
    assert sprung(here), "the trap does not work"


def test_no_function_is_called_from_a_part_of_the_weights(here):
    Path("model").mkdir()
    Path("model/pytorch_model.bin.index.json").write_text('{"weight_map": {"w": "part.bin"}}')
    torch.save({"w": Call(os.system, "touch canary")}, "model/part.bin")
    refused(lambda _: read_weights("model", "it", "mend it"), "part.bin", "pickle names (os|posix).system.; mend it")
    assert not sprung(here)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused(here):
    """As OpenAI's own files are; torch.load without weights_only would run its code."""
    for name, (read, _) in READERS.items():
        torch.jit.script(nn.Linear(1, 1)).save(name)
        refused(read, name, "unsafe")
    remedy = "give the id openai/clip-vit-base-patch16, or the name ViT-B/16 with OpenAI's package"
    refused(load_image_encoder, "ViT-B-16.pt", f"a TorchScript archive, which can hold code.; {remedy}")


# ---- what is read and what is not ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_truncated_and_wrong_files(here, name):
    if folder := next((folder for folder in (NETS, LSTM) if (folder / name).is_file()), None):
        shutil.copy(folder / name, name)
    else:
        save(name, {"w": torch.arange(3000.0)})
    content = Path(name).read_bytes()
    truncated = [content[:length] for length in (0, 20, len(content) // 3, len(content) - 100)]
    for wrong in (*truncated, b"<html>404</html>"):
        Path(name).write_bytes(wrong)
        refused(READERS[name][0], name)


def test_a_vocabulary_of_other_numbers_is_refused(here):
    state = pickle.dumps({"word2idx": {"a": 0, "b": 1, "c": 2, "d": 3}}, 2)[2:-1]
    Path("v.pkl").write_bytes(b"\x80\x02cartemis.utils.vocabulary\nVocabulary\n)\x81" + state + b"b.")
    refused(load_vocabulary, "v.pkl", "not numbered from 0, beginning with <pad>")


def test_other_content_than_a_state_dict(here):
    for content in ([torch.ones(1)], {"w": 1}, torch.ones(2)):
        torch.save(content, "clip.pt")
        refused(load_image_encoder, "clip.pt", "something other than named tensors; give the id openai/clip")


@pytest.mark.parametrize("zipped", [True, False])
def test_parameters_that_share_a_storage(here, zipped):
    """As those of an LSTM that was saved from a GPU."""
    module, flat = nn.Bilinear(2, 3, 1), torch.arange(40.0)
    module.weight.data, module.bias.data = flat[7:25:3].view(1, 2, 3), flat[39:]
    torch.save(nn.Sequential(module), "m.pt", _use_new_zipfile_serialization=zipped)
    found = {name: tensor.flatten().tolist() for name, tensor in read_module_tensors("m.pt").items()}
    assert found == {"0.weight": [7, 10, 13, 16, 19, 22], "0.bias": [39]}


# ---- configs and tokenizers ------------------------------------------------------------------------------------------

OWN_CODE = "from pathlib import Path\nPath('canary').touch()\nfrom transformers import GPT2Config\nclass Own(GPT2Config): pass\n"
AUTO_MAP = {"AutoConfig": "own.Own", "AutoModel": "own.Own", "AutoTokenizer": ["own.Own", None]}
KERNEL = "some/repo"
FOREIGN_FIELDS = {
    "_attn_implementation": KERNEL,
    "attn_implementation": KERNEL,
    "use_kernels": True,
    "kernel_config": {"x": KERNEL},
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "transformers_weights": "../other.safetensors",
}


def load_encoder(codec: TextCodec) -> object:
    return load_image_encoder("model")


def load_gpt2(codec: TextCodec, *flags: str, checkpoint: object = None) -> object:
    args = parse_args(["--prefix_dim", "16", *(flags or ("--gpt2_model", "model"))])
    return build_decoder(args, codec, checkpoint, SEVLMConfig(encoder_dim=16))


def load_checkpoint(codec: TextCodec) -> object:
    """As a checkpoint of the authors, whose config.json no manifest vouches for."""
    shutil.copytree("model", "ckpts/nle_model_x", dirs_exist_ok=True)
    torch.save({"epoch": 3}, "ckpts/ckpt_stats_x.tar")
    return load_gpt2(codec, "--eval_only", "--load_from_epoch", "x", checkpoint=load_named(Path("ckpts"), "x"))


LOADERS = [(TINY_GPT2, load_gpt2), (TINY_GPT2, load_checkpoint), (TINY_VIT, load_encoder)]


@pytest.mark.parametrize(("config", "load"), LOADERS)
def test_a_config_cannot_name_code(here, monkeypatch, codec, config, load):
    monkeypatch.setattr("transformers.integrations.hub_kernels.get_kernel", lambda *_, **__: (here / "canary").touch())
    model = GPT2LMHeadModel(GPT2Config(**config)) if "n_embd" in config else CLIPVisionModel(CLIPVisionConfig(**config))
    model.save_pretrained("model")
    Path("model/own.py").write_text(f"{OWN_CODE}# {here}\n")  # the same text would be imported only once
    Path("model/pytorch_model.bin").write_bytes(b"not read beside model.safetensors")
    Path("model/adapter_config.json").write_text('{"base_model_name_or_path": "some/repo"}')

    def load_with(**fields):
        Path("model/config.json").write_text(json.dumps(config | fields))
        torch.manual_seed(0)
        return load(codec)

    for model_type in ("own", config["model_type"]):
        with pytest.raises(InputError, match=r"/config.json: asks to run its own code .*\(auto_map\)"):
            load_with(auto_map=AUTO_MAP, model_type=model_type)
    expected = load_with().state_dict()
    model = load_with(**FOREIGN_FIELDS)
    assert getattr(model, "vision", model).config._attn_implementation == "sdpa"
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert not sprung(here)
    Path("model/config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP, "model_type": "own"}))
    AutoConfig.from_pretrained("model")
    assert sprung(here), "the trap does not work"


def test_a_tokenizer_cannot_name_code(here):
    shutil.copytree(SHIPPED_BPE, "tokens")
    Path("tokens/own.py").write_text(OWN_CODE)
    foreign = {"tokenizer_class": "own.Own", "vocab_file": "own.py", "tokenizer_file": "own.py"}
    Path("tokens/tokenizer_config.json").write_text(json.dumps(foreign))
    assert load_tokenizer("tokens").get_vocab() == load_tokenizer(str(SHIPPED_BPE)).get_vocab()
    Path("tokens/tokenizer_config.json").write_text(json.dumps({"auto_map": AUTO_MAP, "tokenizer_class": "Own"}))
    refused(load_tokenizer, "tokens", r"tokens/tokenizer_config.json: asks to run its own code .*\(auto_map\)")
    assert not sprung(here)


# ---- the source ------------------------------------------------------------------------------------------------------

RUNS_CODE = re.compile(  # what a file says, or names; safe with the arguments excepted here
    r"(?<![\w.])(eval|exec|compile|__import__|input|os\.system|os\.popen)\("
    r"|torch\.(jit\.|hub\.)?load\((?!path, map_location=\"cpu\", weights_only=True\))"
    r"|clip\.load\((?!name, device=\"cpu\", jit=False\))"
    r"|(pickle|marshal|shelve|dill|joblib|yaml)\.(load|loads|open|Unpickler|unsafe_load)\(|\.read_pickle\("
    r"|(?<!SEVLM)\.from_pretrained\((?!\s*None,)|(allow_pickle|trust_remote_code|shell)=True|weights_only=False"
)


def test_the_source_calls_nothing_that_runs_what_a_file_says():
    rooms = ("utils", "models", "preprocess", "cococaption")
    paths = [REPOSITORY / "artEmisX_train.py", *(path for room in rooms for path in (REPOSITORY / room).rglob("*.py"))]
    found = {path.name: RUNS_CODE.search(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: match[0] for name, match in found.items() if match} == {} and len(paths) > 50
    for line in ("torch.load(path)", "pickle.load(file)", "np.load(p, allow_pickle=True)", "A.from_pretrained(name)"):
        assert RUNS_CODE.search(line), line
