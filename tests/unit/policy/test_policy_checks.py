"""Every check over a real release, ledger, keys and declarations: as it should be, and each way it is not."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from support.policy_repo import CREATED, SOURCE, TODAY, PolicyRepo
from support.releases import golden_arrays

from ansible_collections.edgeai.fleet.plugins.module_utils.policy import gather
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.checks import CHECKS, variables_of
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.facts import DeviceFacts, Fleet, Place
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.governance import read_approvals, read_governance
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.observe import encrypted_at_rest
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.requirement import Condition
from ansible_collections.edgeai.fleet.plugins.module_utils.policy.yamlfile import load_yaml
from ansible_collections.edgeai.fleet.plugins.module_utils.release.keys import Trust
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

NOW = datetime.datetime(TODAY.year, TODAY.month, TODAY.day, 23, 59, tzinfo=datetime.timezone.utc)
PLACE = Place("hosts.yml", 3)
Change = Callable[[PolicyRepo], Any]


def day(offset: int) -> str:
    return (TODAY + datetime.timedelta(days=offset)).isoformat()


def device(name: str = "harbour-01", site: str | None = "harbour", **values: Any) -> DeviceFacts:
    seen = values.pop("at_rest", None)
    return DeviceFacts(name, site, ("digits",), values, {}, PLACE, seen)


def parsed(data: Any, name: str) -> Any:
    return load_yaml(yaml.safe_dump(data, sort_keys=False), name)


def fleet(repo: PolicyRepo, plan: Mapping[str, Any] | None = None, **options: Any) -> Fleet:
    """Gather a repository as the action plugin does, without Ansible."""
    governance = read_governance(parsed(repo.governance, "governance.yml"))
    home = repo.home
    trust = Trust.from_files([home / "release.pub.pem"]) if (home / "release.pub.pem").exists() else None
    release = gather.gather_release("digits", "1.0.0", str(home / "releases/digits/1.0.0"), trust, NOW, PLACE)
    ledger = gather.gather_ledger(str(home / "ledger"), True, str(home / "ledger.pub.pem"), PLACE)
    used = gather.ledger_key_uses(str(home / "ledger"))
    keys = [
        *gather.gather_keys("release", [str(home / "release.pub.pem")], gather.release_key_uses([release]), PLACE),
        *gather.gather_keys("ledger", [str(home / "ledger.pub.pem")], used, PLACE),
    ]
    approvals = read_approvals(parsed({"format": 1, "approvals": repo.approvals}, "approvals.yml"))
    checked = gather.check_approvals(approvals, governance, str(home))
    options = {"ledger": ledger, "keys": tuple(keys), **options}
    return Fleet(now=NOW, governance=governance, releases=(release,), approvals=checked, plan=plan, **options)


def verdicts(check: str, over: Fleet, subject: Any = None, **parameters: Any) -> list[tuple[str, str]]:
    """Return (verdict, message) of a check with its defaults and these parameters."""
    entry = CHECKS[check]
    if subject is None:
        subject = {"release": over.releases[0], "model": "digits", "fleet": None}.get(entry.kind)
    values = {name: parameter.default for name, parameter in entry.parameters.items()} | parameters
    return [(result.verdict, result.message) for result in entry.function(values, over, subject)]


def expect(found: list[tuple[str, str]], verdict: str, words: str) -> None:
    assert any(kind == verdict and words in text for kind, text in found), found
    if verdict == "pass":
        assert {kind for kind, _text in found} == {"pass"}, found


@pytest.fixture
def repo(tmp_path: Path) -> PolicyRepo:
    return PolicyRepo(tmp_path)


def test_every_check_passes_on_a_good_repository(repo: PolicyRepo) -> None:
    over = fleet(repo)
    for name in (
        "provenance",
        "lawful_basis",
        "phi_basis",
        "golden_samples",
        "input_retention",
        "data_region",
        "approvals",
    ):
        expect(verdicts(name, over), "pass", "")
    for name in ("device_region", "encryption_at_rest", "encryption_in_transit"):
        expect(verdicts(name, over, device()), "pass", "")
    for key in over.keys:
        expect(verdicts("key_age", over, key), "pass", "is 20 of at most 365 days old")
    expect(verdicts("audit_trail", over, keep_days=2192), "pass", "verified: 2 records")


# -- provenance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["git_revision", "data_sha256"])
def test_provenance_that_is_not_recorded(tmp_path: Path, missing: str) -> None:
    repo = PolicyRepo(tmp_path, source={**SOURCE, missing: None})
    expect(verdicts("provenance", fleet(repo)), "fail", f"does not record source.{missing}")


def test_provenance_of_data_nobody_described(tmp_path: Path) -> None:
    repo = PolicyRepo(tmp_path, source={**SOURCE, "data_sha256": "ab" * 32})
    expect(verdicts("provenance", fleet(repo)), "fail", "is none of the datasets declared")
    del repo.governance["models"]["digits"]["datasets"]
    expect(verdicts("provenance", fleet(repo)), "no_data", "add models.digits.datasets")


def test_provenance_of_a_release_that_does_not_verify(repo: PolicyRepo) -> None:
    golden = repo.release / "golden/golden.npz"
    golden.write_bytes(golden.read_bytes() + b"x")
    expect(verdicts("provenance", fleet(repo)), "fail", "what it says is not proven: golden/golden.npz")
    (repo.release / "model.sig").unlink()
    expect(verdicts("provenance", fleet(repo)), "fail", "model.sig: is missing")
    assert str(repo.home) not in str(verdicts("provenance", fleet(repo)))
    (repo.release / "release.json").write_text("{}", encoding="utf-8")
    expect(verdicts("provenance", fleet(repo)), "no_data", "is missing")


def test_provenance_of_a_release_that_is_not_there(repo: PolicyRepo) -> None:
    repo.release.rename(repo.home / "elsewhere")
    for name in ("provenance", "golden_samples", "approvals"):
        expect(verdicts(name, fleet(repo)), "no_data", "is not there to look at")


# -- lawful basis and PHI --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"personal_data": None}, "no_data", "does not say whether it holds personal data"),
        ({"lawful_basis": None}, "fail", "names no lawful_basis"),
        ({"special_categories": True}, "fail", "names no lawful_basis.article_9"),
        ({"personal_data": False}, "inconclusive", "one of them is wrong"),
        ({"personal_data": False, "lawful_basis": None}, "pass", "declared to hold no personal data"),
        (
            {
                "special_categories": True,
                "lawful_basis": {"basis": "consent", "reference": "form 7", "article_9": "(a) explicit consent"},
            },
            "pass",
            "declared: consent (form 7), Art. 9(2): (a) explicit consent",
        ),
    ],
)
def test_lawful_basis(repo: PolicyRepo, changes: dict[str, Any], verdict: str, words: str) -> None:
    dataset = repo.governance["datasets"]["docks-2026"]
    dataset.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del dataset[name]
    expect(verdicts("lawful_basis", fleet(repo)), verdict, words)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({"phi": None}, "no_data", "does not say whether it holds protected"),
        ({"phi": True}, "fail", "names no hipaa_basis"),
        (
            {"phi": True, "hipaa_basis": {"basis": "authorization", "reference": "form 9"}},
            "pass",
            "declared: authorization",
        ),
        ({"hipaa_basis": {"basis": "deidentified", "reference": "x"}}, "fail", "method has to say"),
        (
            {"phi": True, "hipaa_basis": {"basis": "deidentified", "reference": "x", "method": "safe_harbor"}},
            "inconclusive",
            "one of them is wrong",
        ),
        (
            {"hipaa_basis": {"basis": "deidentified", "reference": "report 3", "method": "expert_determination"}},
            "pass",
            "deidentified, expert_determination (report 3)",
        ),
    ],
)
def test_phi_basis(repo: PolicyRepo, changes: dict[str, Any], verdict: str, words: str) -> None:
    dataset = repo.governance["datasets"]["docks-2026"]
    dataset.update(changes)
    if changes.get("phi", 0) is None:
        del dataset["phi"]
    expect(verdicts("phi_basis", fleet(repo)), verdict, words)


@pytest.mark.parametrize("check", ["lawful_basis", "phi_basis", "input_retention", "data_region"])
def test_a_model_nobody_declared(repo: PolicyRepo, check: str) -> None:
    repo.governance["models"] = {}
    expect(verdicts(check, fleet(repo)), "no_data", "add models.digits")


# -- golden samples --------------------------------------------------------------------------------


def test_golden_samples_with_an_address_in_the_pixels(tmp_path: Path) -> None:
    arrays = golden_arrays()
    hidden = np.frombuffer(b"anna.schmidt@example.org    ", dtype="u1").astype(np.float32)
    arrays["input.image"].reshape(-1)[500 : 500 + len(hidden)] = hidden
    repo = PolicyRepo(tmp_path, golden=arrays)
    expect(verdicts("golden_samples", fleet(repo)), "fail", "e-mail a…@e….org (array 'input.image', byte 2000)")


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (lambda g: g.clear(), "no_data", "nobody declared what is in these golden samples"),
        (lambda g: g[0].update(sha256="ab" * 32), "no_data", "nobody declared"),
        (lambda g: g[0].update(personal_data=True), "fail", "declared by Amina Diallo to hold personal data"),
        (lambda g: g[0].update(reviewed=day(2)), "inconclusive", "which is to come"),
        (lambda g: g[0].update(kind="audio"), "pass", "voices are not heard"),
    ],
)
def test_golden_declarations(repo: PolicyRepo, change: Callable[[Any], Any], verdict: str, words: str) -> None:
    change(repo.governance["models"]["digits"]["golden"])
    expect(verdicts("golden_samples", fleet(repo)), verdict, words)


def test_golden_declaration_about_phi(repo: PolicyRepo) -> None:
    (declared,) = repo.governance["models"]["digits"]["golden"]
    expect(verdicts("golden_samples", fleet(repo), about="phi"), "pass", "faces, number plates")
    declared["phi"] = True
    expect(verdicts("golden_samples", fleet(repo), about="phi"), "fail", "to hold personal data")
    del declared["phi"]
    expect(verdicts("golden_samples", fleet(repo), about="phi"), "no_data", "does not say whether there is PHI")


def test_golden_samples_that_a_person_has_to_look_at(tmp_path: Path) -> None:
    repo = PolicyRepo(tmp_path, golden={**golden_arrays(), "patient_id": np.arange(64)})
    expect(verdicts("golden_samples", fleet(repo)), "inconclusive", "a person has to look: field name")


def test_golden_samples_of_a_release_that_was_altered(repo: PolicyRepo) -> None:
    (repo.release / "variants/onnxruntime/int8/model.onnx").write_bytes(b"other")
    expect(verdicts("golden_samples", fleet(repo)), "inconclusive", "the release does not verify")
    (repo.release / "golden/golden.npz").unlink()
    expect(verdicts("golden_samples", fleet(repo)), "no_data", "golden")


# -- retention and regions -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "verdict", "words"),
    [
        ({"stored": True}, "fail", "retention_days is not set"),
        ({"stored": True, "retention_days": 31, "deletion": "timer"}, "fail", "kept for 31 days; at most 30"),
        ({"stored": True, "retention_days": 30}, "fail", "nothing says what deletes"),
        (
            {"stored": True, "retention_days": 30, "deletion": "timer"},
            "pass",
            "30 of at most 30 days, deleted by timer",
        ),
    ],
)
def test_input_retention(repo: PolicyRepo, inputs: dict[str, Any], verdict: str, words: str) -> None:
    repo.governance["models"]["digits"]["inference_inputs"] = inputs
    expect(verdicts("input_retention", fleet(repo)), verdict, words)


def test_data_region(repo: PolicyRepo) -> None:
    model, dataset = repo.governance["models"]["digits"], repo.governance["datasets"]["docks-2026"]
    dataset["region"] = "europe"
    expect(verdicts("data_region", fleet(repo)), "fail", "dataset docks-2026: is in europe; allowed is eu")
    del dataset["region"]
    expect(verdicts("data_region", fleet(repo)), "no_data", "dataset docks-2026: no region")
    dataset["region"] = "eu"
    model["inference_inputs"] = {"stored": True, "retention_days": 1, "deletion": "timer", "region": "us"}
    expect(verdicts("data_region", fleet(repo)), "fail", "stored inputs: is in us")
    del model["inference_inputs"]
    expect(verdicts("data_region", fleet(repo)), "no_data", "add models.digits.inference_inputs")
    del model["regions"]
    expect(verdicts("data_region", fleet(repo)), "no_data", "add models.digits.regions")


def test_device_region(repo: PolicyRepo) -> None:
    expect(verdicts("device_region", fleet(repo), device(edge_region="us")), "fail", "is not that of its site, eu-de")
    expect(verdicts("device_region", fleet(repo), device(site=None)), "no_data", "it has no edge_site")
    expect(verdicts("device_region", fleet(repo), device(site="moon")), "no_data", "sites.moon.region is not declared")
    repo.governance["models"]["digits"]["regions"] = ["eu-at", "us"]
    expect(verdicts("device_region", fleet(repo), device()), "fail", "pinned to eu-at, us; the site is in eu-de")
    del repo.governance["models"]["digits"]["regions"]
    expect(verdicts("device_region", fleet(repo), device()), "no_data", "models.digits.regions is not declared")


# -- encryption ------------------------------------------------------------------------------------


def test_encryption_at_rest(repo: PolicyRepo) -> None:
    def found(subject: DeviceFacts, **parameters: Any) -> list[tuple[str, str]]:
        return verdicts("encryption_at_rest", fleet(repo), subject, **parameters)

    expect(found(device(at_rest=False)), "fail", "seen on a volume that is not encrypted")
    expect(found(device(at_rest=True), observed=True), "pass", "seen on an encrypted volume")
    expect(found(device(), observed=True), "inconclusive", "nobody looked")
    expect(found(device(site="moon")), "no_data", "sites.moon.encryption_at_rest is not declared")
    expect(found(device(site="quarry")), "no_data", "sites.quarry.encryption_at_rest is not declared")
    repo.governance["sites"]["harbour"]["encryption_at_rest"] = {"enabled": False}
    expect(found(device(at_rest=True)), "fail", "declared: not encrypted")


@pytest.mark.parametrize(
    ("values", "verdict", "words"),
    [
        ({"ansible_connection": "local"}, "pass", "managed over local"),
        ({"ansible_connection": "telnet"}, "fail", "is not known to encrypt"),
        ({"ansible_ssh_common_args": "-o StrictHostKeyChecking=no"}, "fail", "does not check host keys"),
        ({"ansible_ssh_extra_args": "-oStrictHostKeyChecking no"}, "fail", "does not check host keys"),
        ({"ansible_host_key_checking": False}, "fail", "does not check host keys"),
        ({"ansible_ssh_host_key_checking": "false"}, "fail", "does not check host keys"),
        ({"edge_source": {"type": "https", "url": "http://mirror/x"}}, "fail", "over plain HTTP"),
        ({"edge_source": {"type": "https", "url": "https://mirror/x", "allow_http": True}}, "fail", "plain HTTP"),
        ({"edge_source": {"type": "https", "url": "https://mirror/x"}}, "pass", "source https"),
        ({"edge_listen": "0.0.0.0"}, "fail", "without TLS: set device_tls or edge_tls"),
        ({"edge_listen": "[::]"}, "fail", "without TLS"),
        ({"edge_listen": "127.0.0.1", "device_listen": "10.0.0.4"}, "fail", "without TLS"),
        ({"edge_listen": "[::1]"}, "pass", "loopback only"),
        ({"edge_listen": "0.0.0.0", "edge_tls": {}}, "fail", "without TLS"),
        ({"edge_listen": "0.0.0.0", "edge_tls": {"certificate": "c.pem"}}, "pass", "has TLS (edge_tls)"),
        ({"edge_listen": None}, "inconclusive", "edge_listen is empty"),
    ],
)
def test_encryption_in_transit(repo: PolicyRepo, values: dict[str, Any], verdict: str, words: str) -> None:
    expect(verdicts("encryption_in_transit", fleet(repo), device(**values)), verdict, words)


def test_encryption_in_transit_by_configuration_and_declaration(repo: PolicyRepo) -> None:
    unchecked = fleet(repo, host_key_checking=False)
    expect(verdicts("encryption_in_transit", unchecked, device()), "fail", "does not check host keys")
    wide = device(edge_listen="0.0.0.0")
    repo.governance["sites"]["harbour"]["encryption_in_transit"] = {"enabled": True, "method": "WireGuard"}
    expect(verdicts("encryption_in_transit", fleet(repo), wide), "pass", "declared: WireGuard")
    repo.governance["sites"]["harbour"]["encryption_in_transit"] = {"enabled": False}
    expect(verdicts("encryption_in_transit", fleet(repo), device()), "fail", "declared: not encrypted in transit")


def mounted(device_name: str, devices: dict[str, Any]) -> dict[str, Any]:
    mounts = [{"mount": "/", "device": "/dev/sda1"}, {"mount": "/var/lib/edgeai", "device": device_name}]
    return {"mounts": mounts, "devices": {"sda": {"partitions": {"sda1": {}, "sda2": {}}}, **devices}}


CRYPT = {"links": {"ids": ["dm-name-data", "dm-uuid-CRYPT-LUKS2-0a1b-data"]}, "holders": ["vg-store"]}
LVM = {"links": {"ids": ["dm-name-vg-store", "dm-uuid-LVM-77"]}, "holders": []}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (mounted("/dev/mapper/data", {"dm-0": CRYPT}), True),
        (mounted("/dev/dm-0", {"dm-0": CRYPT}), True),
        (mounted("/dev/mapper/vg-store", {"dm-0": CRYPT, "dm-1": LVM}), True),
        (mounted("/dev/mapper/vg-store", {"dm-1": LVM}), False),
        (mounted("/dev/sda2", {"dm-0": CRYPT}), False),
        (mounted("overlay", {}), None),
        (mounted("tank/edge", {}), None),
        ({"mounts": []}, None),
        (None, None),
    ],
)
def test_what_facts_say_about_the_disk(facts: Any, expected: bool | None) -> None:
    assert encrypted_at_rest(facts, "/var/lib/edgeai") is expected


# -- ledger, keys, approvals -----------------------------------------------------------------------


def test_audit_trail(repo: PolicyRepo) -> None:
    home, ledger = repo.home, repo.home / "ledger"

    def found(directory: Path | None = ledger, signed: bool = True, key: Path | None = home / "ledger.pub.pem") -> Any:
        facts = gather.gather_ledger(str(directory) if directory else None, signed, str(key) if key else None, PLACE)
        return verdicts("audit_trail", fleet(repo, ledger=facts))

    expect(found(directory=None), "fail", "edge_ledger is not set")
    expect(found(signed=False), "fail", "edge_ledger_key is not set")
    expect(found(key=None), "no_data", "no public key to verify it with")
    expect(found(key=home / "gone.pem"), "no_data", "cannot be verified")
    expect(found(directory=home / "new"), "no_data", "no record yet")
    expect(found(key=home / "release.pub.pem"), "fail", "it does not verify")
    Ledger(str(ledger)).append("verdict", {})
    expect(found(), "fail", "1 records follow the last signature; 0 are allowed")
    file = ledger / "ledger.jsonl"
    file.write_bytes(file.read_bytes().replace(b"amina", b"jonas"))
    expect(found(), "fail", "it does not verify")


def test_audit_trail_is_kept(repo: PolicyRepo) -> None:
    expect(verdicts("audit_trail", fleet(repo), keep_days=3000), "fail", "kept for 2555 days; at least 3000")
    del repo.governance["ledger"]
    expect(verdicts("audit_trail", fleet(repo), keep_days=1), "no_data", "ledger.retention_days is not declared")


@pytest.mark.parametrize(
    ("entry", "verdict", "words"),
    [
        (None, "no_data", "nothing says when it was made"),
        ({"created": day(-366)}, "fail", "is 366 days old; at most 365"),
        ({"created": day(-365)}, "pass", "is 365 of at most 365"),
        ({"created": day(1)}, "fail", "which is to come"),
        ({"created": day(-2)}, "fail", "but it signed something of " + day(-3)),
        ({"created": day(-900), "retired": day(-1)}, "pass", "retired on"),
        ({"created": day(-900), "retired": day(-5)}, "fail", "but it signed something of " + day(-3)),
    ],
)
def test_age_of_a_release_key(repo: PolicyRepo, entry: dict[str, str] | None, verdict: str, words: str) -> None:
    repo.governance["keys"]["release.pub.pem"] = entry
    if entry is None:
        del repo.governance["keys"]["release.pub.pem"]
    over = fleet(repo)
    (key,) = [key for key in over.keys if key.role == "release"]
    expect(verdicts("key_age", over, key), verdict, words)


def test_age_of_a_ledger_key_is_told_by_the_ledger(repo: PolicyRepo) -> None:
    repo.governance["keys"] = {"ledger.pub.pem": {"created": day(-900), "retired": day(-1)}}
    over = fleet(repo)
    (key,) = [key for key in over.keys if key.role == "ledger"]
    assert key.last_used is not None and key.last_used.date() == datetime.datetime.now(datetime.timezone.utc).date()
    expect(verdicts("key_age", over, key), "fail", "retired on")
    repo.governance["keys"] = {str(key.key_id): {"created": CREATED}}
    expect(verdicts("key_age", fleet(repo), key), "pass", "is 20 of")


def test_a_key_that_cannot_be_read(repo: PolicyRepo) -> None:
    (repo.home / "release.pub.pem").write_text("nothing", encoding="utf-8")
    (key,) = gather.gather_keys("release", [str(repo.home / "release.pub.pem")], {}, PLACE)
    assert str(repo.home) not in key.problem
    over = Fleet(now=NOW, governance=read_governance(parsed(repo.governance, "governance.yml")))
    expect(verdicts("key_age", over, key), "no_data", "release.pub.pem")


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (lambda r: r.approvals.clear(), "no_data", "0 of 2 people approved"),
        (lambda r: r.approvals.pop(), "fail", "1 of 2 people approved: amina (not signed)"),
        (lambda r: r.approvals[1].update(approver="amina"), "fail", "1 of 2 people"),
        (lambda r: r.approvals[1].update(approver="eve"), "fail", "eve: not among the approvers in governance.yml"),
        (lambda r: r.approvals[1].update(digest="sha256:" + "0" * 64), "fail", "jonas: it is of other bytes"),
        (lambda r: r.approvals[1].update(time=day(-4) + "T00:00:00Z"), "fail", "older than the release"),
        (lambda r: r.approvals[1].update(time=day(1) + "T00:00:00Z"), "fail", "its time is to come"),
        (lambda r: r.approvals[1].update(signature="AAAA"), "fail", "governance has no public key"),
    ],
)
def test_approvals(repo: PolicyRepo, change: Change, verdict: str, words: str) -> None:
    change(repo)
    expect(verdicts("approvals", fleet(repo)), verdict, words)


def test_signed_approvals(repo: PolicyRepo) -> None:
    expect(verdicts("approvals", fleet(repo), signed=True), "fail", "amina: it is not signed")
    for entry in repo.approvals:
        repo.sign(entry)
    expect(verdicts("approvals", fleet(repo), signed=True), "pass", "amina (signed), jonas (signed)")
    entry = repo.approvals[1]
    for change in ({"time": day(0) + "T00:00:00Z"}, {"signature": "!!"}, {"signature": repo.approvals[0]["signature"]}):
        before = dict(entry)
        entry.update(change)
        expect(verdicts("approvals", fleet(repo)), "fail", "jonas: the signature does not fit")
        entry.update(before)
    del entry["signature"]
    expect(verdicts("approvals", fleet(repo)), "fail", "not signed, though this approver has a public key")
    (repo.home / "jonas.pub.pem").unlink()
    entry["signature"] = "AAAA"
    expect(verdicts("approvals", fleet(repo)), "fail", "cannot be read")


def test_approvals_of_a_plan(repo: PolicyRepo) -> None:
    plan = {"model": "digits", "version": "1.0.0", "digest": repo.digest, "plan_hash": "sha256:" + "1" * 64}
    expect(verdicts("approvals", fleet(repo), plan=True), "no_data", "no plan of this release was given")
    expect(verdicts("approvals", fleet(repo, plan), plan=True), "fail", "it names no plan")
    for entry in repo.approvals:
        entry["plan_hash"] = plan["plan_hash"]
    expect(verdicts("approvals", fleet(repo, plan), plan=True), "pass", "amina")
    repo.approvals[0]["plan_hash"] = "sha256:" + "2" * 64
    expect(verdicts("approvals", fleet(repo, plan)), "fail", "amina: it is of another plan")


def test_approvals_of_a_release_that_does_not_verify(repo: PolicyRepo) -> None:
    (repo.release / "model.sig").unlink()
    expect(verdicts("approvals", fleet(repo)), "fail", "it cannot be approved as it is")


def test_plans_that_are_refused(repo: PolicyRepo) -> None:
    path = repo.home / "plan.json"
    over = fleet(repo)
    good = {"model": "digits", "version": "1.0.0", "digest": repo.digest, "plan_hash": "sha256:" + "1" * 64}
    path.write_text(json.dumps({"changed": False, "plan": good}), encoding="utf-8")
    assert gather.read_plan(str(path)) == good
    gather.check_plan(good, over.releases, "plan.json")
    with pytest.raises(gather.PolicyError, match=r"'digest' is 'sha256:0+': the release is sha256:.*make the plan"):
        gather.check_plan({**good, "digest": "sha256:" + "0" * 8}, over.releases, "plan.json")
    with pytest.raises(gather.PolicyError, match=r"field 'version' is '2\.0\.0'"):
        gather.check_plan({**good, "version": "2.0.0"}, over.releases, "plan.json")
    for text, words in (
        ("[]", "is no mapping"),
        ("{}", "field 'model' is None"),
        ("{", "is not JSON"),
        ('{"a":1,"a":2}', "twice"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(gather.PolicyError, match=words):
            gather.read_plan(str(path))


# -- conditions of a team's own --------------------------------------------------------------------


def test_require(repo: PolicyRepo) -> None:
    over = fleet(repo, plan={"waves": [{"hosts": ["a"]}]})
    soak = (Condition("edge_policy.soak", "at_least", 300),)

    def found(subject: Any, must: Any, of: str = "device", when: Any = ()) -> list[tuple[str, str]]:
        parameters = {"of": of, "must": must, "when": when}
        return [(r.verdict, r.message) for r in CHECKS["require"].function(parameters, over, subject)]

    expect(found(device(edge_policy={"soak": 300}), soak), "pass", "holds: edge_policy.soak at least 300")
    expect(found(device(edge_policy={"soak": 7}), soak), "fail", "does not hold: edge_policy.soak at least 300")
    expect(found(device(), soak), "no_data", "not there to judge")
    only = (Condition("edge_site", "equals", "harbour"),)
    assert found(device(edge_site="quarry"), soak, when=only) == []
    budget = (Condition("budgets.default.accuracy_drop", "at_most", 0.05),)
    expect(found(over.releases[0], budget, "release"), "pass", "accuracy_drop at most 0.05")
    expect(
        found(over.releases[0], (Condition("variants.*.precision", "one_of", ["fp32"]),), "release"),
        "fail",
        "one of fp32",
    )
    expect(found("digits", (Condition("regions", "present", True),), "model"), "pass", "regions is there")
    expect(found(device(), (Condition("region", "matches", "eu-.*"),), "site"), "pass", "")
    expect(
        found(device(site="moon"), (Condition("region", "matches", "eu-.*"),), "site"), "no_data", "nothing to look at"
    )
    expect(found(None, (Condition("waves.0.hosts.0", "equals", "b"),), "plan"), "fail", "")
    over = fleet(repo)
    expect(found(None, (Condition("waves", "present", True),), "plan"), "no_data", "nothing to look at")


def test_values_of_variables_are_never_shown(repo: PolicyRepo) -> None:
    secret = "hunter2-very-secret"
    values = {"edge_token": secret, "edge_source": {"type": "https", "url": f"http://u:{secret}@mirror/"}}
    for operator, operand in (
        ("equals", "x"),
        ("one_of", ["x"]),
        ("matches", "x+"),
        ("at_least", 3),
        ("present", False),
    ):
        parameters = {"of": "device", "must": (Condition("edge_token", operator, operand),), "when": ()}
        (result,) = CHECKS["require"].function(parameters, fleet(repo), device(**values))
        assert result.verdict == "fail" and secret not in str(result)
    assert secret not in str(verdicts("encryption_in_transit", fleet(repo), device(**values)))


def test_only_variables_that_a_rule_names_are_read() -> None:
    condition = (Condition("a.b", "present", True),)
    rule = SimpleNamespace(
        check="require",
        parameters={"of": "device", "must": condition, "when": (Condition("c", "equals", 1),)},
    )
    assert variables_of([rule]) - variables_of([]) == {"a", "c"}
    assert "ansible_password" not in variables_of([rule])
