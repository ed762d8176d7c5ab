"""The one thing that a generated result says of itself: it was made by a trained model.

IPTC's `DigitalSourceType` in XMP, which search engines and social networks read: https://iptc.org/standards/
photo-metadata/iptc-standard. Where each format keeps XMP: XMP specification, part 3. Pure.
"""

from __future__ import annotations

import struct
import zlib

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
<Iptc4xmpExt:DigitalSourceType>{TRAINED}</Iptc4xmpExt:DigitalSourceType>
</rdf:Description></rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>""".encode()


def _png() -> bytes:
    body = b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + _XMP  # not compressed, in no language
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


def _jpeg() -> bytes:
    body = b"http://ns.adobe.com/xap/1.0/\0" + _XMP
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _webp() -> bytes:
    return struct.pack("<4sI", b"XMP ", len(_XMP)) + _XMP + bytes(len(_XMP) % 2)


def _mp4() -> bytes:
    body = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + _XMP
    return struct.pack(">I4s", len(body) + 8, b"uuid") + body


MARKS = {"png": _png(), "jpg": _jpeg(), "webp": _webp(), "mp4": _mp4()}
"""A chunk, segment or box per format. WebM has no place for XMP that readers look at."""
