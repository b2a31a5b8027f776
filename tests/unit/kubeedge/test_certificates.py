"""The certificates of a KubeEdge cluster: what they say, when they are signed again, and what stays secret."""

from __future__ import annotations

import datetime
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge import certificate_files, certificates
from ansible_collections.edgeai.fleet.plugins.module_utils.kubeedge.errors import KubeedgeError

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.timezone.utc)
NODE = certificates.wanted("node", "camera-01", [], 365, 60)


def ensure(directory: Path, want: Any = NODE, now: datetime.datetime = NOW, **options: Any) -> Any:
    arguments = {"authority_days": 3650, "passphrase": None, "check": False, **options}
    return certificate_files.ensure(str(directory), want, now=now, **arguments)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def files(directory: Path) -> dict[str, int]:
    return {
        str(path.relative_to(directory)): path.stat().st_mode & 0o777
        for path in directory.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_a_node_certificate_is_what_edgecore_and_the_api_server_expect(tmp_path: Path) -> None:
    done = ensure(tmp_path / "pki")
    leaf, authority = read(tmp_path / "pki/node/camera-01.crt"), read(tmp_path / "pki/ca.crt")
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "system:node:camera-01"
    assert leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == "system:nodes"
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey) and leaf.public_key().curve.name == "secp256r1"
    assert leaf.not_valid_before_utc < NOW and leaf.not_valid_after_utc == NOW + 365 * DAY
    leaf.verify_directly_issued_by(authority)
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert files(tmp_path / "pki") == {
        "ca.crt": 0o644, "ca.key": 0o600, "node/camera-01.crt": 0o644, "node/camera-01.key": 0o600,
    }  # fmt: skip
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert done.changed and done.reasons == ["missing"] and done.certificate["days_left"] == 365
    # CloudCore and EdgeCore read the first PEM block of a key file and take no other.
    key = (tmp_path / "pki/node/camera-01.key").read_bytes()
    assert key.startswith(b"-----BEGIN PRIVATE KEY-----") and key.count(b"BEGIN") == 1


