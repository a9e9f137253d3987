"""Bugs on purpose: what a `.mutant` file says, and copies of the workspace to be broken by it.

A mutant is a few header lines (`key: value`), then pairs of `--- old` and `--- new` (and `--- file F` where another file follows): text
that must stand exactly once in the file (or it can't be applied: the core has changed, and the mutant must follow) and what takes its
place. Only copies are ever changed; nothing of a mutant is compiled into anything else.
"""

import os
import pathlib
import queue
import shutil
import subprocess
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent


class Mutant:
    def __init__(self, path):
        self.path = path
        self.header = {}
        self.edits = []
        part, text = None, []
        for line in path.read_text().splitlines():
            if line in ("--- old", "--- new"):
                self._close(part, text)
                part, text = line[4:], []
            elif line.startswith("--- file "):
                self._close(part, text)
                part, text = None, []
                self.header["file"] = line[9:]
            elif part is None:
                if line.strip() and not line.startswith("#"):
                    key, value = line.split(":", 1)
                    self.header[key.strip()] = value.strip()
            else:
                text.append(line)
        self._close(part, text)
        self.name = self.header["name"]

    def words(self, key):
        """A header that lists something."""
        return self.header.get(key, "").replace(",", " ").split()

    def _close(self, part, text):
        if part == "old":
            self.edits.append([self.header["file"], "\n".join(text), ""])
        elif part == "new":
            self.edits[-1][2] = "\n".join(text)

    def texts(self):
        """The changed files' new texts, or a `LookupError`."""
        changed = {}
        for file, old, new in self.edits:
            source = changed.get(file) or (ROOT / file).read_text()
            found = source.count(old)
            if found != 1:
                raise LookupError(f"{self.path.name}: the old text stands {found} times in {file}, not once:\n{old}")
            changed[file] = source.replace(old, new)
        return changed


def read_mutants(folder, only, part=None):
    """All of them, and those whose file name begins as one of `only` says; of these one `part`, such as `0/3`: every third."""
    mutants = [Mutant(path) for path in sorted(folder.glob("*.mutant"))]
    chosen = [m for m in mutants if not only or any(m.path.name.startswith(prefix) for prefix in only)]
    if part:
        number, parts = map(int, part.split("/"))
        chosen = chosen[number % parts :: parts]
    if not chosen:
        raise SystemExit("no mutant of that name")
    return mutants, chosen


def cannot_be_applied(mutants):
    """What each says that has lost its text."""
    for mutant in mutants:
        try:
            mutant.texts()
        except LookupError as error:
            yield str(error)


class Workspace:
    """A copy of some packages, to be broken and built again and again; of them, `tested` keeps its tests."""

    def __init__(self, folder, packages, profile, tested=None):
        self.source, self.target = folder / "source", folder / "target"
        shutil.rmtree(self.source, ignore_errors=True)
        for package in packages:
            # Without their times: cargo would take the last mutant's binary for this source's.
            skip = shutil.ignore_patterns("target", "examples", "*.mutant", *([] if package == tested else ["tests"]))
            shutil.copytree(ROOT / package, self.source / package, ignore=skip, copy_function=shutil.copyfile)
            # What only tests need isn't needed here.
            manifest = self.source / package / "Cargo.toml"
            text = manifest.read_text()
            lines = (text if package == tested else text.split("[dev-dependencies]")[0]).splitlines()
            # Nor is what is optional and not copied.
            others = [path.name for path in ROOT.iterdir() if (path / "Cargo.toml").exists() and path.name not in packages]
            lines = [line for line in lines if not any(f"quorate-{other}" in line for other in others)]
            manifest.write_text("\n".join(lines) + "\n")
        text = (ROOT / "Cargo.toml").read_text()
        start, end = text.index("members = ["), text.index("[workspace.package]")
        members = ", ".join(f'"{package}"' for package in packages)
        text = text[:start] + f"members = [{members}]\n\n" + text[end : text.index("[profile.dev]")] + profile
        (self.source / "Cargo.toml").write_text(text)
        shutil.copy(ROOT / "Cargo.lock", self.source / "Cargo.lock")
        self.dirty = []

    def become(self, mutant):
        """Breaks it like this, and in no other way; `None` mends it."""
        for file in self.dirty:
            (self.source / file).write_text((ROOT / file).read_text())
        changed = mutant.texts() if mutant else {}
        for file, text in changed.items():
            (self.source / file).write_text(text)
        self.dirty = list(changed)

    def cargo(self, *arguments):
        """Builds and gives what cargo prints, or raises a `SyntaxError` with what the compiler says."""
        # Incremental, for each mutant changes a line or two.
        env = dict(os.environ, CARGO_TARGET_DIR=str(self.target), CARGO_INCREMENTAL="1", RUSTFLAGS="-Awarnings")
        done = subprocess.run(["cargo", *arguments], cwd=self.source, env=env, capture_output=True, text=True)
        if done.returncode != 0:
            raise SyntaxError(done.stderr)
        return done.stdout


def scratch(name):
    """A folder that may be thrown away."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / name


def side_by_side(first, jobs, another, mutants, labour):
    """`labour(workspace, mutant)` for all mutants, in `jobs` workspaces: the `first`, which is built already, and copies."""
    workspaces = [first]
    for job in range(1, min(jobs, len(mutants))):
        workspace = another(job)
        if not workspace.target.exists():
            # What was built of the dependencies serves the others, too.
            shutil.copytree(first.target, workspace.target, symlinks=True)
        workspaces.append(workspace)
    work = queue.SimpleQueue()
    for mutant in mutants:
        work.put(mutant)

    def go_on(workspace):
        while True:
            try:
                mutant = work.get_nowait()
            except queue.Empty:
                return
            labour(workspace, mutant)

    threads = [threading.Thread(target=go_on, args=(workspace,)) for workspace in workspaces]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
