"""JPEG (T.81): tables, frame and scans up to the end mark, with APP0 and APP14. What stands behind the end is cut.

The ICC profile of APP2 and EXIF's orientation are facts, not segments.
"""

from __future__ import annotations

import re

from miner.media.containers.exif import orientation
from miner.media.containers.pixels import MAX_PROFILE, Pixels, Unfit, broken, too_many_parts

_MOST_SEGMENTS = 256  # before the first scan, of 64 KB each at most; bytes in gaps count as a parser reads them
_MOST_SCANS = 100  # a usual progressive JPEG has about ten; each is a pass over the whole picture
_MOST_BETWEEN = 1000  # segments after the first scan
_MARK = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in a scan
_FILL = re.compile(rb"\xff\xff+")
_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_APPLICATIONS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}  # they say what the components mean
_SOS, _EOI = 0xDA, 0xD9
_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_ALL = (1 << 64) - 1


def rebuild(data: bytes) -> Pixels:
    walk = _Walk(data)
    walk.run()
    profile = b"".join(walk.profile[number] for number in sorted(walk.profile))
    return Pixels(
        kind="JPEG",
        data=b"".join((b"\xff\xd8", *walk.kept, b"\xff\xd9")),
        orientation=walk.orientation,
        icc=profile if len(profile) <= MAX_PROFILE else b"",
        cut=not walk.ended and not walk.complete(),
    )


class _Walk:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.kept: list[memoryview | bytes] = []
        self.profile: dict[int, memoryview] = {}
        self.orientation = 1
        self.ended = False
        self.at = 2
        self._view = memoryview(data)
        self._coefficients: dict[int, int] = {}  # by component, a bit for each of 64
        self._scans = 0

    def run(self) -> None:
        self._to_first_scan()
        between = 0
        while True:
            self._take(self.at, _SOS)
            if self._scans > _MOST_SCANS:
                raise Unfit("the JPEG file has too many scans")
            found = _MARK.search(self.data, self.at)
            if found is None:
                self._keep_scan(self.at, len(self.data))
                return
            self._keep_scan(self.at, found.start())
            self.at = found.start()
            while (marker := self._marker()) != _SOS:
                if marker == _EOI or marker is None:
                    self.ended = marker == _EOI
                    return
                between += 1
                if between > _MOST_BETWEEN:
                    raise too_many_parts("JPEG")
                self._take(self.at, marker)

    def complete(self) -> bool:
        """Without an end mark: whether all scans are there. False: a single one is, whose rows can be counted.

        Raises Unfit if scans are missing.
        """
        if len(self._coefficients) > 1 or self._scans > 1:
            if min(self._coefficients.values()) != _ALL:
                raise Unfit("the picture is cut off: its last scans are missing")
            return self._scans > 1
        return False

    def _note_scan(self, body: memoryview) -> None:
        """Which coefficients of which components it brings to their last bit (T.81, B.2.3)."""
        count = body[0]
        first, last, bits = body[1 + 2 * count : 4 + 2 * count]
        self._scans += 1
        if not bits & 0x0F:
            for component in body[1 : 1 + 2 * count : 2]:
                if component in self._coefficients:
                    self._coefficients[component] |= (1 << last + 1) - (1 << first)

    def _marker(self) -> int | None:
        """At the present place, fill bytes skipped; None at the end of the file."""
        if fill := _FILL.match(self.data, self.at):
            self.at = fill.end() - 1
        if self.at + 1 >= len(self.data):
            return None
        if self.data[self.at] != 0xFF:
            raise broken("JPEG")
        return self.data[self.at + 1]

    def _to_first_scan(self) -> None:
        for _ in range(_MOST_SEGMENTS + 1):
            marker = self.data[self.at + 1]
            if self.data[self.at] != 0xFF or marker in (0x00, 0xFF):
                self.at += 1
            elif marker == _SOS:
                return
            elif marker == _EOI:
                raise broken("JPEG")
            else:
                self._take(self.at, marker)
        raise too_many_parts("JPEG")

    def _take(self, at: int, marker: int) -> None:
        """Keep a segment, or what it tells; go behind it."""
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # these stand alone
            self.at = at + 2
            return
        length = int.from_bytes(self.data[at + 2 : at + 4])
        self.at = at + 2 + length
        if length < 2 or self.at > len(self.data):
            raise broken("JPEG")
        body = self._view[at + 4 : self.at]
        if marker == 0xE1 and body[:6] == _EXIF:
            if self.orientation == 1:
                self.orientation = orientation(bytes(body))
        elif marker == 0xE2 and body[:12] == _ICC and len(body) > 14:
            self.profile.setdefault(body[12], body[14:])
        elif bytes(body[:5]) == _APPLICATIONS.get(marker) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            self._keep(at, self.at)
            if marker in _FRAMES:
                self._coefficients = dict.fromkeys(body[6::3], 0)
            elif marker == _SOS:
                self._note_scan(body)

    def _keep_scan(self, start: int, end: int) -> None:
        """Without fill bytes, which a decoder reads again and again."""
        if self.data.find(b"\xff\xff", start, end + 1) < 0:
            self._keep(start, end)
        else:
            self.kept.append(_FILL.sub(b"\xff", self._view[start:end]).removesuffix(b"\xff"))

    def _keep(self, start: int, end: int) -> None:
        self.kept.append(self._view[start:end])
