"""`ltsam push --report`: a report as a static Space."""

import pytest
import yaml
from cli.test_cli import run
from runs.report.html_page import Page
from runs.report.made_runs import metrics, write_run

SPACE = "me/my-report"


def made(folder):
    for name, few in {"sgd": 0.1, "sam": 0.9}.items():
        write_run(folder / name, metrics((0.9, 0.9, 0.9, few, few), method=name), recipe={"method": name})
    return folder


def pushed(capsys, *words):
    status, out, err = run(capsys, "push", *map(str, words), "--report")
    assert status == 0, err
    return out


def test_runs_are_reported_and_the_page_is_the_space(hub, tmp_path, capsys):
    folder = made(tmp_path / "runs")
    out = pushed(capsys, folder, SPACE, "--license", "mit", "--tags", "birds", "--private")
    assert f"The report: {hub.endpoint}/spaces/{SPACE}" in out and hub.repo(SPACE, "space").private
    files = hub.files(SPACE, "space")
    header = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert header["sdk"] == "static" and header["app_file"] == "index.html" and header["license"] == "mit"
    assert header["title"] == "my-report" and header["tags"] == ["hf_ltsam", "long-tailed", "birds"]
    page = Page(files["index.html"].decode())
    assert "CE + SAM is ahead" in page.section("Conclusion")
    links = {e["href"] for e in page.all("a") if not e["href"].startswith("#")}
    assert len(links) > 4 and set(files) == {"README.md", "index.html", *links}
    assert files["index.html"] == (folder / "report" / "report.html").read_bytes(), "nothing was taken out of it"
    assert hub.messages == ["Upload of a report"]


def test_a_written_report_is_sent_as_it_is(hub, tmp_path, capsys):
    status, _, err = run(capsys, "report", str(made(tmp_path / "runs")), "--output", str(tmp_path / "page"))
    assert status == 0, err
    (tmp_path / "page" / "diary.png").write_bytes(b"private")
    page = tmp_path / "page" / "report.html"
    page.write_text(page.read_text().replace("</h1>", " (mine)</h1>"))
    pushed(capsys, tmp_path / "page", SPACE)
    files = hub.files(SPACE, "space")
    assert b"(mine)" in files["index.html"] and "diary.png" not in files


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", SPACE], "nowhere"),
        (["RUNS", "report"], "names there have the form OWNER/NAME"),
        (["RUNS", SPACE, "--benchmark", "me/lt"], "--benchmark is of a model's results"),
    ],
)
def test_refusals(hub, tmp_path, capsys, words, message):
    runs = str(made(tmp_path / "runs"))
    status, _, err = run(capsys, "push", *(runs if word == "RUNS" else word for word in words), "--report")
    assert status == 2 and message in err and not hub.repos
