"""The file of a rollout, looked at in a real browser, as wide as a desk's and as a telephone's screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.report import page
from tests.report.recorded import bad, good, measured, waiting

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is here (Debian: apt-get install chromium)"),
]

WIDTHS = (1280, 400)

# Each page stands in a frame of its own with its own policy; what looks at it stands around it.
LOOK = """
<script>
const bright = ([r, g, b]) => {
  const part = c => (c /= 255, c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const colour = text => text.match(/[0-9.]+/g).map(Number);
function ground(node) {
  for (let at = node; at; at = at.parentElement) {
    const found = colour(getComputedStyle(at).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
function look(frame) {
  const doc = frame.contentDocument, root = doc.documentElement, width = frame.clientWidth;
  const shown = [...doc.body.querySelectorAll("*")].filter(each => each.getClientRects().length);
  const own = each => [...each.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const faint = shown.filter(own).filter(each => !each.closest(".stage, .chart")).filter(each => {
    const style = getComputedStyle(each);
    const [a, b] = [bright(colour(style.color)), bright(ground(each))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) < 4.5;
  });
  const outside = shown.filter(each => {
    const box = each.getBoundingClientRect();
    return box.width > 1 && (box.right > width + 1 || box.left < -1);
  });
  const line = doc.querySelector(".weights .line");
  const rows = [...doc.querySelectorAll(".row .plot")].map(each => each.getBoundingClientRect());
  return {
    title: doc.title, width, scroll: root.scrollWidth, height: root.scrollHeight,
    faint: faint.map(each => each.outerHTML.slice(0, 120)),
    outside: outside.map(each => each.outerHTML.slice(0, 120)),
    scripts: doc.scripts.length, loaded: frame.contentWindow.performance.getEntriesByType("resource").length,
    console: [...doc.querySelectorAll("pre")].map(each => each.textContent),
    line: line.getBoundingClientRect().width, stroke: getComputedStyle(line).stroke,
    plots: [...new Set(rows.map(each => Math.round(each.left) + ":" + Math.round(each.width)))],
    stages: [...doc.querySelectorAll(".stage")].map(each => each.getBoundingClientRect().width),
    headings: [...doc.querySelectorAll("h1, h2")].map(each => each.textContent),
    dark: bright(ground(doc.body)) < 0.2,
  };
}
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(look);
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.replaceChildren(out);
});
</script>
"""


def looked_at(folder: Path, pages: list[str], *flags: str) -> list[dict[str, Any]]:
    """What a browser makes of each page at each width."""
    frames = [
        f'<iframe style="width:{width}px;height:800px;border:0" srcdoc="{html.escape(each)}"></iframe>'
        for each in pages
        for width in WIDTHS
    ]
    around = folder / "around.html"
    around.write_text(f"<!doctype html><meta charset=utf-8>{LOOK}<body>{''.join(frames)}")
    # As root, as in a container, Chromium has no sandbox of its own to offer. What it shows is ours.
    ran = subprocess.run(
        [
            str(CHROMIUM),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,900",
            *flags,
            "--dump-dom",
            around.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found is not None, ran.stderr[-2000:]
    seen: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return seen


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("ledgers")
    made = [good(folder / "good"), bad(folder / "bad"), waiting(folder / "waiting"), measured(folder / "measured")]
    return [page(each.report()) for each in made]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_all_of_it_at_any_width(tmp_path: Path, pages: list[str], scheme: str) -> None:
    """Nothing hangs over the edge, every word has enough contrast in either scheme, the chart's rows share one axis;
    nothing is loaded, and a guest's script does not run."""
    flags = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    found = looked_at(tmp_path, pages, *flags)

    assert [each["width"] for each in found] == [*WIDTHS] * len(pages)
    for seen in found:
        assert seen["dark"] is (scheme == "dark")
        assert seen["scroll"] <= seen["width"] and not seen["outside"]
        assert not seen["faint"]
        assert not seen["scripts"] and not seen["loaded"] and "pwned" not in seen["title"]
        assert len(seen["plots"]) == 1 and seen["line"] > seen["width"] / 2 and seen["stroke"] != "none"
        assert min(seen["stages"]) >= 2
        assert {"Course", "Stages", "Gates", "People", "Evidence"} <= set(seen["headings"])
    assert any("</pre><script>" in text for text in found[2]["console"])
