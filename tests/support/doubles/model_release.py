"""Stands in for the device's half of model_release: keeps a tiny state, writes down every call, does as it is told.

``<edge_root>/behave.json`` maps a state to: fail (a gate fails, went back), error (fails, nothing known), wait (opens
``<edge_root>/go`` for reading, a FIFO: goes on when somebody opens it for writing).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os

from ansible.module_utils.basic import AnsibleModule


def load(path, default):
    try:
        with open(path) as handle:
            return json.load(handle)
    except OSError:
        return default


def store(path, value):
    with open(path + ".new", "w") as handle:
        json.dump(value, handle)
    os.rename(path + ".new", path)


def gate(phase, digest, verdict="pass"):
    value = 0.5 if verdict == "fail" else 0.98
    return {
        "gate": "golden", "verdict": verdict, "phase": phase, "value": value, "limit": 0.96,
        "unit": "score", "samples": 64, "reason": "too low" if verdict == "fail" else "",
        "evidence": {"digest": digest, "start_id": "s1", "boot_id": "b1", "time": "2026-11-23T11:00:00Z"},
    }  # fmt: skip


def push(module, root):
    """The device's half of a push: which blobs are missing, then take them from the inbox and check them."""
    source = module.params["source"]
    manifest = json.loads(base64.b64decode(source["manifest"]))
    base64.b64decode(source["signature"])
    blobs = os.path.join(root, "blobs")
    os.makedirs(blobs, exist_ok=True)
    wanted = manifest["variants"][0]["files"] + [{k: manifest["golden"][k] for k in ("path", "sha256", "size")}]
    missing = [entry for entry in wanted if not os.path.exists(os.path.join(blobs, entry["sha256"]))]
    if source.get("plan") and missing:
        module.exit_json(changed=False, missing=missing)
    for entry in missing:
        name = os.path.join(source["inbox"], entry["sha256"])
        if not os.path.exists(name):
            module.fail_json(msg="not in the inbox: " + entry["path"], result="refused", code="digest_mismatch")
        with open(name, "rb") as handle:
            content = handle.read()
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            module.fail_json(msg="damaged on the way", result="refused", code="digest_mismatch")
        with open(os.path.join(blobs, entry["sha256"]), "wb") as handle:
            handle.write(content)
    return sum(entry["size"] for entry in missing)


def main():
    module = AnsibleModule(
        argument_spec={
            "edge_root": {"type": "path"}, "model": {}, "version": {}, "state": {"default": "active"}, "digest": {},
            "source": {"type": "dict"}, "rollout_id": {}, "stratum": {}, "confirm_within": {"type": "int"},
            "gate": {"type": "dict"}, "controller_time": {}, "quarantine": {"type": "bool"}, "reason": {},
            "timeout": {"type": "int"}, "lift_quarantine": {"type": "bool"},
        },
        supports_check_mode=True,
    )  # fmt: skip
    root, state, digest = module.params["edge_root"], module.params["state"], module.params["digest"]
    path = os.path.join(root, "double.json")
    device = load(path, {"active": "sha256:old", "unconfirmed": None})
    how = load(os.path.join(root, "behave.json"), {}).get(state)
    with open(os.path.join(root, "calls.jsonl"), "a") as calls:
        calls.write(
            json.dumps(
                {
                    "state": state,
                    "source": module.params["source"],
                    "how": how,
                    "check": module.check_mode,
                    "lift": module.params["lift_quarantine"],
                }
            )
            + "\n"
        )
    if module.check_mode:
        module.exit_json(changed=state == "active" and device["active"] != digest, result="activated")
    server = {"digest": digest, "start_id": "s1", "boot_id": "b1"}
    sent = push(module, root) if (module.params["source"] or {}).get("type") == "push" else 0
    common = {
        "server": server,
        "transfer": {"bytes": sent, "reused_bytes": 0, "blobs": 0},
        "durations_ms": {"gate": 1.0},
    }
    if how == "quarantined" and not module.params["lift_quarantine"]:
        module.fail_json(msg="quarantined here", result="refused", code="quarantined")
    if how == "error":
        module.fail_json(msg="something broke", code="server", **common)
    if how == "fail":
        gates = [gate("candidate", digest, "fail")]
        module.fail_json(msg="gate golden failed", result="reverted", reverted=True, gates=gates, code="gate", **common)
    if how == "wait":
        with open(os.path.join(root, "started"), "w"):
            pass
        with open(os.path.join(root, "go")) as go:
            go.read()
    if state == "active":
        changed = device["active"] != digest
        store(path, {"active": digest, "previous": device["active"], "unconfirmed": digest})
        module.exit_json(
            changed=changed,
            result="activated" if changed else "unchanged",
            gates=[gate("serving", digest)] if changed else [],
            active={"digest": digest},
            golden_before="aa",
            **common,
        )
    if state == "confirmed":
        store(path, {**device, "unconfirmed": None})
        module.exit_json(
            changed=True, result="confirmed", gates=[gate("soak", digest)], active={"digest": digest}, **common
        )
    on_it = device["active"] == digest
    if on_it:
        store(path, {"active": device["previous"], "unconfirmed": None})
    module.exit_json(changed=on_it, result="reverted" if on_it else "unchanged", golden_restored=on_it or None)


if __name__ == "__main__":
    main()
