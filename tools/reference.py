# Copyright: (c) 2026, edgeai.fleet contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Write docs/reference from what plugins and roles say about themselves, and playbooks in their first lines.

.venv/bin/python tools/reference.py [--check]

--check writes nothing and fails when a page is not as it would be written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLLECTION = "edgeai.fleet"
DEST = ROOT / "docs" / "reference"
MARK = "<!-- Written by tools/reference.py. Do not edit. -->"
#: ansible-doc's kind of plugin -> the directory and title of its pages. A module's action plugin is its other half.
KINDS = {
    "module": ("modules", "Modules"),
    "lookup": ("lookups", "Lookups"),
    "filter": ("filters", "Filters"),
    "test": ("tests", "Tests"),
    "callback": ("callbacks", "Callbacks"),
    "inventory": ("inventories", "Inventory plugins"),
}
_CODE = re.compile(r"(?:[CVOEP]|RV)\(((?:[^()\\]|\\.|\([^()]*\))*)\)")
_LINK = re.compile(r"L\(([^,()]+),\s*([^()]+)\)")


def documentation(root: Path = ROOT) -> dict[str, Any]:
    """What ansible-doc knows of the collection below ``root``. Raises CalledProcessError when it cannot be read."""
    environment = {**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_DEPRECATION_WARNINGS": "0"}
    environment["ANSIBLE_COLLECTIONS_PATH"] = str(root / ".ansible" / "collections")
    program = Path(sys.executable).parent / "ansible-doc"
    done = subprocess.run(
        [str(program), "--metadata-dump", COLLECTION],
        env=environment, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)["all"]


def plain(text: str) -> str:
    """Ansible's markup as Markdown."""
    text = _LINK.sub(r"[\1](\2)", text)
    text = re.sub(r"\bU\(([^()]+)\)", r"<\1>", text)
    text = re.sub(r"\bM\(([^()]+)\)", r"`\1`", text)
    text = re.sub(r"\bB\(([^()]+)\)", r"**\1**", text)
    text = re.sub(r"\bI\(([^()]+)\)", r"*\1*", text)
    return _CODE.sub(lambda match: f"`{_value(match.group(1))}`", text)


def _value(text: str) -> str:
    """Without escapes, and without the plugin an option belongs to where it is this collection's."""
    text = re.sub(r"\\(.)", r"\1", text)
    return re.sub(
        rf"^{re.escape(COLLECTION)}\.(\w+)#\w+(?::(.+))?$", lambda m: f"{m[1]} {m[2]}" if m[2] else m[1], text
    )


def paragraphs(value: Any) -> list[str]:
    """A description, which may be a text or a list of them."""
    texts = [value] if isinstance(value, str) else value or []
    return [plain(" ".join(str(text).split())) for text in texts]


def cell(texts: Sequence[str]) -> str:
    """Several paragraphs in one cell of a table."""
    return "<br>".join(text.replace("|", "\\|") for text in texts)


def shown(value: Any) -> str:
    """A value as it is written in YAML."""
    if isinstance(value, str) and value and "\n" not in value:
        return f"`{value}`".replace("|", "\\|")
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"`{text}`".replace("|", "\\|")


def options(found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Rows of the table of options; those of a dictionary follow it."""
    for name, option in sorted(found.items()):
        kind = str(option.get("type", "str"))
        if option.get("elements"):
            kind += f" of {option['elements']}"
        texts = paragraphs(option.get("description"))
        choices = option.get("choices")
        if isinstance(choices, Mapping):
            texts += [f"{shown(key)}: {' '.join(paragraphs(text))}" for key, text in choices.items()]
        elif choices:
            texts.append("One of " + ", ".join(map(shown, choices)))
        texts += [f"Environment: `{item['name']}`" for item in option.get("env") or ()]
        texts += [f"ansible.cfg: `[{item['section']}] {item['key']}`" for item in option.get("ini") or ()]
        default = "required" if option.get("required") else shown(option["default"]) if "default" in option else ""
        if option.get("default") is None and not option.get("required"):
            default = ""
        yield f"| `{prefix}{name}` | {kind} | {default} | {cell(texts)} |"
        inner = option.get("suboptions") or option.get("options") or {}
        yield from options(inner, f"{prefix}{name}.")


def returned(found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Rows of the table of what is returned."""
    for name, item in sorted(found.items()):
        texts = paragraphs(item.get("description"))
        yield f"| `{prefix}{name}` | {item.get('type', '')} | {plain(str(item.get('returned', '')))} | {cell(texts)} |"
        yield from returned(item.get("contains") or {}, f"{prefix}{name}.")


def table(head: str, rows: Iterator[str]) -> list[str]:
    """A table with its head, nothing when there are no rows."""
    lines = list(rows)
    return ["", head, "| " + " | ".join(["---"] * (head.count("|") - 1)) + " |", *lines] if lines else []


def plugin_page(name: str, found: Mapping[str, Any]) -> str:
    """The page of a module or plugin."""
    doc = found["doc"]
    lines = [MARK, "", f"# {COLLECTION}.{name}", "", plain(str(doc.get("short_description", ""))), ""]
    lines += [f"- {text}" for text in paragraphs(doc.get("description"))]
    needs = paragraphs(doc.get("requirements"))
    lines += ["", "Needs: " + "; ".join(needs)] if needs else []
    rows = table("| option | type | default | |", options(doc.get("options") or {}))
    lines += ["", "## Options", *rows] if rows else []
    rows = table("| | support | |", _attributes(doc.get("attributes") or {}))
    lines += ["", "## Attributes", *rows] if rows else []
    notes = paragraphs(doc.get("notes"))
    lines += ["", "## Notes", "", *(f"- {text}" for text in notes)] if notes else []
    if found.get("examples"):
        lines += ["", "## Examples", "", "```yaml", str(found["examples"]).strip(), "```"]
    rows = table("| returned | type | when | |", returned(found.get("return") or {}))
    lines += ["", "## Returns", *rows] if rows else []
    return "\n".join(lines) + "\n"


def _attributes(found: Mapping[str, Any]) -> Iterator[str]:
    for name, item in sorted(found.items()):
        texts = paragraphs(item.get("description")) + paragraphs(item.get("details"))
        yield f"| {name} | {item.get('support', '')} | {cell(texts)} |"


def role_page(name: str, entries: Mapping[str, Any]) -> str:
    """The page of a role, with every entry point."""
    lines = [MARK, "", f"# Role {COLLECTION}.{name}"]
    if (ROOT / "roles" / name / "README.md").exists():
        lines += ["", f"[What it does](../../../roles/{name}/README.md)"]
    for entry, spec in sorted(entries.items(), key=lambda item: (item[0] != "main", item[0])):
        lines += ["", f"## Entry point {entry}", "", plain(str(spec.get("short_description", "")))]
        texts = paragraphs(spec.get("description"))
        lines += ["", *(f"- {text}" for text in texts)] if texts else []
        lines += table("| variable | type | default | |", options(spec.get("options") or {}))
    return "\n".join(lines) + "\n"


def playbooks(root: Path) -> dict[str, str]:
    """Playbook -> what its first comment says."""
    found = {}
    for path in sorted((root / "playbooks").glob("*.yml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [line.lstrip("#").removeprefix(" ") for line in _comment(lines)]
        found[path.stem] = "\n".join(head).strip()
    return found


def _comment(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[1:] if lines[:1] == ["---"] else lines:
        if not line.startswith("#"):
            return
        yield line


def playbook_page(found: Mapping[str, str]) -> str:
    """One page with every playbook."""
    lines = [MARK, "", "# Playbooks"]
    for name, text in found.items():
        lines += ["", f"## {COLLECTION}.{name}", "", "```text", text, "```"]
    return "\n".join(lines) + "\n"


def pages(root: Path = ROOT) -> dict[str, str]:
    """Every page: path below docs/reference -> content."""
    found = documentation(root)
    made = {"playbooks.md": playbook_page(playbooks(root))}
    index = [MARK, "", "# Reference", "", "Also on the command line: `ansible-doc edgeai.fleet.NAME`."]
    index += ["", "## Playbooks", "", "[Every playbook, with its variables](playbooks.md)"]
    for kind, (folder, title) in KINDS.items():
        plugins = {name.removeprefix(f"{COLLECTION}."): item for name, item in (found.get(kind) or {}).items()}
        if plugins:
            index += ["", f"## {title}", "", "| | |", "| --- | --- |"]
        for name, item in sorted(plugins.items()):
            made[f"{folder}/{name}.md"] = plugin_page(name, item)
            index.append(f"| [{name}]({folder}/{name}.md) | {plain(item['doc'].get('short_description', ''))} |")
    index += ["", "## Roles", "", "| | |", "| --- | --- |"]
    for full, item in sorted((found.get("role") or {}).items()):
        name = full.removeprefix(f"{COLLECTION}.")
        made[f"roles/{name}.md"] = role_page(name, item["entry_points"])
        main = item["entry_points"].get("main") or next(iter(item["entry_points"].values()))
        index.append(f"| [{name}](roles/{name}.md) | {plain(main.get('short_description', ''))} |")
    made["index.md"] = "\n".join(index) + "\n"
    return made


def written(root: Path = ROOT) -> dict[str, str]:
    """Every page as it is in the repository."""
    base = root / "docs" / "reference"
    return {str(path.relative_to(base)): path.read_text(encoding="utf-8") for path in sorted(base.rglob("*.md"))}


def differences(root: Path = ROOT) -> list[str]:
    """Pages that are missing, left over or different."""
    wanted, there = pages(root), written(root)
    return sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a page is not up to date")
    if parser.parse_args().check:
        found = differences()
        print("\n".join(f"docs/reference/{name} is not up to date: run make reference" for name in found))
        return 1 if found else 0
    wanted = pages()
    for name in set(written()) - set(wanted):
        (DEST / name).unlink()
    for name, content in wanted.items():
        path = DEST / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
