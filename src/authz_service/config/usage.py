"""Settings of what is counted of tokens' use."""

from __future__ import annotations

from pydantic import BaseModel, Field


class UsageSettings(BaseModel):
    """Usage is counted in memory and folded into the database: a worker that is killed loses what it did not fold."""

    usage: bool = Field(
        default=True, description="count which permissions a token uses, where, and from which networks"
    )
    usage_fold_seconds: float = Field(
        10.0, ge=0.05, le=3600, description="seconds between two folds of what a worker has counted"
    )
    usage_days: int = Field(90, ge=1, le=400, description="days that usage is kept")
