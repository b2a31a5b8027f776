"""Certificate chains: to a trusted root, all valid at the given time, each used for what it is for."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from support.certificates import CODE_SIGNING, DAY, NOW, SERVER_AUTH, Identity, authority, issue

from ansible_collections.edgeai.fleet.plugins.module_utils.release.certificates import verify_chain
from ansible_collections.edgeai.fleet.plugins.module_utils.release.errors import ReleaseError

ROOT = authority("root")
MIDDLE = authority("middle", ROOT)
LEAF = issue("leaf", MIDDLE, purposes=CODE_SIGNING)


def verify(*chain: Identity, roots: tuple[Identity, ...] = (ROOT,), now: Any = NOW) -> Any:
    certificates = [identity.certificate for identity in chain]
    return verify_chain(certificates, [root.certificate for root in roots], now, "model.sig")


def refused(*chain: Identity, **options: Any) -> str:
    with pytest.raises(ReleaseError) as caught:
        verify(*chain, **options)
    assert str(caught.value).startswith("model.sig: ")
    return str(caught.value)


def test_a_chain_through_an_intermediate_is_accepted() -> None:
    verified = verify(LEAF, MIDDLE)
    assert verified.public_key == LEAF.key.public_key()
    assert verified.not_after == NOW + 365 * DAY


def test_the_root_may_be_sent_along_and_the_order_behind_the_leaf_is_free() -> None:
    low = authority("low", MIDDLE)
    leaf = issue("leaf", low)
    for chain in ((leaf, low, MIDDLE), (leaf, MIDDLE, low), (leaf, low, MIDDLE, ROOT), (leaf, ROOT, MIDDLE, low)):
        assert verify(*chain).public_key == leaf.key.public_key()


def test_a_leaf_directly_below_the_root_is_accepted() -> None:
    for key in (ec.SECP384R1(), ec.SECP521R1()):
        leaf = issue("leaf", ROOT, key=ec.generate_private_key(key))
        assert verify(leaf).public_key.curve.name == key.name


def test_rsa_authorities_are_accepted_from_2048_bits() -> None:
    root = authority("rsa", key=rsa.generate_private_key(65537, 2048))
    assert verify(issue("leaf", root), roots=(root,)).public_key
    weak = authority("rsa", key=rsa.generate_private_key(65537, 1024))
    assert "does not chain" in refused(issue("leaf", weak), roots=(weak,))


def test_an_intermediate_can_be_the_trusted_one() -> None:
    assert verify(LEAF, roots=(MIDDLE,)).public_key == LEAF.key.public_key()


def test_of_two_roots_with_one_name_the_right_one_is_found() -> None:
    twin = authority("root")
    assert verify(LEAF, MIDDLE, roots=(twin, ROOT)).public_key == LEAF.key.public_key()
    assert "does not chain to a trusted CA" in refused(LEAF, MIDDLE, roots=(twin,))


def test_an_expired_path_does_not_hide_a_valid_one() -> None:
    key = MIDDLE.key
    old_root = authority("root", start=NOW - 9 * DAY, end=NOW - DAY, key=ROOT.key)
    assert verify(LEAF, MIDDLE, roots=(old_root, ROOT)).public_key
    assert "expired" in refused(LEAF, MIDDLE, roots=(old_root,))
    assert key is MIDDLE.key


def test_every_certificate_has_to_be_valid_at_the_given_time() -> None:
    old = {"start": NOW - 9 * DAY, "end": NOW - DAY}
    young = {"start": NOW + DAY}
    assert "'CN=leaf' expired" in refused(issue("leaf", MIDDLE, **old), MIDDLE)
    assert "'CN=leaf' is valid from" in refused(issue("leaf", MIDDLE, **young), MIDDLE)
    middle = authority("middle", ROOT, **old)
    assert "'CN=middle' expired" in refused(issue("leaf", middle), middle)
    root = authority("root", **old)
    assert "'CN=root' expired" in refused(issue("leaf", root), roots=(root,))
    unused = issue("unused", ROOT, **old)
    assert "'CN=unused' expired" in refused(LEAF, MIDDLE, unused)
    # The same chain, before, during and after its life: the machine's clock plays no part.
    assert verify(LEAF, MIDDLE, now=NOW + 364 * DAY)
    for now in (NOW - 2 * DAY, NOW + 366 * DAY):
        refused(LEAF, MIDDLE, now=now)


def test_the_path_expires_with_the_first_of_its_certificates() -> None:
    middle = authority("middle", ROOT, end=NOW + 5 * DAY)
    assert verify(issue("leaf", middle), middle).not_after == NOW + 5 * DAY


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ca": True}, "is a CA"),
        ({"usage": None}, "digitalSignature"),
        ({"usage": "key_agreement"}, "digitalSignature"),
        ({"purposes": SERVER_AUTH}, "codeSigning"),
        ({"extra": x509.InhibitAnyPolicy(0)}, "critical extension"),
        ({"key": ed25519.Ed25519PrivateKey.generate()}, "elliptic"),
        ({"key": rsa.generate_private_key(65537, 2048)}, "elliptic"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "secp256k1"),
    ],
)
def test_a_leaf_that_must_not_sign_is_refused(options: dict[str, Any], words: str) -> None:
    assert words in refused(issue("leaf", MIDDLE, **options), MIDDLE)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ca": False}, "not a CA"),
        ({"ca": None}, "not a CA"),
        ({"usage": None}, "keyCertSign"),
        ({"usage": "digital_signature"}, "keyCertSign"),
        ({"extra": x509.InhibitAnyPolicy(0)}, "critical extension"),
        ({"digest": hashes.SHA224()}, "does not chain"),
    ],
)
def test_an_intermediate_that_must_not_issue_is_refused(options: dict[str, Any], words: str) -> None:
    middle = authority("middle", ROOT, **options)
    assert words in refused(issue("leaf", middle), middle)
    if "digest" not in options:
        assert words in refused(issue("leaf", middle), roots=(middle,))


def test_the_length_of_a_path_is_limited_by_its_authorities() -> None:
    root = authority("root", path_length=0)
    middle = authority("middle", root)
    assert verify(issue("leaf", root), roots=(root,))
    assert "allows 0 CAs below it, not 1" in refused(issue("leaf", middle), middle, roots=(root,))


def test_a_leaf_cannot_issue_another_leaf() -> None:
    # The classic flaw: a signing certificate used as if it were a CA.
    forged = issue("forged", LEAF)
    assert "'CN=leaf' is not a CA" in refused(forged, LEAF, MIDDLE)


def test_nobody_trusted_nothing_sent_and_too_much_sent() -> None:
    assert "no CA certificate is trusted" in refused(LEAF, MIDDLE, roots=())
    assert "0 certificates" in refused()
    assert "does not chain" in refused(LEAF)
    assert "9 certificates" in refused(*[LEAF] * 9)


def test_a_self_signed_leaf_is_refused_even_when_named_as_trusted() -> None:
    alone = issue("alone")
    assert "is not a CA" in refused(alone, roots=(alone,))


def test_authorities_that_sign_each_other_end() -> None:
    first, second = authority("first"), authority("second")
    crossed = authority("first", second, key=first.key)
    crossed_back = authority("second", first, key=second.key)
    assert "does not chain" in refused(issue("leaf", first), crossed, crossed_back, first, second)
