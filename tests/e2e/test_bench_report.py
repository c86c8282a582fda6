"""bench/report: documents of figures become one page, tables and pictures."""
import copy
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as xml

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
REPORT = os.path.join(ROOT, "bench", "report", "report")
sys.path.insert(0, os.path.dirname(REPORT))
import plot  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
DOCUMENT = {
    "title": "A <title> & more", "command": "bench/run x", "machine": "2 cores",
    "plots": [{"title": "Memory", "x_label": "time (s)", "y_label": "MiB",
               "marks": [{"x": 2, "text": "restart"}],
               "series": [{"name": "a<b", "x": [0, 1, 2, 3, 4], "y": [1, 2, None, 3, 4]},
                          {"name": "b", "x": [0, 4], "y": [5, 6]}]},
              {"title": "Load", "kind": "bars", "x_label": "engine", "y_label": "requests",
               "series": [{"name": "a", "x": ["e0", "e1"], "y": [10, 30]}]}],
    "tables": [{"title": "Figures", "columns": ["what", "x|y"], "rows": [["ttft", 0.0123456],
                                                                        ["count", 1234567]]}],
}


def report(tmp_path, document, *options):
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document))
    return subprocess.run([sys.executable, REPORT, str(path), *options], capture_output=True,
                          text=True, cwd=tmp_path, check=False)


def test_page_is_self_contained_and_escaped(tmp_path):
    run = report(tmp_path, DOCUMENT, "--html", "out.html")
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "out.html").read_text()
    assert "A &lt;title&gt; &amp; more" in page and "<title> &" not in page
    assert page.count("<svg ") == 2
    for outside in ("src=", "href=\"http", "@import", "<script"):
        assert outside not in page
    for figure in ("0.01235", "1,234,567", "bench/run x", "2 cores"):
        assert figure in page


def test_markdown_has_the_tables(tmp_path):
    run = report(tmp_path, DOCUMENT)
    assert "| what | x\\|y |" in run.stdout
    assert "| ttft | 0.01235 |" in run.stdout


def test_pictures_show_gaps_marks_and_bars(tmp_path):
    assert report(tmp_path, DOCUMENT, "--pictures", "svg").returncode == 0
    names = sorted(os.listdir(tmp_path / "svg"))
    assert names == ["document-load.svg", "document-memory.svg"]
    memory = xml.parse(tmp_path / "svg" / names[1]).getroot()
    paths = [one.get("d") for one in memory.iter(SVG + "path")]
    assert [path.count("M") for path in paths] == [2, 1]
    words = [one.text for one in memory.iter(SVG + "text")]
    for word in ("Memory", "time (s)", "MiB", "a<b", "b", "restart", "0", "4"):
        assert word in words
    load = xml.parse(tmp_path / "svg" / names[0]).getroot()
    heights = [float(one.get("height")) for one in load.iter(SVG + "rect")][1:]
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.01)


@pytest.mark.parametrize("values, texts", [
    ((0, 1), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ((0, 20000), ["0k", "5k", "10k", "15k", "20k"]),
    ((0, 0.025), ["0.000", "0.005", "0.010", "0.015", "0.020", "0.025"]),
    ((0, 2.5e6), ["0.0M", "0.5M", "1.0M", "1.5M", "2.0M", "2.5M"]),
])
def test_ticks_are_round_and_in_one_unit(values, texts):
    axis = plot.Axis(values[0], values[1], 0, 100)
    assert [text for _, text in axis.ticks][1:] == texts[1:]
    assert axis.ticks[0][1] == "0"
    assert axis(values[0]) == 0 and axis(values[1]) == 100


def test_thinning_keeps_extremes():
    points = [(x, 1.0) for x in range(100000)]
    points[77777] = (77777, 50.0)
    points[5] = (5, -3.0)
    thin = plot.thinned(points)
    assert len(thin) <= plot.POINTS_MAX
    assert (77777, 50.0) in thin and (5, -3.0) in thin
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)


def test_what_is_wrong_with_a_document_is_said(tmp_path):
    broken = copy.deepcopy(DOCUMENT)
    broken["plots"][0]["series"][0]["y"].pop()
    run = report(tmp_path, broken)
    assert run.returncode != 0 and 'series "a<b": 5 x, 4 y' in run.stderr
    broken = copy.deepcopy(DOCUMENT)
    broken["tables"][0]["rows"][0].append(1)
    assert "a row has 3 cells, there are 2 columns" in report(tmp_path, broken).stderr
    del broken["machine"]
    assert '"machine" is missing' in report(tmp_path, broken).stderr
