"""Names of the files of a run. No torch here.

<run>/ckpts/                               --ckpt_path
    nle_model_<name>/                      a named checkpoint, see utils/training/checkpoints.py
    ckpt_stats_<name>.tar
    nle_gpt2_tokenizer_0/
    resume/                                states, see utils/training/resume.py
<run>/results/                             --caption_save_path
    log.jsonl                              see utils/training/run_log.py
    report.json                            of --eval_only, see utils/evaluation/report.py
"""

from pathlib import Path

CKPTS, RESULTS = "ckpts", "results"
BEST = ("best-acc", "best-res")
TOKENIZER_FOLDER = "nle_gpt2_tokenizer_0"
STATES_FOLDER = "resume"
LOG_FILE, REPORT = "log.jsonl", "report.json"


def model_folder(ckpt_path: Path, name: str) -> Path:
    return ckpt_path / f"nle_model_{name}"


def stats_name(name: str) -> str:
    return f"ckpt_stats_{name}.tar"


def list_names(ckpt_path: Path) -> list[str]:
    """Names of the checkpoints in a folder."""
    return sorted(folder.name.removeprefix("nle_model_") for folder in ckpt_path.glob("nle_model_*") if folder.is_dir())
