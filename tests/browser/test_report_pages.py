"""Report pages in a real browser at two widths, light and dark: the first screen, the contents, and the way to the rows."""

from __future__ import annotations

import pytest

from test_report import frame, results  # noqa: F401 (fixtures)
from test_viewer import html, part

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_first_screen_and_contents(open_page, shoot, rendered, width, scheme) -> None:
    page = open_page(rendered / "index.html", width)
    page.emulate_media(color_scheme=scheme)
    shoot(page, f"report-{width}-{scheme}", full=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"
    assert page.locator(".first img").count() == 1 and page.locator(".first dd").count() == 3
    sentence = page.locator(".first > p").bounding_box()
    assert sentence["y"] + sentence["height"] < 1000, "the first screen is longer than the screen"
    ground, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (sum(map(int, ground[4:-1].split(","))) < sum(map(int, ink[4:-1].split(",")))) == (scheme == "dark")
    page.mouse.wheel(0, 6000)
    page.wait_for_function("() => scrollY > 3000")
    contents = page.get_by_label("Contents").bounding_box()
    assert 0 <= contents["y"] < 60, "the contents scroll away"
    page.get_by_label("Contents").get_by_role("link", name="Scores").click()
    assert 0 <= page.locator("#scores h2").bounding_box()["y"] < 120, "the contents do not lead there"


def test_a_number_leads_to_its_rows(open_page, rendered) -> None:
    (rendered / "rows.html").write_text(html(part(6, ("weak", "w2s_naive"))), encoding="utf-8")
    page = open_page(rendered / "index.html")
    page.locator("#scores td a").nth(1).click()
    page.wait_for_url("**/rows.html#*")
    assert page.get_by_label("Any model").input_value() and "6 rows" in page.locator("#count").inner_text()


@pytest.mark.parametrize("width", [1400, 420])
def test_every_page_of_the_demo_fits_its_window(demo, open_page, shoot, width) -> None:
    """Of each experiment the report, its rows, the list of its stages and a stage of each kind; and the pages that lead there."""
    folder = demo / "reports"
    pages = [folder / "index.html", folder / "demo" / "index.html"]
    for report in sorted(folder.glob("demo/*@n_seeds=1")):
        pages += [report / "index.html", report / "rows.html", report / "stages" / "index.html"]
        pages += {page.name.rsplit(".", 2)[0]: page for page in report.glob("stages/*.*.*.html")}.values()
    assert len(pages) > 20
    wide = {}
    for file in pages:
        page = open_page(file, width)
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        name = str(file.relative_to(folder).with_suffix("")).replace("/", "-")
        if over > 0:
            wide[name] = over
        shoot(page, f"page-{width}-{name}")
        page.context.close()
    assert not wide, f"pixels beyond the window: {wide}"
