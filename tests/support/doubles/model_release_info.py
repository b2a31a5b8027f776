"""Stands in for model_release_info: the facts the test wrote down, with the state of the other double."""

from __future__ import annotations

import json
import os

from ansible.module_utils.basic import AnsibleModule


def main():
    module = AnsibleModule(argument_spec={"edge_root": {"type": "path"}, "model": {}}, supports_check_mode=True)
    root = module.params["edge_root"]
    with open(os.path.join(root, "facts.json")) as handle:
        device = json.load(handle)
    try:
        with open(os.path.join(root, "double.json")) as handle:
            state = json.load(handle)
    except OSError:
        state = {"active": "sha256:old", "unconfirmed": None}
    named = {
        name: {"version": "1", "digest": state[name]} if state.get(name) else None for name in ("active", "unconfirmed")
    }
    device["models"] = {
        "digits": {**named, "quarantine": [], "security_counter": 0, "serving": {"digest": state["active"]}}
    }
    module.exit_json(changed=False, device=device)


if __name__ == "__main__":
    main()
