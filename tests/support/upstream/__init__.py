"""Stand-ins for GitLab and GitHub on loopback: they speak the published shapes of those lists that a sync reads."""

from tests.support.upstream.github import GitHubWorld
from tests.support.upstream.gitlab import GitLabWorld
from tests.support.upstream.server import TOKEN, Answer, Asked, StandIn, running

__all__ = ["TOKEN", "Answer", "Asked", "GitHubWorld", "GitLabWorld", "StandIn", "running"]
