"""Public addresses that lead back to this machine or into its own network are refused, and no others."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miner.net.addresses import Refused, require_elsewhere

ME_V4, ME_V6 = "93.184.216.34", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


@pytest.mark.parametrize(
    ("own", "peer"),
    [
        (ME_V4, ME_V4),
        (ME_V6, ME_V6),
        (ME_V6, "2606:2800:21f:cb07::1"),  # the router
        (ME_V6, "2606:2800:21f:cbff::1"),  # another network of the same home
    ],
)
def test_what_is_here_is_refused(own: str, peer: str) -> None:
    with pytest.raises(Refused, match="own network"):
        require_elsewhere(own, peer)


@pytest.mark.parametrize(
    ("own", "peer"),
    [
        (ME_V4, "93.184.216.35"),  # a neighbour in a data centre is somebody else
        (ME_V6, "2606:2800:21f:cc00::1"),
        ("192.168.1.5", ME_V4),
        ("192.168.1.5", "192.168.1.9"),  # private: judged before, and allowed by name
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        (ME_V6, ME_V4),
    ],
)
def test_what_is_elsewhere_is_not(own: str, peer: str) -> None:
    require_elsewhere(own, peer)


@given(st.integers(0x240000000000, 0x2400FFFFFFFF), st.integers(2, 2**72 - 1))
def test_all_of_a_home_is_one_network(prefix: int, host: int) -> None:
    home = ipaddress.IPv6Network((prefix << 80, 56))
    with pytest.raises(Refused):
        require_elsewhere(str(home[1]), str(home[host]))
