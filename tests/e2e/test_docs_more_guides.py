"""How-to pages, the second half of them: every block is true."""

from __future__ import annotations

import pytest
from tests.support.docs_pages import GUIDES
from tests.support.docs_run import check_page


@pytest.mark.parametrize("page", GUIDES[1])
def test_every_block_of_a_guide_is_true(page, open_folder):
    check_page(page, open_folder)
