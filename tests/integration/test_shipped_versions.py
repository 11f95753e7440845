"""A version number that the service ships names one catalog for ever: no installed one stands in its place (C8)."""

from __future__ import annotations

import base64

import pytest
from tests.support.managing import PEPPER, UPSTREAM, staged

from authz_service.cli.preflight import check_database
from authz_service.config import load_settings
from authz_service.errors import StartError
from authz_service.store.shipped import shipped_texts

OTHER = "catalog: gitlab\nversion: 1\npermissions: {job: {read: [project]}}\n"


async def test_a_service_does_not_start_beside_another_text_of_a_version_it_ships(database_url):
    async with staged(database_url) as stage:
        await stage.install(OTHER, "gitlab")
    with pytest.raises(StartError, match="another `gitlab@1`"):
        async with staged(database_url):
            pass
    settings = load_settings({}, database_url=database_url, peppers=f"k1:{base64.b64encode(PEPPER).decode()}")
    with pytest.raises(StartError, match="another name or a number that is free"):
        await check_database(settings)


async def test_the_same_text_and_other_numbers_are_no_obstacle(database_url):
    shipped = dict(shipped_texts())["gitlab@1"]
    async with staged(database_url) as stage:
        await stage.install(shipped, "gitlab")
        await stage.install(OTHER.replace("version: 1", "version: 900"), "gitlab", 900)
        await stage.install(UPSTREAM, "orders")
    async with staged(database_url) as stage:
        assert (await stage.call("GET", "/livez")).status_code == 200
