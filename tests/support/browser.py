"""A page as headless Chromium shows it: its elements after the scripts have run, what they wrote to the console, and
the pixels of a screenshot."""

import html.parser
import itertools
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass, field

LIMIT_S = 120
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())


@dataclass
class Element:
    name: str
    attributes: dict
    children: list = field(default_factory=list)  # elements and strings

    def text(self):
        return "".join(child if isinstance(child, str) else child.text() for child in self.children)

    def all(self, name=None, **attributes):
        """Elements below, in order, of this name and with these attributes; data_key stands for data-key."""
        wanted = {key.replace("_", "-").rstrip("-"): value for key, value in attributes.items()}
        for child in self.children:
            if isinstance(child, str):
                continue
            if (name is None or child.name == name) and all(child.attributes.get(k) == v for k, v in wanted.items()):
                yield child
            yield from child.all(name, **attributes)

    def one(self, name=None, **attributes):
        found = list(self.all(name, **attributes))
        if len(found) != 1:
            raise AssertionError(f"{len(found)} elements {name or ''} {attributes} instead of one")
        return found[0]


class _Tree(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag):
        if any(element.name == tag for element in self._open[1:]):
            while self._open.pop().name != tag:
                pass

    def handle_data(self, data):
        self._open[-1].children.append(data)


class Pixels:
    """A PNG of 8 bits per channel without interlacing, which is what screenshots are."""

    def __init__(self, png):
        if png[:8] != b"\x89PNG\r\n\x1a\n":
            raise ValueError("not a PNG")
        at, packed = 8, []
        while at < len(png):
            size, kind = struct.unpack(">I4s", png[at : at + 8])
            body = png[at + 8 : at + 8 + size]
            at += 12 + size
            if kind == b"IHDR":
                self.width, self.height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
                if depth != 8 or colour not in (2, 6) or interlaced:
                    raise ValueError(f"a PNG of another kind: depth {depth}, colour {colour}, interlaced {interlaced}")
                self._bytes = 4 if colour == 6 else 3
            elif kind == b"IDAT":
                packed.append(body)
        self._rows = list(self._unfiltered(zlib.decompress(b"".join(packed))))

    def _unfiltered(self, raw):  # PNG, section 9
        size, step = self.width * self._bytes, self._bytes
        above = bytes(size)
        for start in range(0, len(raw), size + 1):
            kind, row = raw[start], raw[start + 1 : start + 1 + size]
            if kind == 1:
                row = bytearray(row)
                for channel in range(step):
                    row[channel::step] = bytes(itertools.accumulate(row[channel::step], lambda a, b: (a + b) & 255))
            elif kind == 2:
                row = bytes([(a + b) & 255 for a, b in zip(row, above)])
            elif kind == 3:
                row = bytearray(row)
                for i, up in enumerate(above):
                    row[i] = (row[i] + ((row[i - step] if i >= step else 0) + up) // 2) & 255
            elif kind == 4:
                row = self._paeth(row, above, step)
            above = bytes(row)
            yield above

    @staticmethod
    def _paeth(row, above, step):
        """The guess is the neighbour that is nearest to left + up - corner; of equally near ones the first of these."""
        out, corner = bytearray(step) + row, bytes(step) + above  # what is outside is 0
        for i, up in enumerate(above):
            a, c = out[i], corner[i]
            to_left, to_up, to_corner = abs(up - c), abs(a - c), abs(a + up - c - c)
            guess = a if to_left <= to_up and to_left <= to_corner else up if to_up <= to_corner else c
            out[i + step] = (out[i + step] + guess) & 255
        return out[step:]

    def at(self, x, y):
        return tuple(self._rows[y][x * self._bytes : x * self._bytes + 3])


@dataclass
class Shown:
    document: Element
    console: list
    pixels: Pixels


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise FileNotFoundError("there is no Chromium: run scripts/install-deps --for test")


def show(page, width, height, dark=False):
    """Loads the file, or what is at the http:// address, in a window of so many CSS pixels, each a pixel of the
    screenshot."""
    with tempfile.TemporaryDirectory() as directory:
        screenshot = os.path.join(directory, "page.png")
        command = [
            chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--no-first-run", "--hide-scrollbars", "--force-device-scale-factor=1",
            "--force-color-profile=srgb", "--enable-logging=stderr", f"--user-data-dir={directory}/profile",
            f"--window-size={width},{height}", "--virtual-time-budget=10000",
            f"--screenshot={screenshot}", "--dump-dom",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            page if page.startswith("http://") else "file://" + os.path.abspath(page),
        ]  # fmt: skip
        run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if run.returncode != 0 or not os.path.exists(screenshot):
            raise RuntimeError(f"Chromium made no screenshot, exit status {run.returncode}:\n{run.stderr[-4000:]}")
        with open(screenshot, "rb") as file:
            pixels = Pixels(file.read())
    tree = _Tree()
    tree.feed(run.stdout)
    return Shown(tree.root, re.findall(r"CONSOLE[:(].*", run.stderr), pixels)
