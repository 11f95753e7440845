"""Pages in the folders of docs/: gateways, operations, the generated reference, decisions. Every block is true."""

from __future__ import annotations

import pytest
from tests.support.docs_pages import FOLDERS
from tests.support.docs_run import check_page


@pytest.mark.parametrize("page", FOLDERS)
def test_every_block_of_a_folder_s_page_is_true(page, open_folder):
    check_page(page, open_folder)
