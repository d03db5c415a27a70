"""The page of rows in a real browser: filters, keys, search, addresses, unlocking, and its speed on 50,000 rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from test_viewer import EVIL, html, part
from underseer.look import viewer
from underseer.look.viewer.parts import Pool

pytestmark = pytest.mark.browser
COUNT = "document.getElementById('count').textContent"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    file = tmp_path / "rows.html"
    file.write_text(html(part(12)), encoding="utf-8")
    return file


def test_texts_are_shown_as_text(open_page, small) -> None:
    page = open_page(small)
    assert page.locator(".prompt").inner_text() == f"prompt 0 {EVIL}"
    assert page.locator(".card blockquote").first.inner_text() == f"reset 0 {EVIL}"
    assert page.title() == "Rows of demo/selfmoa · underseer" and page.locator("main img, main b b").count() == 0
    page.locator("#search").fill("<b>bold")
    assert page.locator("mark").first.inner_text() == "<b>bold" and "12 of 12" in page.evaluate(COUNT)


def test_filters_hold_of_one_answer_and_stand_in_the_address(open_page, small) -> None:
    page = open_page(small)
    page.get_by_label("Add a filter").select_option("unsafe")
    assert page.evaluate(COUNT) == "8 of 12 rows"  # multiples of 2 or of 3
    page.get_by_label("Any model").select_option(label="Self-MOA, iteration 1")
    assert page.evaluate(COUNT) == "4 of 12 rows"
    page.get_by_label("Set").select_option("safe")
    assert page.evaluate(COUNT) == "4 of 12 rows" and page.locator(".card.hit h3").inner_text().startswith("Self-MOA")
    address = page.evaluate("location.hash")
    assert "is=unsafe" in address and "method=selfmoa_iter1" in address and "set=safe" in address
    again = open_page(f"{small.as_uri()}{address}")
    assert again.evaluate(COUNT) == "4 of 12 rows"
    again.locator(".chip").click()
    again.keyboard.press("r")
    assert again.evaluate(COUNT) == "12 of 12 rows"


def test_keys_and_lineage(open_page, small) -> None:
    page = open_page(small)
    for key, row in (("j", 1), ("j", 2), ("k", 1), ("G", 11), ("j", 11), ("g", 0), ("k", 0)):
        page.keyboard.press(key)
        assert page.locator(".prompt").inner_text().startswith(f"prompt {row} ")
    page.keyboard.press("/")
    page.keyboard.type("prompt 11")
    assert page.evaluate(COUNT) == "1 of 12 rows"
    page.keyboard.press("Escape")
    page.locator(".relative").first.click()  # its parent
    assert page.locator(".prompt").inner_text().startswith("prompt 10 ") and page.evaluate(COUNT) == "12 of 12 rows"
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("?")
    assert page.locator("table a").get_attribute("href") == "stages/k1.html"
    assert "underseer run x" in page.locator("#detail table").inner_text()


def test_texts_are_unlocked_by_their_own_file_until_the_page_is_closed(open_page, tmp_path) -> None:
    file, shown = tmp_path / "rows.html", part(3, text="velkock")
    file.write_text(html(shown, redacted=True), encoding="utf-8")
    pool = Pool()
    viewer._packed([shown], pool, {})
    given = {"texts": viewer.joined(pool.texts), "fingerprint": viewer._fingerprint(pool.texts)}
    (tmp_path / "own.json").write_text(json.dumps(given))
    (tmp_path / "other.json").write_text(json.dumps({**given, "fingerprint": "0"}))
    page = open_page(file)
    assert page.locator(".prompt").inner_text() == "[redacted, 3 words]"
    page.locator("#file").set_input_files(tmp_path / "other.json")
    page.wait_for_function("() => document.getElementById('notice').textContent.includes('does not hold')")
    assert page.locator(".prompt").inner_text() == "[redacted, 3 words]"
    page.locator("#file").set_input_files(tmp_path / "own.json")
    page.wait_for_function("() => document.body.classList.contains('unlocked')")
    assert (
        page.locator(".prompt").inner_text() == "prompt 0 velkock"
        and "unsafe text" in page.locator("#notice").inner_text()
    )
    page.reload()
    assert page.locator(".prompt").inner_text() == "[redacted, 3 words]"


def test_fifty_thousand_rows_are_quick(chromium, tmp_path) -> None:
    """The page is painted within a second and each change of filter, search, order or row within 200 ms.

    Held is the processor time of the page's thread, which other work on this machine does not change; clock times are printed.
    """
    file = tmp_path / "rows.html"
    words = "a prompt of some twenty words, as they are in the testbed, to be looked for in every row of it"
    models = ("aligned", "reset", "selfmoa_iter1", "selfmoa_iter2", "human_dpo")
    file.write_text(html(part(50_000, models, words)), encoding="utf-8")
    with chromium.new_context(viewport={"width": 1400, "height": 1000}) as context:
        page = context.new_page()
        thread = context.new_cdp_session(page)
        thread.send("Performance.enable", {"timeDomain": "threadTicks"})

        def spent() -> float:
            told = {m["name"]: m["value"] for m in thread.send("Performance.getMetrics")["metrics"]}
            return 1000 * told["TaskDuration"]

        page.goto(file.as_uri())
        page.wait_for_function("() => performance.getEntriesByName('rows').length")
        opened = spent()
        paint, rows = page.evaluate(
            "['first-contentful-paint', 'rows'].map((n) => performance.getEntriesByName(n)[0].startTime)"
        )
        search = "at('search').value = '{}'; at('search').dispatchEvent(new Event('input'))"
        changes = [search.format(text) for text in ("p", "prompt 4", "selfmoa", "nowhere", "")]
        changes += ["state.is = ['unsafe']; update()", "state.method = 'selfmoa_iter1'; update()"]
        changes += ["state.sort = 'unsafe, reporting judge'; update()", "select(40000)", "reset()"]
        painted = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
        times: dict[str, float] = {}
        for change in changes:
            before = spent()
            page.evaluate(f"{{ {change}; {painted} }}")
            times[change] = spent() - before
        print(
            f"{file.stat().st_size / 1e6:.0f} MB; {opened:.0f} ms, by the clock first paint {paint:.0f} ms, rows {rows:.0f} ms"
        )
        print("; ".join(f"{change} {took:.0f} ms" for change, took in times.items()))
        assert page.evaluate(COUNT) == "50,000 of 50,000 rows"
        assert page.locator(".line").count() < 60
    assert opened < 1000
    assert max(times.values()) < 200, times
