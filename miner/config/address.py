"""Addresses that an operator writes: the miner's id, URLs, `host:port`.

Each check returns the text in its settled form, or raises ValueError with a reason that reads on from the key's name
("must be …, not …"). Nothing here does I/O: whether an address answers is for `doctor` to say.
"""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from miner.net.addresses import parse_allow
from miner.task.errors import ConfigError

MINER_ID = re.compile(r"(0x[0-9a-fA-F]{40})(-[A-Za-z0-9_]+)?")
# Up to the last @, since a password may hold a slash. Quotes and backslashes are those of JSON around the URL.
# Without a scheme, which may have been forgotten, from the start up to it.
_CREDENTIALS = re.compile(r'(?<=://)(?:[^"\\]|\\.)*@|(?:(?<=^")|^)(?![^"]*://)[^"\s]*@')
_QUERY = re.compile(r'(://[^?#"]*[?#])(?:[^"\\]|\\.)+')


def mask_url(text: str) -> str:
    """A URL, or JSON that holds one, with what may be secret, its user part and its query, replaced by `***`."""
    return _QUERY.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def quoted(value: object) -> str:
    """A value as an error line shows it: one line, at most 80 characters, URLs masked."""
    text = mask_url(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else f"{text[:76]} …{text[-1]}"


def checksummed(address: str) -> str:
    """The EIP-55 spelling of an EVM address (`0x` and 40 hex digits, in any case)."""
    from Crypto.Hash import keccak  # 40 ms, and most ids are written in lower case

    digits = address[2:].lower()
    digest = keccak.new(digest_bits=256, data=digits.encode()).hexdigest()
    return "0x" + "".join(d.upper() if int(nibble, 16) >= 8 else d for d, nibble in zip(digits, digest, strict=False))


def miner_id(text: str) -> str:
    """Check a miner id: an EVM address, perhaps with `-suffix`; empty means not set.

    An address in one case carries no checksum, as EIP-55 has it; one in mixed case must have the right one.
    """
    if not text:
        return text
    match = MINER_ID.fullmatch(text)
    if match is None:
        form = "must be an EVM address (0x and 40 hex digits), with or without a -suffix of letters, digits and _"
        raise ValueError(f"{form}, not {quoted(text)}")
    address, digits = match[1], match[1][2:]
    if digits in (digits.lower(), digits.upper()) or address == checksummed(address):
        return text
    raise ValueError(
        f"has a wrong checksum in {quoted(address)}: a digit may be mistyped; "
        f"if every digit is right, EIP-55 spells it {checksummed(address)}"
    )


def http_url(text: str) -> str:
    """Check an absolute http or https URL; a slash at its end is dropped. Empty means not set."""
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
    """Check one URL or several, comma-separated. Empty means not set."""
    return ",".join(http_url(url.strip()) for url in text.split(","))


def host_port(text: str) -> str:
    """Check `host:port`, or `[address]:port` for IPv6. The host comes back in lower case."""
    try:
        parse_allow([text])
    except ConfigError:
        raise ValueError(f'must be "host:port", not {quoted(text)}') from None
    return text.lower()
