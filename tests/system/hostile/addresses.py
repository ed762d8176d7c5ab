"""URLs that no task may reach: a line each, the name, the URL, and words of the refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from miner.media.inputs import Fetcher
from tests.system.hostile.cases import Bench, Case

PUBLIC_V4, PUBLIC_V6 = "93.184.216.34", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"

NAMES: Mapping[str, Sequence[str]] = {
    "localhost": ["127.0.0.1", "::1"],
    "router.test": ["192.168.1.1"],
    "private-first.test": ["10.0.0.7", PUBLIC_V4],
    "private-last.test": [PUBLIC_V4, PUBLIC_V6, "10.0.0.7"],
    "private-v6.test": [PUBLIC_V4, "fd12:3456::1"],
    "mapped.test": ["::ffff:192.168.1.1"],
    "nat64.test": ["64:ff9b::c0a8:101"],
    "metadata.test": ["169.254.169.254"],
    "scoped.test": ["fe80::1%eth0"],
    "garbage.test": ["not-an-address"],
    "empty.test": [],
    "nothing.test": ["0.0.0.0"],
}


def resolve(host: str, _port: int) -> Sequence[str]:
    if host not in NAMES:
        raise OSError("no such name")
    return NAMES[host]


SPELLING, PRIVATE, PORT, NO_NAME = "plain http or https URL", "not public", "neither 80 nor 443", "does not resolve"
NOT_AN_IP = "not a plain IP address"

ROWS = [
    # IPv4 as only an attacker writes it
    Case("decimal", "http://2130706433/", NOT_AN_IP),
    Case("decimal of a private network", "http://3232235777/", NOT_AN_IP),
    Case("decimal above 32 bits", "http://6425673729/", NOT_AN_IP),
    Case("octal", "http://0177.0.0.1/", NOT_AN_IP),
    Case("octal in one number", "http://017700000001/", NOT_AN_IP),
    Case("hex", "http://0x7f.0x0.0x0.0x1/", NOT_AN_IP),
    Case("hex in one number", "http://0x7f000001/", NOT_AN_IP),
    Case("hex in upper case", "http://0X7F000001/", NOT_AN_IP),
    Case("hex without digits", "http://127.0.0.0x/", NOT_AN_IP),
    Case("mixed bases", "http://0x7f.0.0.01/", NOT_AN_IP),
    Case("two numbers", "http://127.1/", NOT_AN_IP),
    Case("three numbers", "http://127.0.1/", NOT_AN_IP),
    Case("zero", "http://0/", NOT_AN_IP),
    Case("leading zeros", "http://127.000.000.001/", NOT_AN_IP),
    Case("five numbers", "http://127.0.0.0.1/", NOT_AN_IP),
    Case("number above 255", "http://127.0.0.257/", NOT_AN_IP),
    Case("letters before a number", "http://x.127/", NOT_AN_IP),
    Case("trailing dot after numbers", "http://127.0.0.1./", SPELLING),
    # names that look like others
    Case("trailing dot", "http://localhost./", SPELLING),
    Case("trailing dot of a public name", "http://example.com./", SPELLING),
    Case("full-width letters", "http://ｌｏｃａｌｈｏｓｔ/", SPELLING),
    Case("circled digits", "http://①②⑦.⓪.⓪.①/", SPELLING),
    Case("mathematical letters", "http://𝐥𝐨𝐜𝐚𝐥𝐡𝐨𝐬𝐭/", SPELLING),
    Case("long s", "http://localhoſt/", SPELLING),
    Case("Kelvin sign", "http://loca\u212ahost/", SPELLING),
    Case("Cyrillic o", "http://lоcalhost/", SPELLING),
    Case("ideographic full stop", "http://127。0。0。1/", SPELLING),
    Case("full-width full stop", "http://127．0．0．1/", SPELLING),
    Case("zero-width space", "http://local\u200bhost/", SPELLING),
    Case("zero-width joiner", "http://local\u200dhost/", SPELLING),
    Case("soft hyphen", "http://local\u00adhost/", SPELLING),
    Case("right-to-left override", "http://\u202etsohlacol/", SPELLING),
    Case("byte-order mark", "http://\ufefflocalhost/", SPELLING),
    Case("Arabic digits", "http://١٢٧.٠.٠.١/", SPELLING),
    Case("punycode of a look-alike", "http://xn--lcalhost-y9g/", NO_NAME),
    Case("percent-encoded", "http://%6c%6f%63%61%6c%68%6f%73%74/", SPELLING),
    Case("percent-encoded dot", "http://127%2e0%2e0%2e1/", SPELLING),
    Case("percent-encoded slash", "http://localhost%2f.example.com/", SPELLING),
    Case("lone surrogate in the host", "http://local\ud800host/", SPELLING),
    Case("lone surrogate in the path", "http://localhost/\udcff", SPELLING),
    Case("empty label", "http://a..b/", SPELLING),
    Case("label of 64 letters", f"http://{'a' * 64}.com/", SPELLING),
    Case("host of 1000 letters", f"http://{'a' * 50 * 20}/", SPELLING),
    Case("name of 300 letters", f"http://{'.'.join(['a' * 49] * 6)}/", NO_NAME),
    Case("URL of 9000 letters", f"http://example.com/{'a' * 9000}", SPELLING),
    # who is the host?
    Case("user name", "http://example.com@127.0.0.1/", SPELLING),
    Case("user name and password", "http://user:secret@example.com/", SPELLING),
    Case("empty user name", "http://@127.0.0.1/", SPELLING),
    Case("backslash before the at sign", "http://example.com\\@127.0.0.1/", SPELLING),
    Case("backslashes for slashes", "http:\\\\127.0.0.1\\", SPELLING),
    Case("hash before the at sign", "http://localhost#@example.com/", PRIVATE),
    Case("question mark before the at sign", "http://localhost?@example.com/", PRIVATE),
    Case("no host", "http:///etc/passwd", SPELLING),
    Case("no slashes", "http:127.0.0.1/", SPELLING),
    Case("one slash", "http:/127.0.0.1/", SPELLING),
    Case("no scheme", "//127.0.0.1/", SPELLING),
    Case("nothing", "", SPELLING),
    Case("leading space", " http://localhost/", SPELLING),
    Case("leading control character", "\x01http://localhost/", SPELLING),
    Case("tab in the host", "http://local\thost/", SPELLING),
    Case("line break in the host", "http://local\nhost/", SPELLING),
    Case("line break in the path", "http://localhost/ HTTP/1.1\r\nX: y\r\n\r\n", SPELLING),
    Case("NUL in the path", "http://localhost/\x00", SPELLING),
    Case("comma", "http://localhost,example.com/", SPELLING),
    Case("wildcard", "http://*/", SPELLING),
    # schemes
    Case("file", "file:///etc/passwd", SPELLING),
    Case("file on a host", "file://localhost/etc/passwd", SPELLING),
    Case("ftp", "ftp://example.com/a.png", SPELLING),
    Case("gopher", "gopher://127.0.0.1:6379/_INFO", SPELLING),
    Case("dict", "dict://127.0.0.1:11211/stats", SPELLING),
    Case("s3", "s3://bucket/key", SPELLING),
    Case("unix socket", "http+unix://%2Fvar%2Frun%2Fdocker.sock/info", SPELLING),
    Case("websocket", "ws://127.0.0.1:8188/ws", SPELLING),
    Case("javascript", "javascript:alert(1)", SPELLING),
    Case("jar", "jar:http://127.0.0.1/x!/y", SPELLING),
    Case("a path", "/etc/passwd", SPELLING),
    Case("a Windows share", "\\\\server\\share\\a.png", SPELLING),
    # ports
    Case("ssh", f"http://{PUBLIC_V4}:22/", PORT),
    Case("ComfyUI", "http://127.0.0.1:8188/prompt", PORT),
    Case("port 0", f"http://{PUBLIC_V4}:0/", PORT),
    Case("port above 65535", f"http://{PUBLIC_V4}:65616/", PORT),
    Case("port of nine digits", f"http://{PUBLIC_V4}:800000080/", SPELLING),
    Case("two ports", f"http://{PUBLIC_V4}:80:80/", SPELLING),
    Case("signed port", f"http://{PUBLIC_V4}:+80/", SPELLING),
    Case("full-width port", f"http://{PUBLIC_V4}:８０/", SPELLING),
    Case("port in words", f"http://{PUBLIC_V4}:http/", SPELLING),
    # networks of IPv4
    Case("this network", "http://0.0.0.0/", PRIVATE),
    Case("loopback", "http://127.0.0.1/", PRIVATE),
    Case("end of loopback", "http://127.255.255.254/", PRIVATE),
    Case("private 10", "http://10.1.2.3/", PRIVATE),
    Case("private 172.16", "http://172.16.0.1/", PRIVATE),
    Case("end of private 172", "http://172.31.255.255/", PRIVATE),
    Case("private 192.168", "https://192.168.1.1/", PRIVATE),
    Case("carrier-grade NAT", "http://100.64.0.1/", PRIVATE),
    Case("link-local", "http://169.254.1.1/", PRIVATE),
    Case("Amazon's metadata", "http://169.254.169.254/latest/meta-data/", PRIVATE),
    Case("Amazon's metadata over TLS", "https://169.254.169.254/latest/meta-data/", PRIVATE),
    Case("Amazon's container credentials", "http://169.254.170.2/v2/credentials", PRIVATE),
    Case("Alibaba's metadata", "http://100.100.100.200/latest/meta-data/", PRIVATE),
    Case("Oracle's metadata", "http://192.0.0.192/opc/v1/", PRIVATE),
    Case("Azure's metadata", "http://168.63.129.16/metadata", PRIVATE),
    Case("relay of 6to4", "http://192.88.99.1/", PRIVATE),
    Case("benchmarks", "http://198.19.0.1/", PRIVATE),
    Case("documentation", "http://203.0.113.9/", PRIVATE),
    Case("multicast", "http://239.255.255.250/", PRIVATE),
    Case("reserved", "http://240.0.0.1/", PRIVATE),
    Case("broadcast", "http://255.255.255.255/", PRIVATE),
    # networks of IPv6
    Case("v6 loopback", "http://[::1]/", PRIVATE),
    Case("v6 loopback in full", "http://[0000:0000:0000:0000:0000:0000:0000:0001]/", PRIVATE),
    Case("v6 unspecified", "http://[::]/", PRIVATE),
    Case("IPv4-mapped", "http://[::ffff:127.0.0.1]/", PRIVATE),
    Case("IPv4-mapped in hex", "http://[::ffff:7f00:1]/", PRIVATE),
    Case("IPv4-mapped of a public one", f"http://[::ffff:{PUBLIC_V4}]/", PRIVATE),
    Case("IPv4-compatible", "http://[::127.0.0.1]/", PRIVATE),
    Case("IPv4-translated", "http://[::ffff:0:127.0.0.1]/", PRIVATE),
    Case("NAT64", "http://[64:ff9b::7f00:1]/", PRIVATE),
    Case("local NAT64", "http://[64:ff9b:1::a00:1]/", PRIVATE),
    Case("6to4", "http://[2002:7f00:1::1]/", PRIVATE),
    Case("Teredo", "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/", PRIVATE),
    Case("ORCHID", "http://[2001:20::1]/", PRIVATE),
    Case("v6 link-local", "http://[fe80::1]/", PRIVATE),
    Case("v6 with a zone", "http://[fe80::1%25eth0]/", SPELLING),
    Case("site-local", "http://[fec0::1]/", PRIVATE),
    Case("unique local", "http://[fc00::1]/", PRIVATE),
    Case("Amazon's metadata over v6", "http://[fd00:ec2::254]/", PRIVATE),
    Case("v6 multicast", "http://[ff02::1]/", PRIVATE),
    Case("v6 documentation", "http://[2001:db8::1]/", PRIVATE),
    Case("new v6 documentation", "http://[3fff::1]/", PRIVATE),
    Case("discard prefix", "http://[100::1]/", PRIVATE),
    Case("segment routing", "http://[5f00::1]/", PRIVATE),
    Case("old 6bone", "http://[3ffe::1]/", PRIVATE),
    Case("v6 on another port", "http://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]:8080/", PORT),
    Case("IPv4 in brackets", "http://[127.0.0.1]/", PRIVATE),
    Case("bracket that does not close", "http://[::1/", SPELLING),
    Case("future address", "http://[v1.x]/", SPELLING),
    Case("two double colons", "http://[::1::]/", NOT_AN_IP),
    # names and what they resolve to
    Case("localhost", "http://localhost/", PRIVATE),
    Case("localhost in capitals", "http://LocalHost/", PRIVATE),
    Case("a name at home", "http://router.test/", PRIVATE),
    Case("a private address before a public one", "http://private-first.test/", PRIVATE),
    Case("a private address behind public ones", "http://private-last.test/", PRIVATE),
    Case("a private v6 behind a public v4", "https://private-v6.test/", PRIVATE),
    Case("a name of a mapped address", "http://mapped.test/", PRIVATE),
    Case("a name of a NAT64 address", "http://nat64.test/", PRIVATE),
    Case("a name of the metadata", "http://metadata.test/", PRIVATE),
    Case("a name of an address with a zone", "http://scoped.test/", PRIVATE),
    Case("a name of nothing", "http://nothing.test/", PRIVATE),
    Case("a name of no address", "http://garbage.test/", NOT_AN_IP),
    Case("a name without addresses", "http://empty.test/", NO_NAME),
    Case("a name that is not there", "http://unknown.test/", NO_NAME),
]


def run(_bench: Bench, case: Case) -> None:
    fetcher = Fetcher(allow=frozenset(), max_bytes=1 << 20, timeout=20.0, backoff=0.001, resolve=resolve)
    try:
        fetcher.fetch(case.given)
    finally:
        fetcher.close()
