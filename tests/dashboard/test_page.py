"""What a person sees, in a real browser: agents move, a click opens one, curves grow while the run goes on."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from trainers.records.episode import read_recording, write_recording
from trainers.records.sealed import sealed_text

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
ROOT = Path(__file__).parents[2]
NOISE = ("error", "warning")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
QUIET += ["--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, address):
    """Opens the page, and at the end finds that it had no error and asked nobody else for anything."""
    complaints: list[str] = []
    contexts = []

    def open_page(place: str = address, width: int = 1366, height: int = 768, view: str = "", token: str = ""):
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        is_known = "status of 422"  # of what is damaged, which the page says
        page.on("console", lambda m: complaints.append(m.text) if m.type in NOISE and is_known not in m.text else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((place, "data:", "blob:")) else complaints.append(r.url))
        page.on("dialog", lambda d: complaints.append(f"dialog {d.message}"))
        page.goto(place + (f"/?token={token}" if token else "") + (f"/#{view}" if view else ""))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def until(page, expression: str, seconds: float = 20) -> None:
    """Wait until an expression holds in the page. (Playwright's own waiting is stopped by the page's policy.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came true: {expression}"
        page.wait_for_timeout(50)


def step_of(page) -> int:
    return int(page.get_attribute("#scene canvas.land", "data-step"))


def test_agents_move_and_stop_and_can_be_followed_step_by_step(opened):
    page = opened()
    page.wait_for_selector("#scene canvas.land[data-step]")
    until(page, "Number(document.querySelector('#scene canvas.land').dataset.step) > 3")
    page.click("#scene .play")
    stopped = step_of(page)
    still = page.evaluate("document.querySelector('#scene canvas.land').toDataURL()")
    page.wait_for_timeout(600)
    assert step_of(page) == stopped
    assert page.evaluate("document.querySelector('#scene canvas.land').toDataURL()") == still
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    assert step_of(page) == stopped + 1
    assert page.evaluate("document.querySelector('#scene canvas.land').toDataURL()") != still
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert step_of(page) == stopped - 1


def test_scrubbing_and_turning_back_to_an_earlier_generation(opened):
    page = opened()
    page.wait_for_selector("#scene canvas.land[data-step]")
    assert page.input_value("#scene select.which") == "rollout:2"
    page.keyboard.press("[")
    page.keyboard.press("[")
    until(page, "document.querySelector('#scene canvas').getAttribute('aria-label').startsWith('generation 1')")
    page.locator("#scene input.scrub").fill("7")
    assert step_of(page) == 7
    assert page.inner_text("#scene output").startswith("step 7 / ")


def test_a_click_on_an_agent_opens_it(opened, two_runs):
    from dashboard.reading import Run

    recording = Run(two_runs[0]).recording("rollout", 2)
    page = opened()
    page.wait_for_selector("#scene canvas.land[data-step]")
    page.locator("#scene input.scrub").fill("4")
    alone = next(
        n
        for n in range(6)
        if recording.is_alive[4, n] and (recording.position[4] == recording.position[4, n]).all(1).sum() == 1
    )
    row, column = recording.position[4, alone]
    box = page.locator("#scene canvas.land").bounding_box()
    side = box["width"] / 9
    page.mouse.click(box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side)
    assert page.inner_text("#agent h2").startswith(f"agent {alone}")
    assert f"individual {recording.ids[alone]}" in page.inner_text("#agent h2")
    assert page.inner_text("#read") == recording.texts[recording.text[4, alone]].strip()
    shares = [int(text.split()[0]) for text in page.locator("#agent .choice > span:last-child").all_inner_texts()]
    assert shares == [round(100 * int(p) / 255) for p in recording.probability[4, alone]]
    words = ["stay", "north", "south", "east", "west"]
    assert page.inner_text("#agent .choice.chosen > span:first-child") == words[recording.action[4, alone]]
    until(
        page,
        "(() => { const c = document.querySelector('#agent canvas:not(.energy)');"
        " return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size > 3; })()",
    )


def test_charts_have_a_point_for_each_generation_of_each_run(opened):
    page = opened(view="curves")
    page.wait_for_selector("#charts .js-plotly-plot")
    until(page, "document.querySelectorAll('#charts .js-plotly-plot').length === 10")
    traces = "document.querySelectorAll('#charts .js-plotly-plot')[1].data.map(t => [t.name, t.y.length])"
    assert page.evaluate(traces) == [["first: food", 3], ["&lt;img src=x onerror=alert(1)&gt;: food", 3]]
    named = page.locator("#charts figure").nth(1).locator(".annotation-text").all_text_contents()
    assert {"planner", "forager", "random", "frozen"} == set(named)
    page.select_option("#axis", "steps")
    until(page, "document.querySelectorAll('#charts .js-plotly-plot')[0].data.at(-1).x.at(-1) > 100")
    page.locator("#runs input").nth(1).uncheck()
    until(page, "document.querySelectorAll('#charts .js-plotly-plot')[1].data.length === 1")


def test_the_heatmap_has_a_cell_for_each_agent_and_layer_in_each_generation(opened):
    page = opened(view="adapters")
    size = "(id) => { const z = document.getElementById(id)?.data?.[0].z; return z && [z.length, z[0].length]; }"
    until(page, f"({size})('norms')")
    assert page.evaluate(size, "norms") == [6, 2]
    assert page.evaluate(size, "distances") == [6, 6]
    newest = page.evaluate("document.getElementById('norms').data[0].z.flat()")
    page.locator("#when").fill("0")
    until(page, "document.getElementById('when-value').textContent === '0'")
    until(page, f"document.getElementById('norms').data[0].z.flat().join() !== '{','.join(map(str, newest))}'")


def test_the_tree_has_everybody_and_leads_to_them(opened, two_runs):
    from dashboard.reading import Run

    lineage = Run(two_runs[0]).lineage()
    page = opened(view="family")
    until(page, "document.getElementById('tree').data?.at(-1).x.length > 0")
    assert page.evaluate("document.getElementById('tree').data.at(-1).x.length") == len(lineage["nodes"])
    champion = lineage["champion"][-1]
    assert page.inner_text("#family-note").endswith(str(champion))
    page.evaluate(f"document.getElementById('tree').emit('plotly_click', {{points: [{{customdata: {champion}}}]}})")
    page.wait_for_selector("#world:not([hidden])")
    until(page, f"document.querySelector('#agent h2')?.textContent.endsWith('individual {champion}')")


def wait_for_both(page) -> None:
    """Either side may be the first whose recording has arrived."""
    for side in ("left", "right"):
        page.wait_for_selector(f"#{side} canvas.land[data-step]")


def test_two_runs_are_compared_in_the_same_world(opened):
    page = opened(view="compare")
    wait_for_both(page)
    for side, run in (("left", "0"), ("right", "1")):
        assert page.input_value(f"#{side} .bar select >> nth=0") == run
        assert page.input_value(f"#{side} select.which") == "held_out:2"
    page.locator("#together input.scrub").fill("5")
    assert [page.get_attribute(f"#{side} canvas.land", "data-step") for side in ("left", "right")] == ["5", "5"]
    page.select_option("#right .bar select >> nth=1", "3")
    until(page, "document.querySelector('#together .js-plotly-plot')?.data[1].name.endsWith('agent 3')")


STEPS = "['left', 'right'].map((side) => document.querySelector(`#${side} canvas.land`).dataset.step)"


def test_a_run_is_compared_with_its_own_beginning_by_one_clock(opened, serving, two_runs):
    with serving(two_runs[0]) as place:
        page = opened(place, view="compare")
        wait_for_both(page)
        shown = [page.input_value(f"#{side} select.which") for side in ("left", "right")]
        assert shown == ["held_out:0", "held_out:2"]
        page.select_option("#together select", "32")
        seen = []
        while len(set(seen)) < 5 or seen[-1] >= seen[-2]:  # until it has begun anew
            left, right = page.evaluate(STEPS)
            assert left == right
            seen.append(int(left))
            page.wait_for_timeout(20)
        page.click("#together .play")
        left, right = page.evaluate(STEPS)
        page.keyboard.press("Escape")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(STEPS) == [str(min(int(left) + 1, 20))] * 2
        page.close()


def test_beside_a_run_of_another_world_it_says_why_half_is_empty(opened, serving, two_runs, tmp_path):
    other = tmp_path / "lake"
    other.mkdir()
    shutil.copy(two_runs[0] / "run.json", other)
    config = yaml.safe_load((two_runs[0] / "config.yaml").read_text())
    config["env"] = {"id": "FrozenLake-v1"}
    (other / "config.yaml").write_text(sealed_text(yaml.safe_dump(config)))
    with serving(two_runs[0], other) as place:
        page = opened(place, view="compare")
        page.wait_for_selector("#left canvas.land[data-step]")
        reason = "lake lives in FrozenLake-v1: of worlds other than forage there is no picture."
        assert page.inner_text("#right .empty") == reason
        assert not page.is_visible("#right canvas")
        assert not page.is_visible("#left .empty")
        until(page, "document.querySelector('#together .js-plotly-plot')?.data.length === 1")
        page.select_option("#right .bar select >> nth=0", "0")
        until(page, "document.querySelector('#together .js-plotly-plot')?.data.length === 2")
        assert not page.is_visible("#right .empty")
        page.select_option("#run", "1")
        page.keyboard.press("Escape")
        page.click("[data-view=world]")
        until(page, f"document.getElementById('empty').textContent === {json.dumps(reason)}")
        page.close()


def test_it_opens_on_who_has_eaten_most_until_somebody_chooses(opened, serving, two_runs, tmp_path):
    folder = shutil.copytree(two_runs[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")  # so that nothing vouches for the recordings
    for generation, best in ((1, 3), (2, 4)):
        file = folder / "recordings" / f"rollout_{generation:04d}.safetensors"
        recording = read_recording(file)
        eaten = recording.food_eaten.copy()
        eaten[-1, best] = 99
        write_recording(recording._replace(food_eaten=eaten), file)
    with serving(folder) as place:
        page = opened(place)
        until(page, "document.querySelector('#agent h2')?.textContent.startsWith('agent 4')")
        page.select_option("#scene select.which", "rollout:1")
        until(page, "document.querySelector('#agent h2').textContent.startsWith('agent 3')")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("a")
        assert page.inner_text("#agent h2").startswith("agent 4")
        page.select_option("#scene select.which", "rollout:0")
        until(page, "document.querySelector('#scene canvas').getAttribute('aria-label').startsWith('generation 0')")
        assert page.inner_text("#agent h2").startswith("agent 4")
        page.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_agents_curves_and_founders_stand_out_as_drawn(opened, contrast, theme):
    page = opened(view="curves")
    page.evaluate(f"document.documentElement.dataset.theme !== '{theme}' && document.getElementById('theme').click()")
    colours = """async (drawn) => {
      const { colourOf } = await import('/world.js');
      const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      const twoDigits = (part) => part.toString(16).padStart(2, '0');
      const hex = (colour) => {
        pen.fillStyle = colour;
        pen.fillRect(0, 0, 1, 1);
        return '#' + [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map(twoDigits).join('');
      };
      const card = getComputedStyle(document.querySelector('figure')).backgroundColor;
      const agents = Array.from({ length: 20 }, (_, n) => colourOf(n, 20));
      const marks = [...document.querySelectorAll(drawn)].map((mark) => {
        const { fill, stroke } = getComputedStyle(mark);
        return fill === 'none' ? stroke : fill;
      });
      return { card: hex(card), agents: agents.map(hex), marks: marks.map(hex) };
    }"""
    until(page, "document.querySelectorAll('#charts .js-plotly-plot').length === 10")
    lines = page.evaluate(colours, "#charts path.js-line:not([style*='stroke-width: 0'])")
    page.click("[data-view=family]")
    until(page, "document.querySelectorAll('#tree path.point').length > 5")
    dots = page.evaluate(colours, "#tree path.point")
    assert lines["marks"]
    for colour in (*lines["agents"], *lines["marks"], *dots["marks"]):
        assert contrast(colour, lines["card"]) >= 3, colour


def test_a_name_is_shown_as_text(opened):
    page = opened()
    page.wait_for_selector("#scene canvas.land[data-step]")
    assert page.locator("#run option").all_inner_texts() == ["first", "<img src=x onerror=alert(1)>"]
    page.select_option("#run", "1")
    until(page, "document.title.startsWith('<img')")
    assert page.locator("body img").count() == 1, "the icon alone"


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_it_fits_the_screen(opened, width, height):
    page = opened(width=width, height=height)
    page.wait_for_selector("#scene canvas.land[data-step]")
    for view in ("world", "curves", "adapters", "family", "compare"):
        page.click(f"[data-view={view}]")
        page.wait_for_selector(f"#{view}:not([hidden])")
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") in ("light", "dark")


def test_an_empty_run_says_what_is_to_come(opened, serving, two_runs, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for name in ("config.yaml", "run.json"):
        shutil.copy(two_runs[0] / name, empty)
    with serving(empty) as place:
        page = opened(place)
        for view in ("world", "curves", "adapters", "family", "compare"):
            page.keyboard.press(str(1 + ["world", "curves", "adapters", "family", "compare"].index(view)))
            page.wait_for_selector("#empty:not([hidden])")
            assert re.search("yet", page.inner_text("#empty"))
        page.close()


def test_what_is_damaged_is_said_and_the_rest_is_shown(opened, serving, two_runs, tmp_path):
    bad = shutil.copytree(two_runs[0], tmp_path / "<b>bad")
    (bad / "adapters.jsonl").write_text("7\n" + (bad / "adapters.jsonl").read_text())
    (bad / "recordings" / "rollout_0002.safetensors").write_text("hello")
    said = "[...document.querySelectorAll('#damage:not([hidden]) li')].map((line) => line.textContent)"
    with serving(two_runs[0], bad) as place:
        page = opened(place)
        page.wait_for_selector("#scene canvas.land[data-step]")
        assert page.evaluate(said) == []
        page.select_option("#run", "1")
        until(page, f"{said}.length === 1")
        (line,) = page.evaluate(said)
        assert line.startswith("<b>bad: recordings/rollout_0002.safetensors: damaged")
        page.wait_for_selector("#scene canvas.land:not([data-step])")  # no other picture in its place
        page.select_option("#scene select.which", "rollout:1")
        page.wait_for_selector("#scene canvas.land[data-step]")
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("3")
        until(page, f"{said}.length === 2")
        assert page.evaluate(said)[0].startswith("<b>bad: adapters.jsonl, line 1: damaged")
        assert page.inner_text("#empty") == "There is nothing to show yet, or it is damaged, as said above."
        page.keyboard.press("4")
        until(page, "document.getElementById('tree').data?.at(-1).x.length > 0")
        page.close()


def test_a_run_whose_config_is_damaged_is_shown_by_its_copy(opened, serving, two_runs, tmp_path):
    bad = shutil.copytree(two_runs[0], tmp_path / "bad")
    (bad / "config.yaml").write_text("seed: [")
    with serving(bad) as place:
        page = opened(place)
        page.wait_for_selector("#scene canvas.land[data-step]")
        assert page.inner_text("#facts").startswith("meadow")
        assert page.inner_text("#damage").startswith("config.yaml: damaged")
        page.close()


def test_a_run_without_its_config_is_shown_as_far_as_it_goes(opened, serving, two_runs, tmp_path):
    bad = shutil.copytree(two_runs[0], tmp_path / "bad")
    (bad / "config.yaml").write_text("seed: [")
    shutil.rmtree(bad / "checkpoints")
    with serving(bad) as place:
        page = opened(place)
        page.wait_for_selector("#scene canvas.land[data-step]")
        assert page.inner_text("#facts") == "what it is cannot be read"
        assert page.inner_text("#damage").startswith("config.yaml: damaged")
        page.close()


def test_the_token_goes_from_the_address_into_a_cookie_and_news_still_come(opened, serving, two_runs, tmp_path):
    folder = shutil.copytree(two_runs[0], tmp_path / "run")
    with serving(folder, "--token", "always") as whole:
        place, _, token = whole.partition("/?token=")
        page = opened(place, token=token)
        page.wait_for_selector("#scene canvas.land[data-step]")
        assert token not in page.url
        assert token not in page.evaluate("document.cookie")
        page.reload()
        page.wait_for_selector("#scene canvas.land[data-step]")
        shutil.rmtree(folder / "checkpoints")  # so that nothing vouches for the metrics
        file = folder / "metrics.jsonl"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
        until(page, "document.getElementById('facts').textContent.endsWith('generation 2 of 3')", seconds=10)
        page.close()


TEN_TIMES_AS_FAST = """for (const name of ["setTimeout", "setInterval"]) {
  const original = window[name];
  window[name] = (what, ms) => original(what, ms / 10);
}"""


def test_a_page_left_open_says_what_a_server_with_another_token_answers_and_asks_no_more(browser, serving, two_runs):
    with closing(browser.new_context()) as context:
        page, asked = context.new_page(), []
        page.add_init_script(TEN_TIMES_AS_FAST)
        with serving(two_runs[0], "--token", "always") as whole:
            place = whole.partition("/?token=")[0]
            page.goto(whole)
            page.wait_for_selector("#scene canvas.land[data-step]")
            assert not page.is_visible("#damage")
        until(page, "document.getElementById('status').textContent === 'no connection'")
        with serving(two_runs[0], "--token", "always", port=urlsplit(place).port):
            until(page, "document.getElementById('status').textContent === 'refused'")
            why = "this page needs its whole address, with ?token=, as printed where it was started"
            assert page.inner_text("#damage") == why
            page.on("request", lambda request: asked.append(request.url))
            page.on("websocket", lambda news: asked.append(news.url))
            page.wait_for_timeout(3000)  # in which it would have asked ten times
            assert asked == []


def test_a_page_left_open_goes_on_when_its_server_is_back(browser, serving, two_runs):
    with closing(browser.new_context()) as context:
        page = context.new_page()
        page.add_init_script(TEN_TIMES_AS_FAST)
        with serving(two_runs[0]) as place:
            page.goto(place)
            page.wait_for_selector("#scene canvas.land[data-step]")
        until(page, "document.getElementById('status').textContent === 'no connection'")
        with serving(two_runs[0], port=urlsplit(place).port), page.expect_websocket() as news:
            until(page, "document.getElementById('status').textContent === 'finished'")
        assert news.value.url == place.replace("http", "ws") + "/news"


def test_behind_a_proxy_that_speaks_https_it_keeps_to_its_path(browser, serving, two_runs):
    """The proxy is played by the browser, which asks the server itself for what the page wants at other addresses."""
    outside = "https://runs.localhost/terrarium/"
    with serving(two_runs[0], "--name", "runs.localhost") as place, closing(browser.new_context()) as context:
        page = context.new_page()

        def forward(route) -> None:
            wanted = route.request.url
            if not wanted.startswith(outside):
                return route.abort()
            route.fulfill(response=route.fetch(url=f"{place}/{wanted.removeprefix(outside)}"))

        page.route("**/*", forward)
        with page.expect_websocket() as news:
            page.goto(outside + "#curves")
        assert news.value.url == "wss://runs.localhost/terrarium/news"
        until(page, "document.querySelectorAll('#charts .js-plotly-plot').length === 10")
        page.keyboard.press("1")
        page.wait_for_selector("#scene canvas.land[data-step]")
        page.unroute_all(behavior="ignoreErrors")  # of what the page wants while it is closed


def wait_until_gone(place: str) -> None:
    """The page of a run that was killed ends too."""
    end = time.monotonic() + 20
    port = int(place.rpartition(":")[2])
    while time.monotonic() < end:
        with socket.socket() as caller:
            if caller.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.2)
    raise AssertionError("the page goes on without its run")


def test_it_grows_while_a_run_goes_on(opened, page_arguments, tmp_path):
    run_dir = tmp_path / "live"
    command = [sys.executable, "-m", "trainers.train", *page_arguments, "--run_dir", str(run_dir), "--dashboard"]
    with subprocess.Popen([*command, "--generations", "60"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as run:
        assert run.stdout
        try:
            place = next(line for line in run.stdout if line.startswith("watch at")).split()[2]
            page = opened(place, view="curves")
            points = "document.querySelectorAll('#charts .js-plotly-plot')[1]?.data[0]?.y.length"
            until(page, f"{points} >= 1", seconds=60)
            assert page.inner_text("#status") == "running"
            before = page.evaluate(points)
            until(page, f"{points} > {before + 1}", seconds=60)
            page.keyboard.press("1")
            page.wait_for_selector("#scene canvas.land[data-step]")
            newest = page.input_value("#scene select.which")
            until(page, f"document.querySelector('#scene select.which').value !== '{newest}'", seconds=60)
            page.close()  # before there is nobody to ask any more
        finally:
            run.kill()
    wait_until_gone(place)
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-2])["generation"] == len(lines) - 2
