"""The kept corpus of the fuzz targets, and small changes to it made by rule: in seconds, without the fuzzer."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from tests.fuzz.names import NAMES
from tests.fuzz.targets import LONGEST, TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
CHANGES = 8
"""To each file; a million of them are the fuzzer's (`make fuzz`)."""


def changed(data: bytes, draw: random.Random) -> bytes:
    """A byte more, less or another, a part twice, or the end cut off."""
    place = draw.randrange(len(data) + 1)
    other = draw.randrange(len(data) + 1)
    match draw.randrange(5):
        case 0:
            return data[:place] + bytes([draw.randrange(256)]) + data[place + 1 :]
        case 1:
            return (
                data[:place]
                + draw.choice((b"\x00", b'"', b"\\", b"%", b"\r\n", b"\xff", b"/..", b"{", b":"))
                + data[place:]
            )
        case 2:
            return data[:place] + data[place + 1 :]
        case 3:
            return data[:place] + data[min(place, other) : max(place, other)] + data[place:]
    return data[:place]


@pytest.mark.parametrize("name", NAMES)
def test_no_input_of_the_corpus_breaks_a_promise(name):
    files = sorted((CORPUS / name).iterdir())
    assert files
    draw = random.Random(name)
    for file in files:
        data = file.read_bytes()
        assert len(data) <= LONGEST
        TARGETS[name](data)
        for _ in range(CHANGES):
            TARGETS[name](changed(data, draw))


def test_every_target_has_a_corpus_and_is_named():
    assert tuple(TARGETS) == NAMES
    folders = {folder.name for folder in CORPUS.iterdir() if folder.is_dir()}
    assert folders == set(NAMES)
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 512 * 1024


def test_the_corpus_holds_no_secret_that_a_scanner_would_report():
    """Secrets in it are made up, and all of one kind that says so."""
    for file in CORPUS.rglob("*"):
        if file.is_file():
            for found in re.findall(rb"azt_k1_([A-Za-z0-9]{43})", file.read_bytes()):
                assert b"A1b2A1b2" in found, file
