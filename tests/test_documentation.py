"""The pages beside the code: links lead somewhere, commands and flags exist, and so do the names that they point at."""

import ast
import functools
import importlib
import re

import pytest

from tests.conftest import REPOSITORY

ROOMS = ("models", "preprocess", "utils/evaluation", "utils/training", "tests")
PAGES = ["README.md", "CHANGELOG.md", *(f"{room}/README.md" for room in ROOMS)]
CODE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?<![\w/.-])(?:-m ([a-z]\w*(?:\.\w+)*)|([\w/]+\.py))(?![\w/])")
OF_OTHERS = {"--nnodes", "--shutdown_timeout", "--standalone"}  # flags of other programs that stand alone


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


@functools.cache
def anchors(page: str) -> set[str]:
    """What GitHub makes of a page's headings: lower case, without punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@functools.cache
def known_flags(script: str) -> frozenset[str]:
    """The flags of a script or module: those of its parser, or, in a script without `get_parser`, those that its code names."""
    module = script.removesuffix(".py").replace("/", ".")
    module += ".__main__" if (REPOSITORY / module).is_dir() else ""
    path = REPOSITORY / (module.replace(".", "/") + ".py")
    assert path.is_file(), f"{script}: no such script or module"
    if script == "artEmisX_train.py":
        module = "utils.opts"
    elif "\ndef get_parser" not in path.read_text():
        return frozenset(re.findall(r'"(--[\w-]+)"', path.read_text()))
    parser = importlib.import_module(module).get_parser()
    return frozenset(option for action in parser._actions for option in action.option_strings)


def commands(page: str) -> list[tuple[str, str]]:
    """Every script or module that a page's code starts, with the flags behind it."""
    code = "\n".join([*CODE.findall(text_of(page)), *re.findall(r"`([^`\n]+)`", CODE.sub("", text_of(page)))])
    found = []
    for line in re.split(r"\n|&& ", code.replace("\\\n", " ")):
        started = COMMAND.search(line) if re.search(r"python|launch|torchrun|\.py --", line) else None
        if started is None or re.match(r"pip|nltk|pytest", started[1] or started[2]):
            continue
        script, arguments = started[1] or started[2], line[started.end() :].partition(" #")[0]
        if "/" not in script and script.endswith(".py") and not (REPOSITORY / script).is_file():
            script = f"preprocess/{script}"  # on the page of that folder
        arguments, _, of_training = arguments.partition(" -- ")  # behind which utils.sweep takes the training's flags
        found += [(script, arguments), ("artEmisX_train.py", of_training)]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", text_of(page))):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = ((REPOSITORY / page).parent / path).resolve() if path else REPOSITORY / page
        assert found.exists(), f"{page}: {target}: no such file"
        if anchor:
            assert anchor in anchors(str(found.relative_to(REPOSITORY))), f"{page}: {target}: no such heading"


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_flags(page):
    found = commands(page)
    assert page != "README.md" or (len(found) > 30 and ("utils.compare", " RUN RUN") in found)
    for script, arguments in found:
        for flag in re.findall(r"(?<!\S)--[\w-]+", arguments):
            assert flag in known_flags(script), f"{page}: {script} has no {flag}"


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text(page):
    """A flag that stands alone belongs to one of our commands, or to the few programs of others that are named."""
    scripts = {script for of_page in PAGES for script, _ in commands(of_page)}
    known = set().union(*map(known_flags, scripts)) | OF_OTHERS
    for flag in re.findall(r"`(--[\w-]+)", CODE.sub("", text_of(page))):
        assert flag in known, f"{page}: nothing has {flag}"


def test_where_the_paper_is_in_the_code():
    table = text_of("README.md").partition("## Where the paper is in the code")[2].partition("\n## ")[0]
    rows = [row.split("|")[2:4] for row in table.splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) > 10
    for files, names in rows:
        defined = set().union(*(names_in(path) for path in re.findall(r"`([^`]+)`", files)))
        for name in re.findall(r"`([^`]+)`", names):
            assert name in defined, f"README.md: {name} is not in {files.strip()}"


def names_in(path: str) -> set[str]:
    """Names at a file's top level, and `Class.method`."""
    found = set()
    for node in ast.parse((REPOSITORY / path).read_text()).body:
        if isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
    return found


def test_every_page_is_linked_both_ways():
    for page in PAGES[1:]:
        assert f"]({page}" in text_of("README.md"), f"README.md does not link {page}"
        assert re.search(r"\]\((\.\./)*README\.md", text_of(page)), f"{page} does not link README.md"
