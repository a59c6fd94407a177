"""The report: self-contained, honest at the top, and readable in a browser of any width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster import cli
from loadtests.report import gate, plots, report
from loadtests.report.gate import Gate
from loadtests.report.plots import Chart, Line
from loadtests.run import runs
from tests.load.samples import STARTED, audit, manifest, result, second

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def page(tmp_path: Path, **parts: object) -> str:
    made = {"result": result(), "audit": audit()} | parts
    return report.render(manifest(), made["result"], made["audit"], tmp_path)  # type: ignore[arg-type]


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


def test_the_page_needs_nothing_from_anywhere(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert not re.search(r"https?://|<script|<link|@import|url\(|\bsrc=", html)


def test_verdict_and_engine_come_before_any_figure(tmp_path: Path) -> None:
    text = text_of(page(tmp_path)).partition("Load run")[2]
    head = text[: text.index("transfers acknowledged")]
    assert "EMULATOR (one node, no replication, not TigerBeetle)" in head
    assert "passed" in text_of(page(tmp_path))[:200]


@pytest.mark.parametrize("verdict", ["passed", "failed", "unknown"])
def test_each_verdict_is_shown_as_what_it_is(tmp_path: Path, verdict: str) -> None:
    html = page(tmp_path, audit=audit(verdict))
    assert f'class="badge {verdict}"' in html
    others = {"passed", "failed", "unknown"} - {verdict}
    assert not any(f'class="badge {other}"' in html for other in others)


def test_a_run_without_an_audit_does_not_look_passed(tmp_path: Path) -> None:
    html = page(tmp_path, audit=None)
    assert 'class="badge not-audited"' in html
    assert "prove nothing" in html


def test_a_run_that_was_cut_off_says_so_and_shows_no_figures(tmp_path: Path) -> None:
    text = text_of(page(tmp_path, result=None, audit=audit("unknown")))
    assert "cut off" in text
    assert "transfers acknowledged" not in text


def test_what_the_audit_found_is_escaped(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert "see &lt;here&gt; &amp; there" in html
    assert "<here>" not in html


def test_faults_are_marked_in_the_plots_and_listed(tmp_path: Path) -> None:
    html = page(tmp_path)
    assert html.count("<title>replica 1 is gone at 9.0 s</title>") == 3
    assert "Faults during the run" in html


def test_a_run_with_nothing_in_it_still_has_a_page(tmp_path: Path) -> None:
    empty = result([second(STARTED + 1, 2, ok=0)]).model_copy(
        update={"series": [], "servers": [], "actions": {}, "faults": []}
    )
    assert "nothing was measured" in page(tmp_path, result=empty)


def test_drops_are_shown_in_open_loop_only(tmp_path: Path) -> None:
    opened = report.render(
        manifest(mode="open", rate=100), result(mode="open", rate=100), audit(), tmp_path
    )
    assert "dropped (open loop)" in opened
    assert "dropped (open loop)" not in page(tmp_path)


def test_the_parts_of_latency_are_shown_where_they_were_measured(tmp_path: Path) -> None:
    text = text_of(page(tmp_path))
    assert "What latency consists of" in text
    assert "the slowest 1 %" in text
    made = result()
    older = made.model_copy(update={"window": made.window.model_copy(update={"composition": None})})
    assert "What latency consists of" not in page(tmp_path, result=older)


def test_the_gates_findings_are_shown(tmp_path: Path) -> None:
    gate.write_findings(tmp_path, gate.judge(Gate(p99_ms=1), result()))
    html = page(tmp_path)
    assert "p99_ms" in html
    assert '<span class="icon failed"></span>' in html


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.25, "0.25"), (4.2, "4.2"), (130, "130"), (12_000, "12k"), (3_400_000, "3.4M")],
)
def test_numbers_on_axes_are_short(value: float, expected: str) -> None:
    assert plots.short(value) == expected


@pytest.mark.parametrize("values", [[0.0], [1e-9, 1e9], [5.0, 5.0], [0.0, 0.0]])
@pytest.mark.parametrize("log", [True, False])
def test_any_values_stay_inside_the_plot(values: list[float], log: bool) -> None:
    points = [(float(i), value) for i, value in enumerate(values)]
    svg = plots.time_chart(Chart(lines=[Line("x", points, 1)], unit="ms", log=log))
    paths = re.findall(r'd="M([^"]*)"|cx="([\d.]+)" cy="([\d.]+)"', svg)
    numbers = [float(n) for match in paths for n in re.findall(r"[\d.]+", " ".join(match))]
    assert numbers
    assert all(0 <= number <= plots.WIDTH for number in numbers)


def test_a_gap_in_the_values_is_a_gap_in_the_line() -> None:
    points = [(0.0, 1.0), (1.0, 1.0), (2.0, None), (3.0, 1.0), (4.0, 1.0)]
    svg = plots.time_chart(Chart(lines=[Line("x", points, 1)], unit="ms"))
    assert svg.count('class="line c1"') == 2


#: A window of a browser is at least 500 wide, a frame in it is as narrow as a phone.
FRAME = """<!doctype html><iframe style="width:{width}px;height:2000px;border:0"></iframe><script>
const frame = document.querySelector('iframe');
frame.srcdoc = {page};
frame.onload = () => {{
  const page = frame.contentDocument, view = frame.contentWindow;
  const plots = [...page.querySelectorAll('svg')].map(plot => plot.getBoundingClientRect());
  const columns = view.getComputedStyle(page.querySelector('.charts')).gridTemplateColumns;
  document.body.dataset.probe = JSON.stringify({{
    width: view.innerWidth, scroll: page.documentElement.scrollWidth,
    plots: plots.filter(plot => plot.width > 200 && plot.height > 80).length,
    badge: view.getComputedStyle(page.querySelector('.badge'), '::before').content,
    columns: columns.split(' ').length,
  }});
}};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: apt-get install chromium")
@pytest.mark.parametrize(("width", "columns"), [(1280, 2), (390, 1)], ids=["desk", "phone"])
def test_a_browser_shows_all_of_it_without_scrolling_sideways(
    tmp_path: Path, width: int, columns: int
) -> None:
    html = page(tmp_path)
    file, shot = tmp_path / "frame.html", tmp_path / "report.png"
    file.write_text(FRAME.format(width=width, page=json.dumps(html)), encoding="utf-8")
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    dom = chromium(tmp_path, "--window-size=1400,2000", "--dump-dom", file.as_uri())
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, dom[-500:]
    probe = json.loads(found[1].replace("&quot;", '"'))
    assert probe["scroll"] <= probe["width"] == width
    assert probe["plots"] == 4
    assert probe["columns"] == columns
    assert "✓" in probe["badge"]
    chromium(
        tmp_path,
        f"--window-size={width},2000",
        f"--screenshot={shot}",
        (tmp_path / "report.html").as_uri(),
    )
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert shot.stat().st_size > 30_000  # a blank page is far smaller


def chromium(directory: Path, *arguments: str) -> str:
    assert CHROMIUM
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={directory / 'profile'}",
    ]
    done = subprocess.run(
        [CHROMIUM, *options, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_a_report_is_written_beside_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADTESTS_RUNS", str(tmp_path))
    run = tmp_path / "one"
    run.mkdir()
    runs.write_json(run / "run.json", manifest().model_dump_json())
    assert cli.main(["report", "--run", "one"]) == 0
    assert "cut off" in (run / "report.html").read_text(encoding="utf-8")
    assert cli.main(["report", "--run", "two"]) == 2
