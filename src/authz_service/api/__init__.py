"""HTTP: bodies in, answers out. Routes speak to the decision point and to `admin`, never to SQL."""
