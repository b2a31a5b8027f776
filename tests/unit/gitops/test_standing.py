"""What git has to say about a release after the ledger has spoken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.modules import run_module

from ansible_collections.edgeai.fleet.plugins.module_utils.gitops import desiredfile, standing
from ansible_collections.edgeai.fleet.plugins.module_utils.gitops.errors import RepoError
from ansible_collections.edgeai.fleet.plugins.module_utils.rollout.ledger import Ledger

TEXT = """---
# what production wants
edge_models:
  lidar:
    release: "3.0.0"
  camera:  # the one that matters
    # a note of ours
    release: "1.1.0"  # see ticket 4711
other: 1
"""


class Story:
    """A ledger, told in a few words."""

    def __init__(self, home: Path) -> None:
        self.ledger = Ledger(str(home / "ledger"))
        self.models_file = home / "models.yml"
        self.models_file.write_text(TEXT)

    def rollout(
        self,
        version: str,
        status: str | None,
        confirmed: str = "",
        back: str = "",
        refused: str = "",
        model: str = "camera",
    ) -> None:
        about = {"model": model, "version": version, "digest": f"sha256:{version}"}
        rollout = f"{model}-{version}"
        self.ledger.append("rollout_started", {**about, "plan_hash": "sha256:p", "plan": {"unchanged": []}}, rollout)
        for host in confirmed.split():
            self.ledger.append(
                "result", {**about, "action": "confirm", "result": "confirmed", "failed": False}, rollout, host
            )
        for host in back.split():
            data = {**about, "action": "activate", "failed": True, "reverted": True, "result": "reverted"}
            self.ledger.append("result", data, rollout, host)
        for stratum in refused.split():
            self.ledger.append(
                "quarantine", {**about, "stratum": stratum, "reason": "golden: 0.2 | below {{ 0.9 }}"}, rollout
            )
        if status:
            self.ledger.append("rollout_finished", {**about, "status": status}, rollout)

    def write(self, check: bool = False) -> dict[str, Any]:
        arguments = {"ledger": self.ledger.directory, "models_file": str(self.models_file), "environment": "production"}
        return run_module("repo_writeback", arguments, check=check)

    def release(self) -> str:
        return yaml.safe_load(self.models_file.read_text())["edge_models"]["camera"]["release"]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_what_the_fleet_took_needs_no_word(story: Story) -> None:
    story.rollout("1.1.0", "succeeded", confirmed="a b")
    done = story.write()
    assert (
        not done["changed"] and done["verdicts"]["camera"]["action"] == "fine" and story.models_file.read_text() == TEXT
    )


def test_refused_by_everyone_goes_back_to_what_is_served(story: Story) -> None:
    story.rollout("1.0.0", "succeeded", confirmed="a b")
    story.rollout("1.1.0", "halted", back="a", refused="cpu/ort cpu-int8/ort")
    predicted = story.write(check=True)
    assert predicted["changed"] and story.models_file.read_text() == TEXT
    done = story.write()
    assert done["verdicts"]["camera"]["action"] == "reverted" and story.release() == "1.0.0"
    text = story.models_file.read_text()
    assert text.replace('"1.0.0"', '"1.1.0"').splitlines()[-2:] == TEXT.splitlines()[-2:]
    assert "    # a note of ours\n    # edgeai: 1.1.0 was refused by cpu/ort" in text
    refused = yaml.safe_load((story.models_file.parent / "refused.yml").read_text().replace("!unsafe ", ""))[
        "edge_refused"
    ]
    assert [entry["stratum"] for entry in refused] == ["cpu/ort", "cpu-int8/ort"]
    assert refused[0]["reason"] == "golden: 0.2 | below {{ 0.9 }}"
    assert done["message"].startswith("production: camera 1.1.0 refused, back on 1.0.0\n")
    assert "Edge-Rollout: camera-1.1.0\n" in done["message"]
    again = story.write()
    assert not again["changed"] and story.models_file.read_text() == text


def test_refused_by_some_stays_with_the_reason_above(story: Story) -> None:
    story.rollout("1.0.0", "succeeded", confirmed="a b")
    story.rollout("1.1.0", "halted", confirmed="a", back="b", refused="cpu/ort")
    done = story.write()
    assert done["verdicts"]["camera"]["action"] == "annotated" and story.release() == "1.1.0"
    assert "# edgeai: 1.1.0 is refused by cpu/ort" in story.models_file.read_text()
    story.ledger.append(
        "quarantine_lifted",
        {"model": "camera", "version": "1.1.0", "digest": "sha256:1.1.0", "stratum": "cpu/ort"},
        "x",
    )
    story.rollout("1.1.0", "succeeded", confirmed="b")
    assert story.write()["changed"] and story.models_file.read_text() == TEXT
    assert "edge_refused: []" in (story.models_file.parent / "refused.yml").read_text()


def test_a_first_release_that_is_refused_is_named_as_such(story: Story) -> None:
    story.rollout("1.1.0", "halted", back="a", refused="cpu/ort")
    assert story.write()["verdicts"]["camera"]["action"] == "annotated" and story.release() == "1.1.0"
    assert "no device has it" in story.models_file.read_text()


def test_git_never_goes_back_to_another_release_that_is_refused(story: Story) -> None:
    story.rollout("0.9.0", "succeeded", confirmed="a b c")
    story.rollout("1.0.0", "halted", confirmed="a b", refused="gpu/trt")
    story.rollout("1.1.0", "halted", back="a", refused="cpu/ort gpu/trt")
    assert story.write()["verdicts"]["camera"]["release"] == "0.9.0"


def test_a_rollout_that_proved_nothing_is_noted(story: Story) -> None:
    story.rollout("1.0.0", "succeeded", confirmed="a")
    story.rollout("1.1.0", "halted", back="a")
    done = story.write()
    assert story.release() == "1.1.0" and "1.1.0 was halted" in done["verdicts"]["camera"]["note"]


def test_a_confirmed_release_that_is_taken_back_counts_no_more(story: Story) -> None:
    story.rollout("1.0.0", "succeeded", confirmed="a b")
    story.rollout("1.1.0", "halted", confirmed="a", refused="cpu/ort")
    data = {"model": "camera", "version": "1.1.0", "digest": "sha256:1.1.0", "action": "revert", "failed": False}
    story.ledger.append("result", {**data, "result": "reverted"}, "camera-1.1.0", "a")
    assert standing.read_standing(story.ledger.records(), "camera").versions() == {"1.0.0": 2}
    assert story.write()["verdicts"]["camera"]["action"] == "reverted"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('edge_models: {camera: {release: "1.0.0"}}\n', "three lines"),
        ('edge_models:\n  camera: {release: "1.0.0"}\n', "three lines"),
        ("edge_models:\n  camera:\n    release: 1.0\n", "in quotes"),
        ("edge_models: [camera]\n", "not a mapping"),
        ('edge_models:\n  camera:\n    release: &x "1.0.0"\n', "three lines|not a plain"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_file_that_cannot_be_edited_by_line_is_left_alone(text: str, named: str) -> None:
    with pytest.raises(RepoError, match=named):
        desiredfile.set_release(text, "camera", "2.0.0", "", "models.yml")


@pytest.mark.parametrize("quote", ['"', "'"])
def test_only_the_line_changes(quote: str) -> None:
    text = f"edge_models:\n\n  'camera':\n    # edgeai: old\n    # edgeai: more\n    release: {quote}1.0.0{quote}\n\n\n"
    new = desiredfile.set_release(text, "camera", "2.0.0", "because: \n- it\x07 broke", "models.yml")
    assert new == "edge_models:\n\n  'camera':\n    # edgeai: because: - it broke\n    release: \"2.0.0\"\n\n\n"


def test_the_refused_file_is_data_and_no_template() -> None:
    entry = {
        "model": "m",
        "version": "1",
        "digest": "d",
        "stratum": "s",
        "reason": 'x: "{{ lookup(1) }}"\n# y',
        "rollout": None,
    }
    text = desiredfile.refused_file([entry])
    assert 'reason: !unsafe "x: \\"{{ lookup(1) }}\\" # y"' in text
    assert yaml.safe_load(text.replace("!unsafe ", ""))["edge_refused"][0]["rollout"] is None
