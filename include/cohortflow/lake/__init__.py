"""Object storage, zones and Delta tables."""
