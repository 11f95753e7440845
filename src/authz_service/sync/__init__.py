"""The directory from where it lives: read from GitLab's or GitHub's REST API, compared with what is here, imported."""
