"""The rules for secret scanners in `deploy/scanners/`: each finds every token of ours, and little else."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
import types
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from authz_service.tokens.secret import new_secret

FOLDER = Path(__file__).parents[2] / "deploy" / "scanners"
KIDS = ("k1", "a", "2026", "pepper12")
TOKENS = [new_secret("azt", kid).reveal() for kid in KIDS for _ in range(250)]
PLACES = (
    "{}",
    "AUTHZ_TOKEN={}",
    'token: "{}"',
    "curl -H 'Authorization: Bearer {}' https://authz.example.com",
    "https://user:{}@host/",
    '{{"token": "{}"}}',
    "- {},",
    "first\n{}\nlast",
)
ALIKE = (
    "azt_k1_",
    "azt_K1_" + "a" * 49,
    "azt_k1_" + "a" * 48,
    "azt_k1_" + "a" * 50,
    "azt_toolongkid_" + "a" * 49,
    "azt-k1-" + "a" * 49,
    "AZT_k1_" + "a" * 49,
    "azt_k1_" + "ä" * 49,
    "xazt_k1_" + "a" * 49,
    "glpat-" + "a" * 20,
    "ghp_" + "a" * 36,
    "tok_" + "a" * 22,
)


def gitleaks() -> str:
    [rule] = tomllib.loads((FOLDER / "gitleaks.toml").read_text())["rules"]
    assert all(token.startswith(tuple(rule["keywords"])) for token in TOKENS)
    assert rule["secretGroup"] == 1
    return rule["regex"]


def trufflehog() -> str:
    [detector] = YAML(typ="safe").load((FOLDER / "trufflehog.yaml").read_text())["detectors"]
    assert all(token.startswith(tuple(detector["keywords"])) for token in TOKENS)
    [pattern] = detector["regex"].values()
    return pattern


def github() -> str:
    form = json.loads((FOLDER / "github-custom-pattern.json").read_text())
    before, after = (form[name].replace(r"\z", r"\Z") for name in ("before_secret", "after_secret"))
    return f"(?:{before})({form['secret_format']})(?:{after})"


PATTERNS = {"gitleaks": gitleaks(), "trufflehog": trufflehog(), "github": github()}


@pytest.fixture(params=PATTERNS)
def pattern(request) -> re.Pattern[str]:
    return re.compile(PATTERNS[request.param])


def test_every_token_is_found_wherever_it_stands(pattern):
    for number, token in enumerate(TOKENS):
        text = PLACES[number % len(PLACES)].format(token)
        assert [match[1] for match in pattern.finditer(text)] == [token], text


def test_what_only_looks_like_a_token_is_not_found(pattern):
    for text in ALIKE:
        assert pattern.search(text) is None, text


def test_no_pattern_needs_more_than_what_every_scanner_understands():
    for name, pattern in PATTERNS.items():
        assert not re.search(r"\(\?[=!<P]|\\[1-9]", pattern), name


def shannon(text: str) -> float:
    from math import log2

    return -sum(text.count(one) / len(text) * log2(text.count(one) / len(text)) for one in set(text))


def test_no_token_is_dull_enough_to_be_passed_over():
    [rule] = tomllib.loads((FOLDER / "gitleaks.toml").read_text())["rules"]
    assert min(map(shannon, TOKENS)) > rule["entropy"]


class Base:
    """What detect-secrets gives a plugin: each match's first group, as it is documented for plugins."""

    denylist: tuple[re.Pattern[str], ...] = ()

    def analyze_string(self, string):
        for pattern in self.denylist:
            yield from pattern.findall(string)


@pytest.fixture
def plugin(monkeypatch):
    try:
        import detect_secrets.plugins.base  # noqa: F401 - the real one, where it is installed
    except ModuleNotFoundError:
        for name in ("detect_secrets", "detect_secrets.plugins"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        base = types.ModuleType("detect_secrets.plugins.base")
        base.RegexBasedDetector = Base  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "detect_secrets.plugins.base", base)
    spec = importlib.util.spec_from_file_location("plugin", FOLDER / "detect_secrets_authz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.AuthzServiceTokenDetector()


def test_the_plugin_of_detect_secrets_tries_the_checksum(plugin):
    for token in TOKENS[::10]:
        assert list(plugin.analyze_string(f"token = '{token}'")) == [token]
        other = "a" if token[20] != "a" else "b"
        assert list(plugin.analyze_string(f"token = '{token[:20]}{other}{token[21:]}'")) == []
    for text in ALIKE:
        assert list(plugin.analyze_string(text)) == []