def test_a_server_certificate_names_what_is_dialled(tmp_path: Path) -> None:
    want = certificates.wanted("server", "cloudcore", ["cloud.example.com", "192.0.2.10", "2001:db8::1"], 365, 60)
    done = ensure(tmp_path, want)
    leaf = read(tmp_path / "server/cloudcore.crt")
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cloud.example.com"]
    assert sorted(map(str, names.get_values_for_type(x509.IPAddress))) == ["192.0.2.10", "2001:db8::1"]
    assert list(leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert done.certificate["names"] == ["192.0.2.10", "2001:db8::1", "cloud.example.com"]
    assert not ensure(tmp_path, want).changed


def test_the_second_run_changes_nothing(tmp_path: Path) -> None:
    ensure(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = ensure(tmp_path, now=NOW + 304 * DAY)
    assert not again.changed and again.certificate["days_left"] == 61
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"now": NOW + 306 * DAY}, "expires"),
        ({"now": NOW - 2 * DAY}, "not_yet_valid"),
        ({"want": certificates.wanted("node", "camera-01", ["192.0.2.4"], 365, 60)}, "names"),
    ],
    ids=["expires", "not-yet-valid", "names"],
)
def test_what_has_it_signed_again(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    ensure(tmp_path)
    old = read(tmp_path / "node/camera-01.crt"), (tmp_path / "node/camera-01.key").read_bytes()
    again = ensure(tmp_path, **change)
    assert again.reasons == [reason] and again.authority_reasons == []
    new = read(tmp_path / "node/camera-01.crt"), (tmp_path / "node/camera-01.key").read_bytes()
    assert old[0] != new[0] and old[1] != new[1]
    assert not ensure(tmp_path, **change).changed


def test_another_name_in_the_file_has_it_signed_again(tmp_path: Path) -> None:
    ensure(tmp_path, certificates.wanted("node", "camera-02", [], 365, 60))
    for suffix in ("crt", "key"):
        os.replace(tmp_path / f"node/camera-02.{suffix}", tmp_path / f"node/camera-01.{suffix}")
    assert ensure(tmp_path).reasons == ["name"]


def test_a_new_authority_signs_everything_again(tmp_path: Path) -> None:
    ensure(tmp_path)
    (tmp_path / "ca.key").unlink()
    (tmp_path / "ca.crt").unlink()
    done = ensure(tmp_path)
    assert done.reasons == ["authority"] and done.authority_reasons == ["missing"]
    read(tmp_path / "node/camera-01.crt").verify_directly_issued_by(read(tmp_path / "ca.crt"))


def test_an_authority_of_the_same_key_keeps_what_it_signed(tmp_path: Path) -> None:
    long = certificates.wanted("node", "camera-01", [], 3000, 10)
    ensure(tmp_path, long)
    old = read(tmp_path / "node/camera-01.crt")
    later = NOW + 700 * DAY
    done = ensure(tmp_path, long, now=later)
    assert done.authority_reasons == ["expires"] and done.reasons == []
    assert read(tmp_path / "node/camera-01.crt") == old
    old.verify_directly_issued_by(read(tmp_path / "ca.crt"))
    assert read(tmp_path / "ca.crt").not_valid_after_utc == later + 3650 * DAY


@pytest.mark.parametrize("lost", ["ca.key", "ca.crt"])
def test_half_an_authority(tmp_path: Path, lost: str) -> None:
    """Without its key it is refused; its certificate can be made again, and fits everything."""
    ensure(tmp_path)
    (tmp_path / lost).unlink()
    if lost == "ca.key":
        with pytest.raises(KubeedgeError, match=r"ca\.key: is not there.*restore"):
            ensure(tmp_path)
        return
    done = ensure(tmp_path)
    assert done.authority_reasons == ["missing"] and done.reasons == []


def test_a_pair_of_which_one_half_is_another_is_signed_again(tmp_path: Path) -> None:
    """As a crash between the two files leaves it."""
    ensure(tmp_path)
    ensure(tmp_path, certificates.wanted("node", "camera-02", [], 365, 60))
    os.replace(tmp_path / "node/camera-02.key", tmp_path / "node/camera-01.key")
    assert ensure(tmp_path).reasons == ["key"]


def test_an_authority_of_another_key_is_refused(tmp_path: Path) -> None:
    ensure(tmp_path / "one")
    ensure(tmp_path / "two")
    os.replace(tmp_path / "one/ca.crt", tmp_path / "two/ca.crt")
    with pytest.raises(KubeedgeError, match="not for the authority's key; restore"):
        ensure(tmp_path / "two")


@pytest.mark.parametrize("name", ["ca.key", "node/camera-01.key"])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    ensure(tmp_path)
    (tmp_path / name).chmod(0o640)
    with pytest.raises(KubeedgeError, match="chmod 600"):
        ensure(tmp_path)


def test_the_authority_can_have_a_passphrase(tmp_path: Path) -> None:
    ensure(tmp_path, passphrase=b"correct horse")
    assert b"ENCRYPTED" in (tmp_path / "ca.key").read_bytes()
    assert not ensure(tmp_path, passphrase=b"correct horse").changed
    for wrong in (None, b"wrong"):
        with pytest.raises(KubeedgeError, match=r"ca\.key"):
            ensure(tmp_path, passphrase=wrong)


def test_nothing_outlives_the_authority() -> None:
    key = certificates.new_key()
    authority = certificates.Authority(certificates.make_authority(key, 100 * DAY, NOW), key)
    leaf = certificates.sign(NODE, certificates.new_key(), authority, NOW)
    assert leaf.not_valid_after_utc == NOW + 100 * DAY


def test_many_hosts_at_once_share_one_authority(tmp_path: Path) -> None:
    wants = [certificates.wanted("node", f"camera-{number:02}", [], 365, 60) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda want: ensure(tmp_path, want), wants))
    authority = read(tmp_path / "ca.crt")
    for want in wants:
        read(tmp_path / f"node/{want.name}.crt").verify_directly_issued_by(authority)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("node", "Camera_1", [], 365, 60), "RFC|small letters"),
        (("node", "../../etc/passwd", [], 365, 60), "no name of a Kubernetes node"),
        (("server", "cloudcore", [], 365, 60), "names or addresses"),
        (("server", "cloudcore", ["not a name"], 365, 60), "neither an address"),
        (("node", "a", [], 60, 60), "less than validity_days"),
        (("node", "a", [], 0, 0), "validity_days"),
        (("other", "a", [], 365, 60), "purpose"),
    ],
    ids=["letters", "path", "no-names", "bad-name", "renew", "validity", "purpose"],
)
def test_what_makes_no_sense_is_refused(arguments: Any, said: str) -> None:
    with pytest.raises(KubeedgeError, match=said):
        certificates.wanted(*arguments)


