"""The report in a real browser, opened from disk, without a network: one page, loaded once."""

import math
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import chromium
from PIL import Image
from report_records import FAILED, MARKUP, SEEDS, SLOW, everything
from test_history import timed

from bench import tables
from bench.comparison import history
from bench.comparison.answers import sections
from bench.records import collection
from bench.report import page as report

pytestmark = pytest.mark.browser

EPYC = "AMD EPYC, 2 cores · article · float32"
SERIES = [*SLOW]
RESULTS = Path(__file__).parent.parent / "results"


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@contextmanager
def opening(browser, file, width=1280, height=900):
    """The page in a file, what it asked for, what it complained of, and its address."""
    context = browser.new_context(offline=True, viewport={"width": width, "height": height}, color_scheme="light")
    context.set_default_timeout(120_000)  # a busy machine is no failure
    page = context.new_page()
    requests, complaints = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-plots=ready]", state="attached")
    yield page, requests, complaints, file.as_uri()
    context.close()


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """A page of synthetic records, with a picture."""
    folder = tmp_path_factory.mktemp("report")
    Image.new("L", (8, 4), 128).save(folder / "digits.png")
    (folder / "digits.txt").write_text("Digits at temperature 0.8", encoding="utf-8")
    with opening(browser, report.write(everything(), [folder], folder / "report.html")) as found:
        yield found


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The page of the committed records."""
    return report.write(collection.load_all(RESULTS), [RESULTS], tmp_path_factory.mktemp("committed") / "report.html")


@pytest.fixture
def page(opened):
    found = opened[0]
    choose(found, EPYC)
    return found


def choose(page, label):
    page.select_option("[data-board=records] select", label=label)


def plot(page, name):
    """Traces and layout of a plot, once it is drawn."""
    page.locator(f"[data-panel={name}]").scroll_into_view_if_needed()
    page.wait_for_selector(f"[data-panel={name}] .plot .main-svg")
    return page.evaluate(
        """name => {
            const { data, layout } = document.querySelector(`[data-panel=${name}] .plot`);
            const plain = data.map(({ name, x, y, z, type }) => ({ name, x, y, z, type }));
            return { data: plain, font: layout.font.color, title: layout.yaxis.title.text };
        }""",
        name,
    )


def cells(page, table):
    """The visible rows of a table as lists of text."""
    return page.evaluate(
        """name => [...document.querySelectorAll(`table[data-name=${name}] tbody tr`)]
            .filter(row => !row.hidden).map(row => [...row.cells].map(cell => cell.textContent))""",
        table,
    )


def runs():
    return [record for record in everything() if record.plan.kind == "run"]


def of_group(table):
    raw = table.raw
    return raw[(raw["machine"] == "AMD EPYC, 2 cores") & (raw["precision"] == "float32") & (raw["status"] == "ok")]


def test_it_opens_without_a_request_and_without_a_complaint(opened):
    page, requests, complaints, address = opened
    for name in page.evaluate("[...document.querySelectorAll('.panels figure')].map(f => f.dataset.panel)"):
        plot(page, name)
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [address]


def test_of_the_committed_records_every_plot_is_drawn_without_a_complaint(browser, committed):
    with opening(browser, committed) as (page, requests, complaints, address):
        drawn = [(board, label, panel) for board in ("records", "suites") for label, panel in draw(page, board)]
        assert complaints == []
        assert [url for url in requests if not url.startswith("data:")] == [address]
    assert {board for board, _, _ in drawn} == {"records", "suites"}
    assert {"sweep-batch-train", "epoch", "loss-train"} <= {panel for _, _, panel in drawn}
    assert len({label for board, label, _ in drawn if board == "suites"}) == len(list(RESULTS.rglob("checks.csv.gz")))


def draw(page, board):
    """Draw every plot of a board, group by group; the group and the name of each, all of which have data."""
    select = f"[data-board={board}] select"
    for label in page.evaluate(f"[...document.querySelector('{select}').options].map(option => option.label)"):
        page.select_option(select, label=label)
        for name in page.evaluate(
            f"[...document.querySelectorAll('[data-board={board}] figure')].map(f => f.dataset.panel)"
        ):
            figure = f"[data-board={board}] [data-panel={name}]"
            page.locator(figure).scroll_into_view_if_needed()
            page.wait_for_selector(f"{figure} .plot .main-svg")
            assert page.evaluate(f"document.querySelector('{figure} .plot').data.length") > 0
            yield label, name


CARDS = "[...document.querySelectorAll('.card')].map(c => [...c.children].slice(0, 2).map(e => e.textContent))"


@pytest.mark.parametrize(
    ("width", "height", "seen"), [(1280, 800, ".card, [data-panel=first] .plot"), (360, 740, ".card")]
)
def test_the_first_screen_answers_without_scrolling(browser, committed, width, height, seen):
    with opening(browser, committed, width, height) as (page, _, complaints, _):
        page.wait_for_selector("[data-panel=first] .plot .main-svg")
        ends = page.evaluate(f"[...document.querySelectorAll('{seen}')].map(e => e.getBoundingClientRect().bottom)")
        cards, wide = page.evaluate(CARDS), page.evaluate("document.documentElement.scrollWidth")
    assert complaints == []
    assert len(ends) >= 5
    assert max(ends) <= height
    assert wide <= width
    made = collection.load_all(RESULTS)
    assert cards == [[each.question, each.short] for each in [*sections(made)[0].answers, report.still_holds(made)]]


def test_plots_come_before_words_and_words_before_tables(page):
    order = page.evaluate("[...document.querySelectorAll('main > section')].map(section => section.id)")
    assert order[:4] == ["summary", "plots", "details", "tables"]


def test_no_button_sends_the_figures_away(page):
    plot(page, "epoch")
    page.locator("[data-panel=epoch] .plot").hover()
    titles = page.evaluate("[...document.querySelectorAll('.modebar-btn')].map(button => button.dataset.title)")
    assert "Reset axes" in titles
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]


def test_each_plot_has_its_traces(page):
    expected = {
        "loss-train": 2 * len(SERIES),  # a line and a band over the seeds
        "loss-test": 2 * len(SERIES),
        "loss-difference": 2 * len(SERIES),  # training and test: any two, and two pairs
        "epoch": 3,  # rounds, medians, floors
        "sampling": len(SERIES),
        "invertibility": 2 * len(SERIES),  # trained and initial
        "agreement": 1,
        "seeds": len(SERIES),  # of training: a final test loss is measured, and none of these has one
        "sweep-batch-train": 2,
    }
    found = page.evaluate("[...document.querySelectorAll('[data-board=records] figure')].map(f => f.dataset.panel)")
    assert {name: len(plot(page, name)["data"]) for name in found} == expected


def test_plots_show_the_numbers_of_the_tables(page):
    speed = of_group(tables.speed(runs()))
    assert plot(page, "epoch")["data"][1]["x"] == list(speed["seconds_per_epoch"])

    losses = tables.curves(runs()).raw
    losses = losses[(losses["machine"] == "AMD EPYC, 2 cores") & (losses["precision"] == "float32")]
    lines = [trace for trace in plot(page, "loss-train")["data"] if "lowest" not in trace["name"]]
    assert [line["name"] for line in lines] == ["PyTorch", "TensorFlow", "JAX"]
    for line, name in zip(lines, SERIES, strict=True):
        assert line["x"] == list(losses["epoch"])
        assert line["y"] == list(losses[f"{name} train article loss"])
    assert plot(page, "loss-difference")["data"][0]["y"] == list(losses["max difference train article loss"])

    agreement = tables.agreement(runs()).raw
    agreement = agreement[(agreement["machine"] == "AMD EPYC, 2 cores") & (agreement["precision"] == "float32")]
    (heat,) = plot(page, "agreement")["data"]
    assert heat["x"] == ["PyTorch", "TensorFlow", "JAX"]
    for line, (_, row) in zip(heat["z"], agreement.iterrows(), strict=True):
        assert line == pytest.approx([math.log10(row[name]) for name in SERIES])


@pytest.mark.parametrize("table", tables.all_tables(everything(), brief=True), ids=lambda table: table.name)
def test_tables_are_those_of_the_data_frame(page, table):
    assert cells(page, table.name) == table.shown.astype(str).values.tolist()


def test_spread_over_seeds_has_every_record(page):
    for trace in plot(page, "seeds")["data"]:
        assert len(trace["y"]) == len(SEEDS)


def test_another_group_has_its_own_plots(page):
    before = plot(page, "epoch")["data"][1]
    choose(page, "AMD EPYC, 2 cores · article · float64")
    after = plot(page, "epoch")["data"][1]
    assert (before["y"], after["y"]) == (["PyTorch", "TensorFlow", "JAX"], ["PyTorch", "JAX"])
    assert after["x"][0] == 2 * before["x"][0]
    assert page.locator("[data-panel=seeds]").count() == 0  # one seed


def heading(page, table, name):
    return page.locator(f"table[data-name={table}] th", has=page.get_by_role("button", name=name, exact=True))


def column(page, table, name):
    place = page.evaluate(
        """([table, name]) => [...document.querySelectorAll(`table[data-name=${table}] th`)]
            .findIndex(cell => cell.textContent === name)""",
        [table, name],
    )
    return [row[place] for row in cells(page, table)]


def test_headings_sort_by_number_and_say_so_by_mouse_and_keyboard(page):
    name = "s/epoch [min–max]"
    cell, before = heading(page, "speed", name), column(page, "speed", name)
    assert cell.get_attribute("aria-sort") == "none"

    cell.get_by_role("button").click()
    rising = [float(text.split()[0]) for text in column(page, "speed", name) if text != "–"]
    assert rising == sorted(rising)
    assert rising[0] == 45.62  # as text the times of three digits would come first
    assert column(page, "speed", name)[-1] == "–"
    assert cell.get_attribute("aria-sort") == "ascending"

    cell.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert [float(text.split()[0]) for text in column(page, "speed", name)[:-1]] == rising[::-1]
    assert column(page, "speed", name)[-1] == "–"
    assert cell.get_attribute("aria-sort") == "descending"

    page.keyboard.press("Enter")
    assert column(page, "speed", name) == before
    assert cell.get_attribute("aria-sort") == "none"


def test_losses_sort_by_their_sign_too(page):
    name = "final train article loss"
    heading(page, "accuracy", name).get_by_role("button").click()
    rising = [float(text.split()[0]) for text in column(page, "accuracy", name) if text != "–"]
    assert len(set(rising)) > 1
    assert max(rising) < 0
    assert rising == sorted(rising)  # as text that of the least digits would come first


def test_a_filter_keeps_rows_that_have_all_its_words(page):
    box = page.locator("details:has(table[data-name=speed])")
    total = len(cells(page, "speed"))
    box.get_by_role("searchbox").fill("JAX float64")
    (row,) = cells(page, "speed")
    assert {"jax", "float64"} <= set(row)
    assert box.locator("output").text_content() == f"1 of {total} rows"
    box.get_by_role("searchbox").fill("")
    assert len(cells(page, "speed")) == total


def test_what_failed_is_in_sight_and_its_reason_is_text(page):
    message = page.locator("#summary .failures")
    assert message.is_visible()
    assert FAILED.reason in message.text_content()
    assert MARKUP in page.locator("table[data-name=speed]").text_content()
    assert page.locator("main b").count() == 0


def test_colours_follow_the_system_and_the_switch(page):
    def seen():
        page.wait_for_function(
            """() => document.querySelector("[data-panel=epoch] .plot").layout.font.color
                === getComputedStyle(document.body).color"""
        )
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    plot(page, "epoch")
    light = seen()
    page.emulate_media(color_scheme="dark")
    dark = seen()
    assert light != dark
    switch = page.get_by_role("button", name="Colours")
    switch.click()
    assert switch.text_content() == "Colours: light"
    assert seen() == light
    page.emulate_media(color_scheme="light")
    switch.click()
    assert switch.text_content() == "Colours: dark"
    assert seen() == dark
    switch.click()
    assert seen() == light


def test_a_phone_does_not_scroll_sideways(page):
    page.set_viewport_size({"width": 360, "height": 740})
    plot(page, "agreement")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.set_viewport_size({"width": 1280, "height": 900})


def test_figures_over_revisions_are_those_of_history(browser, tmp_path):
    revisions = timed([1.0, 1.01, 0.99, 1.0, 1.02, 1.3, 1.31, 1.29, 1.3, 1.32])
    made = report.write(revisions[-1].records, [], tmp_path / "report.html", revisions)
    series = history.history(revisions, ["speed"])
    with opening(browser, made, 360, 740) as (page, _, complaints, _):  # a phone, which doesn't scroll sideways
        points, step = plot(page, "history-1-1")["data"]
        shown, sentences = cells(page, "history-1"), page.locator("#history li").all_text_contents()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert complaints == []
    assert points["y"] == [row["value"] for row in history.rows(series)]
    assert (step["name"], step["x"]) == ("step", ["r5"])
    (table,) = history.tables(series)
    assert shown == table.shown.values.tolist()
    assert sentences == history.sentences(series)


def test_pictures_are_shown_with_their_captions(page):
    image = page.locator("#pictures img")
    image.scroll_into_view_if_needed()
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [8, 4]
    assert page.locator("#pictures figcaption").text_content() == "Digits at temperature 0.8"


def test_records_name_their_environments(page):
    assert "E1" in column(page, "records", "environment")
    assert '"cpu": "AMD EPYC"' in page.locator("details.environment pre").first.text_content()
