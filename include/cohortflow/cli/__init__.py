"""The cohortflow command."""
