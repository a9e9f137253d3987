"""Drives the simulator's pages in a headless Chromium, over WebDriver, with nothing but the standard library."""

import base64
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

KEYS = {"right": "\ue014", "left": "\ue012", "shift": "\ue008", "end": "\ue010", "home": "\ue011", "enter": "\ue007", "escape": "\ue00c"}


class Browser:
    """One session of a chromedriver of its own."""

    def __init__(self, profile):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.base = f"http://127.0.0.1:{port}"
        # No proxy: it is this machine.
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1600,1000",
            f"--user-data-dir={profile}",
        ]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = ""
        for _ in range(100):
            try:
                made = self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise SystemExit("chromedriver doesn't answer")
        self.session = "/" + made["sessionId"]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}/session{self.session}{path}", data, {"Content-Type": "application/json"}, method=method)
        with self.opener.open(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def run(self, script):
        return self.ask("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def state(self):
        return self.run("picture.state()")

    def press(self, *keys):
        """Presses keys one after the other; `shift+right` holds the first while the second is pressed."""
        actions = []
        for chord in keys:
            names = chord.split("+") if len(chord) > 1 else [chord]
            values = [KEYS.get(name, name) for name in names]
            actions += [{"type": "keyDown", "value": value} for value in values]
            actions += [{"type": "keyUp", "value": value} for value in reversed(values)]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def point(self, *actions):
        self.ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": list(actions)}]})

    def wheel(self, x, y, by):
        scroll = {"type": "scroll", "x": x, "y": y, "deltaX": 0, "deltaY": by}
        self.ask("POST", "/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [scroll]}]})

    def click(self, selector):
        found = self.ask("POST", "/element", {"using": "css selector", "value": selector})
        self.ask("POST", f"/element/{next(iter(found.values()))}/click", {})

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def shot(self, path):
        time.sleep(0.2)
        path.write_bytes(base64.b64decode(self.ask("GET", "/screenshot")))

    def theme(self, name):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}})

    def open(self, page):
        self.ask("POST", "/url", {"url": page.resolve().as_uri()})

    def complaints(self):
        """What the page's console says: a script that fails, or something that it tried to load."""
        lines = [line["message"] for line in self.ask("POST", "/se/log", {"type": "browser"})]
        # Advice about how drawing is timed here.
        return [line for line in lines if "willReadFrequently" not in line]

    def close(self):
        try:
            self.ask("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()


def expect(condition, what):
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    print(f"  ok: {what}")


def stepping(page):
    page.press("home")
    expect(page.state()["cursor"] == 0, "Home goes to the first event")
    page.press("right", "right", "right")
    three = page.state()["cursor"]
    expect(three >= 3, "three steps on")
    page.press("left")
    expect(page.state()["cursor"] < three, "and one back")
    page.click("#next")
    expect(page.state()["cursor"] == three, "the button steps, too")
    page.run("document.activeElement.blur()")
    node = page.run("events[cursor].n")
    page.press("shift+right", "shift+right")
    expect(page.run("events[cursor].n") == node and page.state()["cursor"] > three, "with Shift, it is the same node's")
    expect(f"n{node}" in page.text("#event h2"), "and the panel says whose event it is")
    page.press("end")
    state = page.state()
    expect(state["cursor"] == state["count"] - 1, "End goes to the last one")
    expect(state["t0"] <= page.run("cursorTime()") <= state["t1"], "which is in sight")


def zooming(page):
    page.press("0")
    whole = page.state()
    page.press("+", "+")
    near = page.state()
    expect(near["t1"] - near["t0"] < (whole["t1"] - whole["t0"]) / 3, "+ zooms in")
    page.press("-")
    expect(page.state()["t1"] - page.state()["t0"] > near["t1"] - near["t0"], "- zooms out")
    page.press("0")
    box = page.run("(({left, top, width, height}) => ({left, top, width, height}))(document.getElementById('diagram').getBoundingClientRect())")
    x, y = int(box["left"] + box["width"] * 0.5), int(box["top"] + box["height"] * 0.5)
    under = page.run(f"tOf({x - box['left']})")
    for _ in range(6):
        page.wheel(x, y, -400)
    wheeled = page.state()
    expect(wheeled["t1"] - wheeled["t0"] < (whole["t1"] - whole["t0"]) / 5, "the wheel zooms in")
    now = page.run(f"tOf({x - box['left']})")
    expect(abs(now - under) < (wheeled["t1"] - wheeled["t0"]) * 0.02, "what is under the pointer stays there")
    page.point(
        {"type": "pointerMove", "x": x, "y": y}, {"type": "pointerDown", "button": 0},
        {"type": "pointerMove", "x": x - 200, "y": y, "duration": 50}, {"type": "pointerUp", "button": 0},
    )
    expect(page.state()["t0"] > wheeled["t0"], "dragging moves the view")
    page.click("#fit")
    page.run("document.activeElement.blur()")
    expect(abs(page.state()["t0"] - whole["t0"]) < 1, "fit shows everything again")


def searching(page):
    page.press("home", "/")
    page.press(*"VoteReply")
    found = page.state()["matches"]
    expect(found > 0, f"'VoteReply' is found {found} times")
    page.press("enter")
    expect(page.text("#matches") == f"1 of {found}", "Enter goes to the first match")
    first = page.state()["cursor"]
    expect("VoteReply" in page.run("textOf(cursor)"), "which speaks of a vote")
    page.press("escape", "n")
    expect(page.state()["cursor"] > first, "n goes to the next")
    page.press("N")
    expect(page.state()["cursor"] == first, "N goes back")
    term = page.run("events.find(event => event.n && event.x && event.x.t).x.t")
    page.run(f"(document.getElementById('search').value = 'T{term}', find('T{term}'))")
    exact = page.state()["matches"]
    expect(0 < exact < page.state()["count"], f"'T{term}' is found {exact} times")
    wrong = page.run(f"matches.filter(i => !new RegExp('T{term}(?![0-9])').test(textOf(i))).length")
    expect(wrong == 0, f"and each of them speaks of T{term} alone")
    token = page.run("events.filter(event => event.q)[20].q[0]")
    page.run(f"find('t{token}')")
    expect(page.state()["matches"] >= 1, f"token t{token} is found, though ranges hold it")
    page.run("find('nothing says this')")
    expect(page.text("#matches") == "none", "what isn't there isn't found")
    page.run("(document.getElementById('search').value = '', find(''))")


def playing(page):
    page.run("(document.getElementById('speed').value = 'e50', 0)")
    page.press("home", " ")
    time.sleep(1)
    expect(page.state()["playing"], "Space plays")
    at = page.state()["cursor"]
    expect(at > 5, f"a second later the cursor is at event {at}")
    page.press(" ")
    still = page.state()["cursor"]
    time.sleep(0.3)
    expect(page.state()["cursor"] == still and not page.state()["playing"], "Space pauses")


def filtering(page):
    before = page.state()["shown"]["heartbeat"]
    page.press("h")
    expect(page.state()["shown"]["heartbeat"] != before, "h shows or hides heartbeats")
    page.press("h")
    expect(page.run("document.querySelectorAll('#filters input').length") == 7, "seven filters")


def states(page):
    """The panel, the states and the logs agree with what the events say."""
    wrong = page.run("""(() => {
        const now = [null, ...data.before], found = [];
        events.forEach((event, i) => {
            if (!event.n) return;
            now[event.n] = {...now[event.n], ...event.x};
            if (i % 97 === 0) for (let node = 1; node <= nodes; node++)
                if (JSON.stringify(stateAt(node, i)) !== JSON.stringify(now[node])) found.push([node, i]);
        });
        return found; })()""")
    expect(wrong == [], "the state at any event is what all changes up to it make")
    broken = page.run("""events.filter((event, i) => { const s = after[i]; return event.n && s.u !== "-" &&
        (s.n > s.b[0] && (!s.g.length || s.g[0][0] !== s.b[0] + 1) || s.g.some((run, at) => at && (run[0] <= s.g[at - 1][0] || run[1] < s.g[at - 1][1]))); }).length""")
    expect(broken == 0, "every log is without gaps, and its terms don't decrease")
    lost = page.run("arrows.filter(arrow => arrow.end >= 0 && arrow.t1 < arrow.t0).length")
    expect(lost == 0, "no message arrives before it was sent")


def speed(page):
    page.press("0")
    whole = page.run("picture.median(40)")
    page.run("GROUPS.forEach(group => { shown[group.name] = true; })")
    everything = page.run("picture.median(40)")
    page.press("end")
    page.run("closeUp()")
    close = page.run("picture.median(40)")
    print(f"  a redraw takes {whole:.1f} ms (median; all in sight), {everything:.1f} ms (heartbeats and all), {close:.1f} ms (close up)")


def hostile(page, out):
    """Words that would like to be more than words, and a run in which nothing has happened."""
    words = "<img src=x onerror=alert(1)><b id=injected>node 1</b> </script> {{data}} \u2028"
    text = (out / "violation.html").read_text()
    before, rest = text.split('id="data">', 1)
    data, after = rest.split("</script>", 1)
    data = json.loads(data)
    data["violation"]["what"] = words
    for event in data["events"]:
        event["l"] = words
    for name, events in [("hostile", data["events"]), ("empty", [])]:
        changed = dict(data, events=events, letters=data["letters"] if events else [])
        shown = out / f"{name}.html"
        shown.write_text(before + 'id="data">' + json.dumps(changed).replace("<", "\\u003c") + "</script>" + after)
        page.open(shown)
        expect("<img src=x onerror=alert(1)>" in page.text("#v-what"), f"{name}: hostile words are shown as they are")
        expect(page.run("document.querySelectorAll('img, #injected').length") == 0, f"{name}: and make no elements")
        page.press("right", "end", "0", "+", "v")


def main():
    out = pathlib.Path(sys.argv[1])
    profile = tempfile.mkdtemp(prefix="quorate-picture-")
    page = Browser(profile)
    try:
        for name in ["short", "clean"]:
            page.open(out / f"{name}.html")
            state = page.state()
            print(f"{name}: {state['count']} events")
            expect(state["count"] >= 10_000 and page.text("#verdict") == "no violation", "a clean run of 10,000 events")
            for part in [stepping, zooming, searching, playing, filtering, states]:
                part(page)
            page.open(out / f"{name}.html")
            page.shot(out / f"{name}-fit.png")
            page.run("goTo(Math.floor(count / 2))")
            page.run("closeUp()")
            page.shot(out / f"{name}-close.png")
            speed(page)
        page.open(out / "violation.html")
        print("violation:")
        state = page.state()
        expect(state["cursor"] == state["violationAt"], "the cursor starts at the violation")
        expect(page.text("#v-id") == "R2" and "lease" in page.text("#v-rule"), "which is named and explained")
        expect("was acknowledged before it began" in page.text("#v-what"), "in its own words, too")
        expect(page.run("concerned.nodes.size") == 1 and page.run("concerned.indexes.size") == 2, "the node and the indexes are known")
        page.press("home", "v")
        expect(page.state()["cursor"] == state["violationAt"], "v goes back to it")
        states(page)
        for theme in ["light", "dark"]:
            page.theme(theme)
            page.open(out / "violation.html")
            page.shot(out / f"violation-{theme}.png")
        page.press("0")
        page.shot(out / "violation-fit-dark.png")
        hostile(page, out)
        complaints = page.complaints()
        expect(complaints == [], f"the console is silent {complaints}")
    finally:
        page.close()
        shutil.rmtree(profile, ignore_errors=True)
    print(f"screenshots: {out}")


if __name__ == "__main__":
    main()
