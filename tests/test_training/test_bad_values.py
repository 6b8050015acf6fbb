"""Values that no flag of any command takes: empty, not UTF-8, more processes than a machine bears."""

import pytest

from cococaption import __main__ as cococaption
from preprocess import cache_features, prepare_artemis, resize_wikiart, train_text2emotion
from utils import opts, plots, report
from utils.command_line import check_paths, parse_args
from utils.errors import InputError, run_script
from utils.files import write_text

# a parser, and arguments that are good
COMMANDS = {
    "train": (opts.get_parser, []),
    "cococaption": (cococaption.get_parser, ["--annotations", "a.json", "--results", "r.json"]),
    "report": (report.get_parser, ["report.json"]),
    "plots": (plots.get_parser, ["runs/demo"]),
    "cache_features": (cache_features.get_parser, ["a.json", "--image_root", "images", "--out_dir", "out"]),
    "prepare_artemis": (prepare_artemis.get_parser, ["--release_csv", "a.csv", "--out_dir", "out"]),
    "resize_wikiart": (resize_wikiart.get_parser, ["--wikiart_dir", "WikiArt", "--out_dir", "out"]),
    "train_text2emotion": (train_text2emotion.get_parser, []),
}
PATHS = {
    "train": "--ckpt_path",
    "cococaption": "--json",
    "report": "--json",
    "plots": "--out",
    "cache_features": "--clip_model",
    "prepare_artemis": "--spelling",
    "resize_wikiart": "--manifest",
    "train_text2emotion": "--glove",
}
COUNTS = (
    ("train", "--num_workers"),
    ("train", "--cpu_threads"),
    ("train", "--meteor_jvms"),
    ("cococaption", "--meteor_jvms"),
    ("cache_features", "--num_workers"),
    ("prepare_artemis", "--jobs"),
    ("resize_wikiart", "--jobs"),
)


def refused(command, *more):
    """The one line that answers the command line."""
    parser, good = COMMANDS[command]
    parser().parse_args(good)
    with pytest.raises(InputError) as error:
        parser().parse_args([*good, *more])
    line = str(error.value)
    assert "\n" not in line and len(line) < 400 and more[0].split("=")[0] in line
    return line


@pytest.mark.parametrize(("command", "flag"), PATHS.items())
def test_no_value_is_empty(command, flag):
    assert "empty" in refused(command, flag, "") and "empty" in refused(command, f"{flag}=")


@pytest.mark.parametrize(("command", "flag"), PATHS.items())
def test_no_value_is_in_another_encoding(command, flag):
    _, good = COMMANDS[command]
    with pytest.raises(InputError, match=r"'caf\\udce9'.*UTF-8"):  # what Python makes of Latin-1's bytes
        COMMANDS[command][0]().parse_args([*good, flag, "caf\udce9"])


@pytest.mark.parametrize(("command", "flag"), COUNTS)
def test_no_count_of_processes_brings_the_machine_down(command, flag):
    parser, good = COMMANDS[command]
    parser().parse_args([*good, flag, "32"])
    for number in ("100000", str(10**9), "-1"):
        assert "is not between" in refused(command, flag, number)
    assert "invalid int value" in refused(command, flag, "9" * 5000)


def test_a_path_that_no_file_system_takes(tmp_path, capsys):
    write_text(tmp_path / ("a" * 255), "")
    path = tmp_path / ("é" * 128)
    for write in (lambda: write_text(path, ""), lambda: check_paths(parse_args(["--demo", "--ckpt_path", str(path)]))):
        assert run_script(write) != 0
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "File name too long" in said and said.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == 1
