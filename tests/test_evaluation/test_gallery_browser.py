"""The gallery in a real browser: filters, keys, hostile text, axe-core's rules. Skips, and says why, without chromium."""

import json
import re
import shutil
import subprocess
import tarfile

import pytest

from tests.test_evaluation.test_gallery import hostile_page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --virtual-time-budget=4000"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed (apt-get install chromium)"),
]


def in_browser(html: str, script: str, folder, *flags: str):
    """What `script`, the body of an async function, returns on the page; as JSON."""
    runner = f"(async () => {{ {script} }})().catch(String).then((v) => document.documentElement.dataset.out = JSON.stringify(v));"
    (folder / "page.html").write_text(html.replace("</body>", f"<script>{runner}</script></body>"))
    dom = dump(folder / "page.html", folder, *flags)
    found = re.search(r'data-out="([^"]*)"', dom)
    assert found, dom[-2000:]
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def dump(page, folder, *flags: str) -> str:
    command = [CHROMIUM, *FLAGS.split(), *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_filters_keys_and_hostile_text(tmp_path):
    script = """
        const visible = () => [...document.querySelectorAll(".card")].filter((c) => !c.hidden).map((c) => c.dataset.scores);
        const set = (id, value) => { const e = document.getElementById(id); e.value = value; e.dispatchEvent(new Event("input")); };
        const key = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
        const out = { all: visible() };
        set("emotion", "fear"); out.fear = visible(); key("Escape"); out.cleared = visible();
        set("correctness", "right"); out.right = visible(); set("correctness", "");
        set("group", "worst"); out.worst = visible(); set("group", "");
        set("search", "GRIEF"); out.search = visible(); out.count = document.getElementById("count").textContent;
        set("search", "zzz"); out.none = document.getElementById("none").hidden; set("search", "");
        set("sort", "0 -1"); out.sorted = visible();
        document.activeElement.blur();
        key("j"); out.first = document.activeElement.dataset.scores; key("j"); out.second = document.activeElement.dataset.scores;
        key("ArrowRight"); out.word = document.activeElement.textContent; key("r");
        out.open = document.activeElement.closest(".card").querySelector(".references").open;
        out.tip = getComputedStyle(document.activeElement, "::after").content;
        key("/"); out.focus = document.activeElement.id;
        out.images = document.images.length; out.title = document.title; out.wide = document.documentElement.scrollWidth > innerWidth;
        return out;
    """
    out = in_browser(hostile_page(), script, tmp_path, "--window-size=500,900")
    assert out["all"] == out["cleared"] == ["0.0", "1.0", "2.0"]
    assert out["fear"] == out["search"] == ["1.0"] and out["count"] == "1 of 3 images"
    assert out["right"] == ["0.0", "2.0"] and out["worst"] == ["0.0"] and out["none"] is False
    assert out["sorted"] == ["2.0", "1.0", "0.0"]
    assert (out["first"], out["second"], out["word"], out["open"]) == ("2.0", "1.0", "grief", True)
    assert "V -1.00" in out["tip"] and out["focus"] == "search"
    assert out["images"] == 0 and "<script>alert(1)" in out["title"] and not out["wide"]


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """axe-core's script, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("no npm, which axe-core is had from")
    try:
        subprocess.run(["npm", "pack", "axe-core"], cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("npm cannot fetch axe-core")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(axe, scheme, tmp_path):
    html = hostile_page()
    html = html.replace("</body>", "<script>" + axe.replace("</script", "<\\/script") + "</script></body>")
    script = """
        const dark = matchMedia("(prefers-color-scheme: dark)").matches;
        document.querySelectorAll("details").forEach((d) => { d.open = true; });
        const result = await axe.run(document);
        return { dark, passes: result.passes.length, violations: result.violations.map((v) => v.id + ": " + v.nodes[0].html.slice(0, 200)) };
    """
    out = in_browser(html, script, tmp_path, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    assert out["dark"] == (scheme == "dark") and out["passes"] > 20
    assert out["violations"] == []
