"""The modules, as processes: results, check mode against what then happens, idempotence, failures without traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.certificates import authority, issue, write_chain, write_key
from support.modules import run_module
from support.releases import make_release

SECRET = "s3cret-passphrase"


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    paths = {"path": tmp_path / "k.pem", "public_path": tmp_path / "k.pub.pem"}
    run_module("signing_key", paths)
    return paths


def stripped(result: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in (*names, "invocation")}


def test_signing_key_predicts_creates_and_rests(tmp_path: Path) -> None:
    args = {"path": tmp_path / "k.pem", "public_path": tmp_path / "k.pub.pem", "passphrase_env": "KEY_PASSPHRASE"}
    env = {"KEY_PASSPHRASE": SECRET}
    predicted = run_module("signing_key", args, check=True, env=env)
    assert predicted["changed"] and predicted["key_id"] is None and not list(tmp_path.iterdir())
    created = run_module("signing_key", args, env=env)
    assert stripped(created, "key_id", "public_key") == stripped(predicted, "key_id", "public_key")
    assert "absent" in created["diff"]["before"] and b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    again = run_module("signing_key", args, env=env)
    assert not again["changed"] and again["diff"]["before"] == again["diff"]["after"]
    assert again["key_id"] == created["key_id"] and again["public_key"] == (tmp_path / "k.pub.pem").read_text()
    assert SECRET not in json.dumps([predicted, created, again])


def test_signing_key_fails_plainly(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_text("mine")
    for mode, words in ((0o644, "chmod 600"), (0o600, "cannot be read as a PEM private key")):
        (tmp_path / "k.pem").chmod(mode)
        result = run_module("signing_key", {"path": tmp_path / "k.pem"})
        assert result["failed"] and words in result["msg"] and "exception" not in result
    assert (tmp_path / "k.pem").read_text() == "mine"


def test_release_sign_predicts_signs_and_rests(tmp_path: Path, pair: dict[str, Path]) -> None:
    release = make_release(tmp_path, sign_key=False)
    args = {"path": release, "private_key": pair["path"]}
    predicted = run_module("release_sign", args, check=True)
    assert predicted["changed"] and not (release / "model.sig").exists()
    signed = run_module("release_sign", args)
    assert stripped(signed) == stripped(predicted)
    assert signed["diff"]["before"] == "not signed\n" and signed["reason"] == "it was not signed"
    content = (release / "model.sig").read_bytes()
    again = run_module("release_sign", args)
    assert not again["changed"] and again["reason"] == "" and again["diff"]["before"] == again["diff"]["after"]
    assert (release / "model.sig").read_bytes() == content
    verified = run_module("release_verify", {"path": release, "public_keys": [pair["public_path"]]})
    assert not verified["changed"] and verified["digest"] == signed["digest"] and verified["key_id"] == signed["key_id"]
    assert verified["variants"] == ["onnxruntime/int8", "onnxruntime/fp32"] and verified["files"] == 4
    assert (verified["model"], verified["version"], verified["security_counter"]) == ("digits", "1.0.0", 1)


def test_a_changed_release_is_signed_again_and_the_diff_says_why(tmp_path: Path, pair: dict[str, Path]) -> None:
    release = make_release(tmp_path, sign_key=pair["path"])
    (release / "release.json").write_bytes((release / "release.json").read_bytes() + b"\n")
    args = {"path": release, "private_key": pair["path"]}
    predicted = run_module("release_sign", args, check=True)
    signed = run_module("release_sign", args)
    assert signed["changed"] and stripped(signed) == stripped(predicted)
    assert "changed since it was signed" in signed["diff"]["before"]
    assert signed["diff"]["before"] != signed["diff"]["after"]


def test_release_sign_with_a_chain_and_a_passphrase_file(tmp_path: Path) -> None:
    root = authority("root")
    leaf = issue("leaf", root)
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(SECRET + "\n")
    args = {
        "path": make_release(tmp_path, sign_key=False),
        "private_key": write_key(tmp_path / "k.pem", leaf.key, SECRET.encode()),
        "passphrase_file": secret,
        "certificate_chain": write_chain(tmp_path / "chain.pem", leaf),
    }
    assert run_module("release_sign", args)["changed"]
    assert not run_module("release_sign", args)["changed"]
    roots = [write_chain(tmp_path / "root.pem", root)]
    verified = run_module("release_verify", {"path": args["path"], "ca_certificates": roots})
    assert verified["not_after"] == leaf.certificate.not_valid_after_utc.isoformat()
    secret.chmod(0o640)
    failed = run_module("release_sign", args)
    assert failed["failed"] and "chmod 600" in failed["msg"] and SECRET not in json.dumps(failed)


def test_release_verify_fails_plainly(tmp_path: Path, pair: dict[str, Path]) -> None:
    release = make_release(tmp_path, sign_key=pair["path"])
    keys = {"public_keys": [pair["public_path"]]}
    other = run_module("release_verify", {"path": release, "digest": "sha256:" + "0" * 64, **keys})
    assert other["failed"] and "field 'digest'" in other["msg"]
    (release / "extra").touch()
    for args, words in (
        ({"path": release, **keys}, "extra: is not listed"),
        ({"path": release}, "name either trust_dir"),
        ({"path": release, "trust_dir": tmp_path, **keys}, "name either trust_dir"),
        ({"path": release, "trust_dir": tmp_path}, "trusts nobody"),
        ({"path": tmp_path, **keys}, "not signed"),
    ):
        result = run_module("release_verify", args)
        assert result["failed"] and words in result["msg"] and "exception" not in result


def test_release_verify_of_a_partial_release(tmp_path: Path, pair: dict[str, Path]) -> None:
    release = make_release(tmp_path, sign_key=pair["path"])
    (release / "variants/onnxruntime/fp32/model.onnx").unlink()
    args: dict[str, Any] = {"path": release, "public_keys": [pair["public_path"]]}
    assert "is missing" in run_module("release_verify", args)["msg"]
    assert run_module("release_verify", {**args, "partial": True})["files"] == 3
    failed = run_module("release_verify", {**args, "partial": True, "variants": ["onnxruntime/fp32"]})
    assert failed["failed"] and "is missing" in failed["msg"]
