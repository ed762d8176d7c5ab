"""Addresses: EIP-55, URLs and host:port."""

from __future__ import annotations

import pytest

from miner.config.address import checksummed, host_port, http_url, mask_url, miner_id, quoted

# The test cases of EIP-55 itself.
EIP_55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize("address", EIP_55)
def test_eip_55_spells_its_own_vectors(address: str) -> None:
    assert checksummed(address.lower()) == address
    assert checksummed("0x" + address[2:].upper()) == address


@pytest.mark.parametrize("address", EIP_55)
@pytest.mark.parametrize("suffix", ["", "-rig_1", "-A", "-6f1c2d"])
def test_an_address_in_one_case_or_with_its_checksum_is_taken_as_it_is(address: str, suffix: str) -> None:
    for spelling in (address, address.lower(), "0x" + address[2:].upper()):
        assert miner_id(spelling + suffix) == spelling + suffix


@pytest.mark.parametrize("address", EIP_55[4:])
def test_one_digit_in_the_wrong_case_is_refused_with_the_right_spelling(address: str) -> None:
    digit = next(digit for digit in reversed(address) if digit.isalpha())
    wrong = digit.swapcase().join(address.rsplit(digit, 1))
    with pytest.raises(ValueError, match=f"EIP-55 spells it {address}$"):
        miner_id(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "52908400098527886E0F7030069857D2E4169EE7",
        "0X52908400098527886E0F7030069857D2E4169EE7",
        "0x52908400098527886E0F7030069857D2E4169EE",
        "0x52908400098527886E0F7030069857D2E4169EE77",
        "0x52908400098527886E0F7030069857D2E4169EEG",
        "0x52908400098527886E0F7030069857D2E4169EE7-",
        "0x52908400098527886E0F7030069857D2E4169EE7-a-b",
        "0x52908400098527886E0F7030069857D2E4169EE7\n",
        "0x５2908400098527886E0F7030069857D2E4169EE7",
        "name.eth",
    ],
)
def test_anything_but_an_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be an EVM address"):
        miner_id(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("http://127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("https://[::1]:8188/", "https://[::1]:8188"),
        ("https://user:pw@host/base/", "https://user:pw@host/base"),
    ],
)
def test_urls_are_taken_without_their_last_slash(text: str, url: str) -> None:
    assert http_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "host",
        "host:80",
        "ftp://host",
        "https://",
        "https:///path",
        "https://host:port",
        "https://host:0",
        "https://host:65536",
        "https://host/#part",
        "https://ho st",
        "https://host/\x7f",
        "https://[::1",
    ],
)
def test_anything_but_a_url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a URL such as"):
        http_url(text)


@pytest.mark.parametrize(
    ("text", "settled"),
    [("NAS.local:9000", "nas.local:9000"), ("[FD00::1]:80", "[fd00::1]:80"), ("10.0.0.7:1", "10.0.0.7:1")],
)
def test_host_and_port_are_taken_in_lower_case(text: str, settled: str) -> None:
    assert host_port(text) == settled


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://host/path", "https://host/path"),
        ("https://user:pw@host/path", "https://***@host/path"),
        ("https://token@host", "https://***@host"),
        ("https://u:p@ss@host", "https://***@host"),
        ("https://host/?a=1&sig=x", "https://host/?***"),
        ("https://host/p#token", "https://host/p#***"),
        ("a text with ? and @ in it", "a text with ? and @ in it"),
    ],
)
def test_secrets_in_urls_are_masked(text: str, masked: str) -> None:
    assert mask_url(text) == masked
    assert quoted(text) == f'"{masked}"'
    assert quoted([text, 1]) == f'["{masked}", 1]'


def test_a_long_value_is_cut_to_one_short_line() -> None:
    line = quoted("x" * 500 + "\n")
    assert len(line) <= 80
    assert line.endswith(' …"')
