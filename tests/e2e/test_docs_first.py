"""Pages that a newcomer begins with: every command of them runs, and prints what they show."""

from __future__ import annotations

import pytest
from tests.support.docs_pages import FIRST
from tests.support.docs_run import check_page


@pytest.mark.parametrize("page", FIRST)
def test_every_block_of_a_first_page_is_true(page, open_folder):
    check_page(page, open_folder)
