"""Checks of addresses in the configuration: the miner's id, URLs, `host:port`.

Each returns the normalized text, or raises ValueError with a reason to follow the key's name ("must be …, not …").
No I/O: `doctor` checks whether an address answers.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from miner.net.addresses import parse_allow
from miner.task.errors import ConfigError

MINER_ID = re.compile(r"(0x[0-9a-fA-F]{40})(-[A-Za-z0-9_]+)?")
# Up to the last @, since a password may contain a slash. Quotes and backslashes belong to JSON around the URL.
# Without a scheme, which may be forgotten, from the start.
_CREDENTIALS = re.compile(r'(?<=://)(?:[^"\\]|\\.)*@|(?:(?<=^")|^)(?![^"]*://)[^"\s]*@')
_HOST_PATTERN = re.compile(r"(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_QUERY = re.compile(r'(://[^?#"]*[?#])(?:[^"\\]|\\.)+')


def mask_url(text: str) -> str:
    """Replace the user part and the query of a URL, or of URLs in JSON, with `***`: they may be secret."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def quoted(value: object) -> str:
    """A value for an error: one line, at most 80 characters, URLs masked."""
    text = mask_url(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else f"{text[:76]} …{text[-1]}"


def checksummed(address: str) -> str:
    """The EIP-55 form of an EVM address (`0x` and 40 hex digits, in any case)."""
    from Crypto.Hash import keccak  # 40 ms, and most ids are written in lower case

    digits = address[2:].lower()
    digest = keccak.new(digest_bits=256, data=digits.encode()).hexdigest()
    return "0x" + "".join(d.upper() if int(nibble, 16) >= 8 else d for d, nibble in zip(digits, digest, strict=False))


def miner_id(text: str) -> str:
    """Check a miner id: an EVM address, optionally with `-suffix`; empty means not set.

    Per EIP-55, only a mixed-case address has a checksum, and it must match.
    """
    if not text:
        return text
    match = MINER_ID.fullmatch(text)
    if match is None:
        form = "must be an EVM address (0x and 40 hex digits), optionally with a -suffix of letters, digits and _"
        raise ValueError(f"{form}, not {quoted(text)}")
    address, digits = match[1], match[1][2:]
    if digits in (digits.lower(), digits.upper()) or address == checksummed(address):
        return text
    raise ValueError(
        f"has a wrong checksum in {quoted(address)}: a digit may be mistyped; "
        f"if every digit is right, EIP-55 spells it {checksummed(address)}"
    )


def http_url(text: str) -> str:
    """Check an absolute http or https URL; drop trailing slashes. Empty means not set."""
    if not text:
        return text
    wrong = ValueError(f"must be a URL such as https://host:port, not {quoted(text)}")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or parts.fragment:
        raise wrong
    if not text.isprintable() or " " in text:
        raise wrong
    return text.rstrip("/")


def http_urls(text: str) -> str:
    """Check comma-separated URLs. Empty means not set."""
    return ",".join(http_url(url.strip()) for url in text.split(","))


def host_pattern(text: str) -> str:
    """Check a host's name, `*.` and a domain, or `*`; return it in lower case."""
    if text != "*" and not _HOST_PATTERN.fullmatch(text):
        raise ValueError(f'must be names of hosts, such as "example.com" or "*.example.com", not {quoted(text)}')
    return text.lower()


def host_port(text: str) -> str:
    """Check `host:port`, or `[address]:port` for IPv6; return it in lower case."""
    try:
        parse_allow([text])
    except ConfigError:
        raise ValueError(f'must be "host:port", not {quoted(text)}') from None
    return text.lower()