def arguments(directory: Path, **more: Any) -> dict[str, Any]:
    return {"directory": directory, "purpose": "node", "name": "camera-01", "now": "2026-11-23T12:00:00Z", **more}


def test_the_module_predicts_signs_and_tells_nothing_secret(tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    (tmp_path / "phrase").write_text("planted-passphrase\n")
    (tmp_path / "phrase").chmod(0o600)
    options = {"passphrase_file": tmp_path / "phrase"}
    predicted = run_module("node_certificate", arguments(pki, **options), check=True)
    assert predicted["changed"] and predicted["reasons"] == ["missing"] and not pki.exists()
    assert predicted["certificate"] is None and predicted["authority"] is None
    done = run_module("node_certificate", arguments(pki, **options))
    assert done["changed"] and done["certificate"]["expires"] == "2027-11-23T12:00:00Z" and "warnings" not in done
    assert done["certificate"]["subject"] == "CN=system:node:camera-01,O=system:nodes"
    for again in (True, False):
        assert not run_module("node_certificate", arguments(pki, **options), check=again)["changed"]
    key = serialization.load_pem_private_key((pki / "node/camera-01.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secrets = ["planted-passphrase", "PRIVATE KEY", format(key.private_numbers().private_value, "x")]
    secrets += (pki / "node/camera-01.key").read_text().splitlines()[1:-1]
    assert not [secret for secret in secrets if secret in json.dumps([predicted, done])]


def test_the_module_warns_renews_and_removes(tmp_path: Path) -> None:
    run_module("node_certificate", arguments(tmp_path))
    late = arguments(tmp_path, now="2027-11-15T12:00:00Z", renew_before_days=5)
    warned = run_module("node_certificate", late)
    assert not warned["changed"] and "expires in 8 days" in json.dumps(warned["warnings"])
    renewed = run_module("node_certificate", arguments(tmp_path, now="2027-11-15T12:00:00Z"))
    assert renewed["reasons"] == ["expires"] and renewed["certificate"]["days_left"] == 365
    gone = arguments(tmp_path, state="absent")
    assert run_module("node_certificate", gone, check=True)["changed"] and (tmp_path / "node/camera-01.key").exists()
    assert run_module("node_certificate", gone)["changed"] and sorted(files(tmp_path)) == ["ca.crt", "ca.key"]
    assert not run_module("node_certificate", gone)["changed"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"name": "No Such"}, "no name of a Kubernetes node"),
        ({"now": "yesterday"}, "no time like"),
        ({"authority_days": 400}, "authority_days"),
        ({"passphrase_file": "/does/not/exist"}, "/does/not/exist"),
    ],
    ids=["name", "now", "authority", "passphrase"],
)
def test_the_module_names_what_is_wrong(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    failed = run_module("node_certificate", arguments(tmp_path, **more))
    assert failed["failed"] and said in failed["msg"]
