"""The pytest plugin for a team's own suite: a fresh database at head for each test. docs/testing.md shows its use."""
