"""Read a declarative Jenkinsfile and run its steps as a multibranch job would. It is not Jenkins.

Only what a fleet repository's Jenkinsfile says is known; anything else in it is an error, so that it cannot drift.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

TOKEN = re.compile(
    r"""//[^\n]* | [ \t]+ | (?P<text>'[^'\n]*'|"[^"\n]*") | (?P<word>[\w.]+)
    | (?P<sign>[{}()\[\]:,=!]) | (?P<line>\n)""",
    re.VERBOSE,
)
SAID_BY_HEAD = "! sh ( script : TEXT , returnStdout : true ) .contains ( TEXT )"


@dataclass
class Node:
    """A statement: its name, what stands behind it, and what is in its braces."""

    name: str
    words: list[str] = field(default_factory=list)
    inside: list[Node] = field(default_factory=list)

    def one(self, name: str) -> Node:
        """The node of that name in the braces; an empty one when there is none."""
        found = [node for node in self.inside if node.name == name]
        assert len(found) <= 1, f"{self.name} has {len(found)} times {name}"
        return found[0] if found else Node(name)

    def only(self, *names: str) -> None:
        """Fail when the braces hold what nobody here knows."""
        unknown = {node.name for node in self.inside} - set(names)
        assert not unknown, f"{self.name} {{ {sorted(unknown)} }} is not known here"

    def texts(self) -> list[str]:
        """The literals behind the name, without their quotes."""
        return [word[1:-1] for word in self.words if word[0] in "'\""]


def parse(source: str) -> Node:
    """Return the pipeline of a Jenkinsfile."""
    tokens = _tokens(source)
    top = Node("file", inside=list(_statements(tokens)))
    top.only("pipeline")
    return top.one("pipeline")


def _tokens(source: str) -> Iterator[str]:
    place = 0
    while place < len(source):
        match = TOKEN.match(source, place)
        assert match, f"not known here: {source[place : place + 40]!r}"
        place = match.end()
        if match.lastgroup:
            yield match.group(match.lastgroup)


def _statements(tokens: Iterator[str]) -> Iterator[Node]:
    node: Node | None = None
    depth = 0
    for token in tokens:
        if node is None:
            if token == "}":
                return
            node = Node(token) if token != "\n" else None
        elif token == "{":
            node.inside = list(_statements(tokens))
            yield node
            node = None
        elif token in "}\n" and depth == 0:
            yield node
            node = None
            if token == "}":
                return
        else:
            depth += (token in "([") - (token in ")]")
            node.words.append(token)
    if node is not None:
        yield node


@dataclass
class Build:
    """One build: what it knows of its change, and its ways to run a step, to read an output and to keep files."""

    environment: dict[str, str]
    parameters: Mapping[str, bool]
    run: Callable[[str, str, Mapping[str, str]], bool]
    output: Callable[[str], str]
    keep: Callable[[list[str]], None]
    credentials: Mapping[str, str]

    def go(self, pipeline: Node) -> bool:
        """Run the stages in their order, each behind those that went well; what stands in ``post`` runs always."""
        pipeline.only("agent", "options", "parameters", "environment", "stages", "post")
        pipeline.one("options").only("disableConcurrentBuilds", "timestamps")
        pipeline.one("stages").only("stage")
        pipeline.one("parameters").only("booleanParam")
        declared = {node.texts()[0] for node in pipeline.one("parameters").inside}
        assert set(self.parameters) <= declared, declared
        environment = {**self.environment, **self._environment(pipeline.one("environment"), self.environment)}
        ok = True
        for stage in pipeline.one("stages").inside:
            stage.only("when", "environment", "steps", "post")
            if ok and self._met(stage.one("when").inside):
                ok = self._stage(stage, environment)
        return self._steps("post", pipeline.one("post"), environment) and ok

    def _stage(self, stage: Node, environment: dict[str, str]) -> bool:
        name = stage.texts()[0]
        environment = {**environment, **self._environment(stage.one("environment"), environment)}
        ok = all(self._step(name, step, environment) for step in stage.one("steps").inside)
        return self._steps(name, stage.one("post"), environment) and ok

    def _steps(self, name: str, post: Node, environment: dict[str, str]) -> bool:
        post.only("always")
        ended = [self._step(name, step, environment) for step in post.one("always").inside]
        return all(ended)

    def _step(self, name: str, step: Node, environment: dict[str, str]) -> bool:
        if step.name == "archiveArtifacts":
            self.keep(step.texts()[:1])
            return True
        assert step.name == "sh" and len(step.words) == 1, step
        return self.run(name, step.texts()[0], environment)

    def _met(self, conditions: list[Node]) -> bool:
        return all(self._condition(node) for node in conditions)

    def _condition(self, node: Node) -> bool:
        if node.name == "allOf":
            return self._met(node.inside)
        if node.name == "anyOf":
            return any(self._condition(one) for one in node.inside)
        if node.name == "branch":
            return "CHANGE_ID" not in self.environment and node.texts() == [self.environment["BRANCH_NAME"]]
        if node.name == "changeRequest":
            assert node.words[:2] == ["target", ":"], node
            return node.texts() == [self.environment.get("CHANGE_TARGET", "")]
        assert node.name == "expression", node
        [expression] = node.inside
        if expression.name == "!":
            words = ["TEXT" if word[0] == "'" else word for word in ["!", *expression.words]]
            assert " ".join(words) == SAID_BY_HEAD, words
            command, text = expression.texts()
            return text not in self.output(command)
        return self.parameters.get(expression.name.removeprefix("params."), False)

    def _environment(self, node: Node, known: Mapping[str, str]) -> dict[str, str]:
        return {entry.name: self._value(entry.words, known) for entry in node.inside}

    def _value(self, words: list[str], known: Mapping[str, Any]) -> str:
        assert words[0] == "=", words
        text = words[-1][1:-1] if len(words) == 2 else words[-2][1:-1]
        if words[1] == "credentials":
            return self.credentials[text]
        if words[1][0] == "'":
            return text
        return re.sub(r"\$\{env\.(\w+)\}", lambda match: str(known[match.group(1)]), text)
